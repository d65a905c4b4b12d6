"""Real work on an interpreter without a GIL: threads where they help, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
import threading

import pytest

import parallax
from parallax import Executor, parallel_map
from parallax._core.cores import free_threaded_build, gil_enabled, load_per_core
from parallax._profiling import history

pytestmark = [
    pytest.mark.skipif(gil_enabled(), reason="there is a GIL"),
    pytest.mark.skipif(parallax.cpu_count() < 2, reason="needs two cores"),
]


class Setting:
    value = 1.5


SETTING, SHARED = Setting(), object()
LOCK = threading.Lock()  # does not travel


def shares(_):
    """Two threads count references to the same objects all the time."""
    for _ in range(40_000):
        x, y = SHARED, SETTING
    return x is y


def shares_and_stays(_):
    """The same, and cannot leave this process."""
    for _ in range(40_000):
        x, y = SHARED, SETTING
    return LOCK.locked() or x is y


def computes(n):
    """Nothing that two threads would share."""
    total = 0
    for k in range(60_000):
        total += k * n % 7
    return total


def give_up(why):
    """Nothing can be measured of threads that share two cores with many others."""
    if (load_per_core() or 0.0) > 1.0:
        pytest.skip(f"the machine is too loaded: {why}")
    pytest.fail(why)


def attempts(fn, count):
    """Reports of runs; a loaded machine may need several."""
    for _ in range(5):
        history._table.clear()
        results = parallel_map(fn, range(count))
        assert results[:2] == [fn(0), fn(1)]
        changes = results.report.changes
        yield changes[-1].route if changes else "loop", results.report


def test_threads_that_share_nothing():
    found = []
    for route, report in attempts(computes, 200):
        found.append(str(report))
        if route == "threads":
            return
    give_up("\n".join(found))


@pytest.mark.parametrize(("fn", "wanted"), [(shares, "processes"), (shares_and_stays, "loop")])
def test_threads_that_hinder_each_other(fn, wanted):
    """They are left where they bring less than the loop, or it is known what they bring."""
    found = []
    for route, report in attempts(fn, 300):
        found.append(str(report))
        if route == wanted or (report.measured and report.measured.contention > 1.3):
            return
    give_up("\n".join(found))


def test_calls_that_hinder_each_other():
    for _ in range(5):
        history._table.clear()
        with Executor() as executor:
            for _ in range(10):
                list(executor.map(shares, range(60)))
            (found,) = executor.report().functions
            if found.route == "processes":
                return
    give_up(f"never left this process: {executor.report()}")


EXTENSION = """
#include <Python.h>
static struct PyModuleDef holds = {PyModuleDef_HEAD_INIT, "holds", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_holds(void) { return PyModule_Create(&holds); }
"""

PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore", RuntimeWarning)
from parallax import parallel_map

def work(n):
    if n == {at}:
        import holds
    total = 0
    for k in range(60_000):
        total += k * n % 7
    return n

def last(count):
    changes = parallel_map(work, range(count)).report.changes
    return changes[-1].route if changes else "loop"

assert not sys._is_gil_enabled()
routes = [last(120)]
import holds  # a worker process may have been the one that did
assert sys._is_gil_enabled()
for _ in range(5):
    routes.append(last(120))
    if routes[-1] == "processes":
        break
print(*routes)
"""


@pytest.mark.skipif(not free_threaded_build(), reason="there is always a GIL")
@pytest.mark.parametrize("at", [-1, 30], ids=["between two calls", "in an item"])
def test_an_extension_brings_the_gil_back(tmp_path, at):
    """From then on threads take turns; what was seen without it does not count."""
    (tmp_path / "holds.c").write_text(EXTENSION)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    include = sysconfig.get_path("include")
    compiler = ["cc", "-shared", "-fPIC", f"-I{include}", "-DPy_GIL_DISABLED", "holds.c", "-o"]
    try:
        built = subprocess.run(
            [*compiler, f"holds{suffix}"], cwd=tmp_path, capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no compiler")
    if built.returncode:
        pytest.skip(f"nothing can be compiled: {built.stderr.decode()[-200:]}")
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM.format(at=at)))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHON_GIL"}  # 0 would keep it off
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stderr == ""
    first, *_, last = done.stdout.split()
    if last != "processes":
        give_up(done.stdout)
    assert first in {"threads", "processes"}
