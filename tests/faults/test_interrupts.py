"""Ctrl-C in a script: one KeyboardInterrupt, and nothing that lives on.

Each row is a program that works in some way, in which every item or call tells that it has begun
and then sleeps for longer than the test may take. The signal goes to the whole process group, as a
terminal sends it, or to the program alone, as an IDE does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

#: Seconds until a program must have ended; its items sleep for much longer.
SOON = 8

HEAD = """
import asyncio, os, signal, subprocess, sys, threading, time
import parallax
from parallax import (
    Executor, ProcessPoolExecutor, ThreadPoolExecutor, amap, arun, parallel, parallel_imap,
    parallel_map,
)
def tell():
    with open(os.environ["TOLD"], "w") as told:
        told.write(f"{os.getpid()}\\n")
def item(x, y=0):
    tell()
    time.sleep(60)
def deeper(x):
    parallel_map(item, range(2), backend="processes", max_workers=1, chunksize=1)
def tool(x):
    child = subprocess.Popen(["sleep", "60"])
    with open(os.environ["TOLD"], "w") as told:
        told.write(f"{os.getpid()} {child.pid}\\n")
    child.wait()
def work():
{work}
"""

#: name: (the program, the tells to wait for before the signal, whether run by default)
WORK: dict[str, tuple[str, int, bool]] = {
    "map": ("parallel_map(item, range(8), backend='processes', max_workers=2)", 2, True),
    "map serial": ("parallel_map(item, range(8), backend='serial')", 1, False),
    "map threads": ("parallel_map(item, range(8), backend='threads', max_workers=4)", 4, True),
    "map auto": ("parallel_map(item, range(8))", 2, True),
    "map of one": ("parallel_map(item, [0])", 1, False),
    "nested": ("parallel_map(deeper, range(2), backend='processes', max_workers=1)", 1, False),
    "starmap": (
        "list(parallel(item).starmap([(1, 2)] * 8, backend='processes', max_workers=2))",
        2,
        False,
    ),
    "imap": ("list(parallel_imap(item, range(8), backend='processes', max_workers=2))", 2, False),
    "imap threads": ("list(parallel_imap(item, range(8), backend='threads'))", 2, False),
    "imap auto": ("next(parallel_imap(item, iter(int, 1)))", 1, False),
    "decorated": (
        "list(parallel(item).map(range(8), backend='processes', max_workers=2))",
        2,
        False,
    ),
    "decorated submit": ("parallel(item).submit(1).result()", 1, False),
    "with": (
        "with ProcessPoolExecutor(2) as pool: [pool.submit(item, x) for x in range(8)]",
        2,
        True,
    ),
    "with result": (
        (
            "with Executor(2, backend='processes') as pool:\n"
            "    [f.result() for f in [pool.submit(item, x) for x in range(8)]]"
        ),
        2,
        False,
    ),
    "with waits": (
        (
            "import concurrent.futures\n"
            "with ProcessPoolExecutor(2) as pool:\n"
            "    concurrent.futures.wait([pool.submit(item, x) for x in range(8)])"
        ),
        2,
        False,
    ),
    "with map": ("with ProcessPoolExecutor(2) as pool: list(pool.map(item, range(8)))", 2, False),
    "with threads": ("with ThreadPoolExecutor(2) as pool: list(pool.map(item, range(8)))", 2, True),
    "with auto": ("with Executor() as pool: list(pool.map(item, range(8)))", 1, True),
    "with serial": ("with Executor(backend='serial') as pool: pool.submit(item, 1)", 1, False),
    "result": (
        (
            "global pool\npool = ProcessPoolExecutor(2)\n"
            "[f.result() for f in [pool.submit(item, x) for x in range(8)]]"
        ),
        2,
        True,
    ),
    "result threads": (
        (
            "global pool\npool = ThreadPoolExecutor(2)\n"
            "[f.result() for f in [pool.submit(item, x) for x in range(8)]]"
        ),
        2,
        False,
    ),
    "result auto": (
        (
            "global pool\npool = Executor()\n"
            "[f.result() for f in [pool.submit(item, x) for x in range(8)]]"
        ),
        1,
        False,
    ),
    "submitted": (
        (
            "global pool\npool = ProcessPoolExecutor(2)\n"
            "[pool.submit(item, x) for x in range(8)]\ntime.sleep(60)"
        ),
        2,
        False,
    ),
    "arun": ("asyncio.run(arun(item, 1))", 1, False),
    "arun processes": (
        "with parallax.options(backend='processes'): asyncio.run(arun(item, 1))",
        1,
        False,
    ),
    "amap": (
        "async def main():\n    async for each in amap(item, range(8)): pass\nasyncio.run(main())",
        1,
        False,
    ),
    "tools": ("parallel_map(tool, range(2), backend='processes', max_workers=2)", 2, False),
}


class Program:
    """A program in a process group of its own, and what its items tell."""

    def __init__(self, tmp_path, code, **env):
        told = str(tmp_path / "told")
        os.mkfifo(told)
        # Open for both: neither end waits for the other one, and there is no end of file.
        self.told = os.fdopen(os.open(told, os.O_RDWR), "rb", buffering=0)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TOLD": told, "PYTHONFAULTHANDLER": "1", **env},
        )
        self.children: set[psutil.Process] = set()

    def hear(self, count):
        """Wait until so many items have begun."""
        for _ in range(count):
            assert select.select([self.told], [], [], SOON)[0], self.finish()
            self.told.readline()
        self.rest()
        self.look()

    def rest(self):
        """Wait until all its threads sleep.

        Linux may hand a signal to a thread that is just starting, although it has woken the main
        one for it. Python's flag is set then, and what the main thread sleeps in goes on.
        """
        deadline = time.monotonic() + SOON
        calm = 0
        while calm < 3 and time.monotonic() < deadline:
            calm = 0 if set(self.states()) - {"S"} else calm + 1
            time.sleep(0.005)

    def states(self):
        for stat in Path(f"/proc/{self.process.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                yield stat.read_text().rpartition(")")[2].split()[0]

    def look(self):
        """Note who belongs to the program now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.children |= set(psutil.Process(self.process.pid).children(recursive=True))

    def send(self, number, *, group):
        (os.killpg if group else os.kill)(self.process.pid, number)

    def finish(self):
        """What it wrote, its exit status, and the children that outlived it."""
        try:
            out, err = self.process.communicate(timeout=SOON)
        except subprocess.TimeoutExpired:
            self.look()
            self.process.send_signal(signal.SIGABRT)
            pytest.fail("it did not end:\n" + self.process.communicate()[1])
        finally:
            self.process.kill()
            _, alive = psutil.wait_procs(self.children, timeout=2)
            left = [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
            words = [" ".join(child.cmdline()) for child in left]
            for child in left:
                child.kill()
            self.process.communicate()
            self.told.close()
        return out, err, self.process.returncode, words


@pytest.fixture
def program(tmp_path):
    """Starts a program."""
    return lambda code, **env: Program(tmp_path, code, **env)


def body(work):
    return HEAD.replace("{work}", textwrap.indent(work, "    "))


def rows():
    for name, (work, count, default) in WORK.items():
        for group in (True, False):
            ours = default and (group or name == "map")
            marks = () if ours else pytest.mark.full
            sent = "to the group" if group else "to the program"
            yield pytest.param(work, count, group, id=f"{name}, {sent}", marks=marks)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("work", "count", "group"), list(rows()))
def test_one_interrupt_ends_a_program(program, work, count, group):
    """It dies of the one KeyboardInterrupt, at once and without noise, and takes all with it."""
    running = program(body(work) + "work()\n")
    running.hear(count)
    running.send(signal.SIGINT, group=group)
    _, err, code, left = running.finish()
    assert left == []
    assert code == -signal.SIGINT
    # Before 3.13 asyncio tells of the CancelledError that it made of it, too.
    assert err.count("Traceback") <= 1 + ("asyncio" in err), err
    assert "Exception ignored" not in err
    assert err.count("\nKeyboardInterrupt") == 1, err
