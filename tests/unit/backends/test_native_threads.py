"""Thread pools of native libraries in workers, without such a library."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from parallax._backends.processes.common.native_threads import (
    _MODULES_WITH_THREADS,
    THREAD_COUNT_VARIABLES,
    limit_loaded,
    variables,
)


class Library:
    def __init__(self, internal_api):
        self.internal_api = internal_api
        self.threads = None

    def set_num_threads(self, threads):
        self.threads = threads


@pytest.fixture
def libraries(monkeypatch):
    """Libraries that a stand-in for threadpoolctl finds loaded."""
    found = [Library(api) for api in ("openblas", "mkl", "blis", "openmp", "of the future")]
    fake = ModuleType("threadpoolctl")
    fake.ThreadpoolController = lambda: SimpleNamespace(lib_controllers=found)
    monkeypatch.setitem(sys.modules, "threadpoolctl", fake)
    monkeypatch.setitem(sys.modules, "numpy", sys.modules.get("numpy", ModuleType("numpy")))
    return found


def test_each_library_obeys_its_own_variable(libraries):
    """As it would if it were loaded now."""
    limit_loaded(dict.fromkeys(THREAD_COUNT_VARIABLES, "3") | {"MKL_NUM_THREADS": "7"})
    assert [library.threads for library in libraries] == [3, 7, 3, 3, None]


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "1,2"])
def test_a_value_that_means_nothing_changes_nothing(libraries, value):
    """Libraries read such variables in their own ways."""
    limit_loaded(dict.fromkeys(THREAD_COUNT_VARIABLES, value))
    assert [library.threads for library in libraries] == [None] * 5


def test_threadpoolctl_is_left_alone_without_a_library(libraries, monkeypatch):
    """Nothing that has such threads is loaded: its import would be for nothing."""
    for name in _MODULES_WITH_THREADS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    limit_loaded(dict.fromkeys(THREAD_COUNT_VARIABLES, "3"))
    assert [library.threads for library in libraries] == [None] * 5


def test_without_threadpoolctl(libraries, monkeypatch):
    """It is optional."""
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    limit_loaded(dict.fromkeys(THREAD_COUNT_VARIABLES, "3"))
    assert [library.threads for library in libraries] == [None] * 5


def test_a_library_that_refuses(libraries, monkeypatch):
    """It goes on as it was, and so does the worker."""

    def fail(threads):
        raise OSError

    monkeypatch.setattr(libraries[0], "set_num_threads", fail)
    limit_loaded(dict.fromkeys(THREAD_COUNT_VARIABLES, "3"))
    assert libraries[0].threads is None


def test_variables_are_compared_by_value():
    """A change of any of them is seen, and nothing else."""
    before = variables({"OMP_NUM_THREADS": "2", "OTHER": "1"})
    assert before == variables({"OMP_NUM_THREADS": "2"})
    assert before != variables({"OMP_NUM_THREADS": "3"})
