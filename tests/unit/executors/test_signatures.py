"""The executors have what the running interpreter's own classes have, under the same signatures."""

from __future__ import annotations

import concurrent.futures
import inspect
import sys

import pytest

import parallax
from parallax._core.futures import Future

KINDS = ["ThreadPoolExecutor", "ProcessPoolExecutor"]

#: Parameters that the standard library's classes take for subclasses of its own, undocumented.
PRIVATE = {("ThreadPoolExecutor", "__init__"): {"ctxkwargs"}}


def public(kind):
    """The names that programs use; from the classes below ``object``."""
    names = {name for base in kind.__mro__[:-1] for name in vars(base)}
    kept = {"__init__", "__enter__", "__exit__", "__class_getitem__"}
    return {name for name in names if not name.startswith("_") or name in kept}


def pairs():
    for name in KINDS:
        standard, ours = getattr(concurrent.futures, name), getattr(parallax, name)
        for each in sorted(public(standard)):
            yield pytest.param(standard, ours, each, id=f"{name}.{each}")
    for each in sorted(public(concurrent.futures.Executor)):
        if each != "__init__":
            yield pytest.param(concurrent.futures.Executor, parallax.Executor, each, id=each)
    for each in sorted(public(concurrent.futures.Future) - {"__init__", "__class_getitem__"}):
        yield pytest.param(concurrent.futures.Future, Future, each, id=f"Future.{each}")


def parameters(fn):
    signature = inspect.signature(fn)
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


@pytest.mark.parametrize(("standard", "ours", "name"), list(pairs()))
def test_members(standard, ours, name):
    """Positions, names and defaults of parameters; ours may take more, by name only."""
    theirs, mine = getattr(standard, name), getattr(ours, name)
    assert callable(theirs) == callable(mine)
    if not callable(theirs) or mine is theirs:
        return
    private = PRIVATE.get((standard.__name__, name), set())
    wanted = [p for p in parameters(theirs) if p[0] not in private]
    found = parameters(mine)
    rest = [p for p in found if p not in wanted]
    assert [p for p in found if p in wanted] == wanted
    assert {kind for _, kind, _ in rest} <= {inspect.Parameter.KEYWORD_ONLY}, rest


@pytest.mark.parametrize("name", KINDS)
def test_attributes_of_instances(name):
    """Those without an underscore; and the private ones that programs are known to read."""
    with getattr(concurrent.futures, name)(1) as standard, getattr(parallax, name)(1) as ours:
        known = {"ThreadPoolExecutor": ["_threads", "_work_queue", "_thread_name_prefix"]}
        known["ProcessPoolExecutor"] = ["_processes", "_mp_context", "_executor_manager_thread"]
        for each in [n for n in vars(standard) if not n.startswith("_")] + known[name]:
            assert hasattr(standard, each)
            assert hasattr(ours, each), each
        assert ours._max_workers == standard._max_workers
        assert bool(ours._broken) == bool(standard._broken) is False


def test_what_later_interpreters_have():
    """Also on earlier ones, so that a program need not ask for the version."""
    for kind in (parallax.ThreadPoolExecutor, parallax.ProcessPoolExecutor, parallax.Executor):
        assert "buffersize" in inspect.signature(kind.map).parameters
    for name in ("terminate_workers", "kill_workers"):
        assert callable(getattr(parallax.ProcessPoolExecutor, name))
    assert "max_tasks_per_child" in inspect.signature(parallax.ProcessPoolExecutor).parameters


@pytest.mark.skipif(sys.version_info < (3, 15), reason="futures have none")
def test_the_snapshot_that_asyncio_takes_of_a_future():
    """In every state, without a condition."""
    with parallax.ThreadPoolExecutor(1) as pool:
        future = pool.submit(abs, -3)
        assert future.result() == 3
        assert future._get_snapshot() == (True, False, 3, None)
        failed = pool.submit(abs, "x")
        error = failed.exception()
        assert failed._get_snapshot() == (True, False, None, error)
