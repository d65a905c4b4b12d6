"""Faults of a whole program, as a table: no memory, no descriptors, no disk, a parent that dies.

Each row is a program of its own, because limits, output and ends are those of a whole process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc, limits"),
    pytest.mark.sampled(2),
]

TESTS = str(Path(__file__).parents[1])

#: What every program begins with; METHOD is how workers start.
BEGIN = """
import functools, os, resource, signal, sys, time
import jobs
from jobs import actions, faults as fault_jobs
from jobs.actions import BAD, COUNT
from parallax import *
configure(start_method=sys.argv[1])
SQUARES = [x * x for x in range(COUNT)]

def both(fn, items=range(COUNT), **more):
    "What a call and an executor make of it."
    from multiprocessing import get_context
    items = list(items)
    yield list(parallel_map(fn, items, backend="processes", on_error="return", **more))
    with ProcessPoolExecutor(2, get_context("spawn") if sys.argv[1] == "spawn" else None) as pool:
        futures = [pool.submit(fn, item) for item in items]
        yield [future.exception() or future.result() for future in futures]

def does(action, *args):
    "A callable whose item at BAD does that."
    return functools.partial(actions.run, functools.partial(action, *args))

def others(found):
    return [v for x, v in enumerate(found) if x != BAD] == [
        v for x, v in enumerate(SQUARES) if x != BAD]

def now(name="statm"):
    "Bytes of this process's address space."
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def warm():
    parallel_map(jobs.square, range(8), backend="processes", max_workers=2, chunksize=1)
"""


class Program(NamedTuple):
    """A fault of a program."""

    name: str
    body: str
    #: what it prints, and its exit status; its standard error is empty.
    out: str = ""
    status: int = 0
    #: before it on the command line.
    wrap: tuple[str, ...] = ()
    #: how workers start where the time is worth it by default.
    usual: tuple[str, ...] = ("zygote",)
    #: words that it prints, or that its error has, where forks of the program do not do the same.
    snapshot: str = ""


#: A system with no room in shared memory, and a temporary folder that is read-only.
NO_DISK = (
    "unshare",
    "-m",
    "sh",
    "-c",
    'mount -t tmpfs -o size=4k tmpfs /dev/shm && mount -t tmpfs -o ro tmpfs "$TMPDIR" && exec "$@"',
    "sh",
)

PROGRAMS = (
    Program(
        "no memory for a result",
        """
        warm()
        resource.setrlimit(resource.RLIMIT_AS, (now() + (60 << 20), -1))
        work = does(bytes, 100 << 20)
        found = parallel_map(work, range(COUNT), backend="processes", on_error="return")
        # By the item, by the worker that packs it, or where it was to be read.
        told = {MemoryError, SerializationError, WorkerDiedError}
        print(others(found), type(found[BAD]) in told, "memory" in repr(found[BAD]).lower())
        print(parallel_map(jobs.square, range(3), backend="processes"))
        """,
        "True True True\n[0, 1, 4]\n",
    ),
    Program(
        "no descriptors for another worker",
        """
        warm()
        free = os.dup(0); os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 3, free + 3))
        work = does(os._exit, 1)
        kwargs = {"backend": "processes", "chunksize": 1}
        found = parallel_map(work, range(COUNT), on_error="return", **kwargs)
        print(others(found), type(found[BAD]).__name__)
        print(parallel_map(jobs.square, range(COUNT), **kwargs) == SQUARES)
        """,
        "True WorkerDiedError\nTrue\n",
        snapshot="more files may be open",
    ),
    Program(
        "no descriptors for any worker",
        """
        warm()
        free = os.dup(0); os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, 1000))
        try: parallel_map(os._exit, range(COUNT), backend="processes", on_error="return")
        except WorkerStartError as error: print("Too many open files" in str(error))
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
        print(parallel_map(jobs.square, range(COUNT), backend="processes") == SQUARES)
        """,
        "True\nTrue\n",
        usual=(),
    ),
    Program(
        "no disk",
        """
        del os.memfd_create
        for found in both(does(actions.segfault)):
            print(others(found), isinstance(found[BAD], WorkerDiedError), found[BAD].signal)
        """,
        "True True SIGSEGV\n" * 2,
        wrap=NO_DISK,
    ),
    Program(
        "the disk under standard output is full",
        """
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        for found in both(does(fault_jobs.prints, 1 << 10)):
            assert others(found) and found[BAD] == "done", found
        os._exit(9)
        """,
        status=9,
    ),
    Program(
        "nobody reads standard output",
        """
        read, write = os.pipe()
        os.dup2(write, 1)
        os.close(read); os.close(write)
        for found in both(does(fault_jobs.prints, 1 << 10)):
            assert others(found) and found[BAD] == "done", found
        os._exit(9)
        """,
        status=9,
        usual=(),
    ),
    Program(
        "an item prints 1 MB",
        """
        for found in both(does(fault_jobs.prints, 1 << 20)):
            assert others(found) and found[BAD] == "done"
        """,
        "x" * (2 << 20),
    ),
    Program(
        "an item prints 100 MB",
        """
        for found in both(does(fault_jobs.prints, 100 << 20)):
            assert others(found) and found[BAD] == "done"
        """,
        "x" * (200 << 20),
        usual=(),
    ),
    Program(
        "the program ignores its children",
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for found in both(does(os._exit, 1)):
            print(others(found), isinstance(found[BAD], WorkerDiedError))
        """,
        "True True\n" * 2,
        usual=(),
    ),
    Program(
        "the folder is gone",
        """
        os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
        for found in both(jobs.square):
            print(found == SQUARES)
        """,
        "True\n" * 2,
        usual=(),
    ),
    Program(
        "the environment is too large to execute anything",
        """
        for n in range(40): os.environ[f"LARGE{n}"] = "x" * 100_000
        try: parallel_map(jobs.square, range(3), backend="processes")
        except WorkerStartError as error: print("too long" in str(error))
        print(parallel_map(jobs.square, range(3)))
        """,
        "True\n[0, 1, 4]\n",
        usual=(),
        snapshot="[0, 1, 4]",
    ),
    Program(
        "an argument ends the program while it is pickled",
        """
        warm()
        parallel_map(fault_jobs.described, [1, actions.Reduced("dies"), 2], backend="processes")
        """,
        status=7,
        usual=(),
        snapshot="exited with status 7",
    ),
    Program(
        "a result ends the program while it is unpickled",
        """
        warm()
        work = does(actions.Reduced, "arrives and dies")
        parallel_map(work, range(COUNT), backend="processes")
        """,
        status=8,
        usual=(),
    ),
    Program(
        "the program is killed in a call",
        """
        warm()
        work = functools.partial(fault_jobs.kills, os.getpid())
        parallel_map(work, range(2), backend="processes", max_workers=2)
        """,
        status=-9,
        usual=("zygote", "spawn", "snapshot"),
    ),
    Program(
        "the program is killed with an executor",
        """
        with ProcessPoolExecutor(2) as pool:
            for x in range(2): pool.submit(fault_jobs.kills, os.getpid(), x)
        """,
        status=-9,
    ),
    Program(
        "the program leaves with an executor at work",
        """
        pool = ProcessPoolExecutor(1)
        pool.submit(actions.starts_threads).result()
        for found in both(does(actions.starts_threads)):
            print(others(found))
        """,
        "True\n" * 2,
        usual=(),
        snapshot="other thread",
    ),
)


@pytest.mark.parametrize(
    ("row", "method"),
    [
        pytest.param(
            row,
            method,
            id=f"{row.name}-{method}",
            marks=[] if method in row.usual else [pytest.mark.full],
        )
        for row in PROGRAMS
        for method in ("zygote", "spawn", "snapshot")
    ],
)
def test_programs(row, method, tmp_path):
    """It ends as it must, says what it must and nothing else, and leaves no process behind."""
    if row.wrap:
        probe = (*row.wrap, "true")
        if shutil.which(row.wrap[0]) is None or subprocess.run(probe, check=False).returncode:
            pytest.skip("no mount namespaces here")
    mark = f"{os.getpid()} {tmp_path}"
    code = BEGIN + textwrap.dedent(row.body)
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*row.wrap, sys.executable, "-c", code, method],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "",
                "PYTHONPATH": os.pathsep.join([TESTS, *sys.path]),
                "TABLE_MARK": mark,
            },
        )
    try:
        status = process.wait(50)
        # It ends when the last process that could write to it does.
        _, err = process.communicate(timeout=2)
    finally:
        if process.stderr is not None and not process.stderr.closed:
            end_all(mark)
    out = (tmp_path / "out").read_text()
    if method == "snapshot" and row.snapshot:
        assert row.snapshot in out + err
        return
    assert (status, err) == (row.status, "")
    assert out == row.out


def end_all(mark):
    """End what a program has left behind, by a variable that all of it inherited."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TABLE_MARK") == mark:
                process.kill()
