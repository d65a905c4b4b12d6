"""A program hears of threads at a fork (Python 3.12 and later) only if it has started them itself.

Each program runs for itself: a test runner has threads. Where warnings are errors, Python 3.15
raises one in the program although the child is there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from parallax._core.cores import gil_enabled

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="warns of nothing"),
]

BEGIN = """
import multiprocessing, os, sys, threading, time, warnings
import parallax
from parallax import *

def fork(*_):
    # Begun anew each time: worker threads would restore each other's filters.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pid = os.fork()
        if pid == 0:
            os._exit(0)
    os.waitpid(pid, 0)
    return [str(each.message) for each in caught]

def work_and_fork(n):
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        n += 1
    return fork()

def square(n):
    return n * n

SQUARES = [n * n for n in range(20)]
"""


def program(text, *flags):
    """Run a program to its end; it must say nothing."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", BEGIN + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


THREADS = """
go = threading.Event()
mine = [threading.Thread(target=go.wait) for _ in range(3)]
for each in mine:
    each.start()
"""

END = """
go.set()
for each in mine:
    each.join()
"""


@pytest.mark.parametrize("flags", [("-W", "error"), ("-W", "always")], ids=["error", "always"])
@pytest.mark.parametrize(
    "start",
    [
        "ProcessPoolExecutor(2, multiprocessing.get_context('fork'))",
        "ProcessPoolExecutor(2, multiprocessing.get_context('spawn'), max_tasks_per_child=5)",
        "ProcessPoolExecutor(2, multiprocessing.get_context('forkserver'))",
        "Executor(2, backend='processes')",
    ],
    ids=["fork", "spawn", "forkserver", "default"],
)
def test_workers_start_in_a_program_with_threads(start, flags):
    """Nothing is said, and the program's filters are what they were; also of later ones."""
    program(
        THREADS
        + f"""
before = list(warnings.filters)
for _ in range(2):
    with {start} as pool:
        assert list(pool.map(square, range(20))) == SQUARES
    assert warnings.filters == before
    warnings.simplefilter({flags[1]!r}, DeprecationWarning)
    before = list(warnings.filters)
"""
        + END,
        *flags,
    )


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_workers_of_runs_start_in_a_program_with_threads(method):
    program(
        THREADS
        + f"""
with options(start_method={method!r}):
    assert parallel_map(square, range(20), backend="processes") == SQUARES
"""
        + END,
        "-W",
        "error",
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="filters are the process's")
def test_filters_of_a_context():
    """``-X context_aware_warnings``: the filters in force are not ``warnings.filters``."""
    program(
        THREADS
        + """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(square, range(20))) == SQUARES
assert caught == [], caught
"""
        + END,
        "-X",
        "context_aware_warnings=1",
    )


@pytest.mark.parametrize(
    "calls",
    [
        'parallel_map(work_and_fork, range(30), backend="serial")',
        pytest.param(
            "parallel_map(work_and_fork, range(60), max_workers=2)",
            marks=pytest.mark.skipif(not gil_enabled(), reason="threads run them"),
        ),
        'parallel_map(work_and_fork, range(9), backend="processes")',
        "[x for m in ('zygote', 'spawn') for x in explicit(m)]",
        "[x for m in ('fork', 'spawn', 'forkserver') for x in pool(m)]",
    ],
    ids=["serial", "auto", "processes", "methods", "pools"],
)
def test_items_that_fork(calls):
    """In the caller's thread, beside what measures and watches them, and in all workers."""
    program(
        f"""
def explicit(method):
    with options(start_method=method):
        return parallel_map(fork, range(9), backend="processes")
def pool(method):
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        return [*pool.map(fork, range(9)), pool.submit(work_and_fork, 1).result()]
for heard in {calls}:
    assert heard == [], heard
""",
        "-W",
        "error",
    )


def test_forks_between_calls():
    """No call leaves a thread that the next fork meets: not one that watches, trims or measures."""
    program(
        """
        for backend in ("processes", "threads", "auto"):
            assert parallel_map(square, range(20), backend=backend) == SQUARES
            assert fork() == []
            assert parallel_map(len, [bytes(8 << 20)] * 3, backend=backend) == [8 << 20] * 3
            assert fork() == [] == fork()
        for kind in (ProcessPoolExecutor, ThreadPoolExecutor, Executor):
            with kind(2) as executor:
                assert list(executor.map(square, range(20))) == SQUARES
            # Before 3.13 join() returns a moment before the thread has ended, for pools of futures
            # as well; one that stays is met by the second fork, too.
            assert fork() == [] or fork() == []
        stream = parallel_imap(square, range(1000), backend="processes")
        next(stream)
        assert fork() == []
        stream.close()
        assert fork() == []
        """,
        "-W",
        "error",
    )


def test_a_forked_copy_does_not_warn_of_the_programs_workers():
    """They are no children of it: ResourceWarning of a Popen that it drops."""
    program(
        """
        with options(start_method="spawn"):
            assert parallel_map(square, range(20), backend="processes") == SQUARES
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            assert list(pool.map(square, range(20))) == SQUARES
        """,
        "-W",
        "always",
    )
