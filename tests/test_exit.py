"""Nothing outlives the program, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
from helpers.process_ends import living

pytestmark = pytest.mark.sampled(2)

METHODS = ("zygote", "spawn")
POSIX = os.name == "posix"


@pytest.fixture(params=METHODS)
def method(request):
    """Each way of starting worker processes."""
    if request.param == "zygote" and not sys.platform.startswith("linux"):
        pytest.skip("the zygote is for Linux")
    return request.param


SESSION = """
import os, sys, threading, time
from parallax import parallel_map, parallel_imap
def pid(x):
    time.sleep(0.002)
    return os.getpid()
pids = set(parallel_map(pid, range(20), backend="processes"))
print(os.getpid(), *pids, flush=True)
{then}
"""


def start(then, method):
    """Start a program that has warm workers; the process, and all its descendants' pids."""
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION.format(then=textwrap.dedent(then))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PARALLAX_START_METHOD": method},
    )
    assert process.stdout is not None
    first = process.stdout.readline().split()
    assert first, process.communicate()[1]
    children = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    return process, children | {int(p) for p in first[1:]}


def finish(process):
    out, err = process.communicate(timeout=10)
    return out, err, process.returncode


@pytest.mark.sampled(2)
@pytest.mark.parametrize("then", ["", "sys.exit(3)", "raise ValueError('end')"])
def test_exit_leaves_nothing(method, then):
    """When the interpreter ends, for whatever reason, its workers are gone with it."""
    process, pids = start("sys.stdin.readline()\n" + then, method)
    assert len(pids) >= 2
    begin = time.monotonic()
    _, err, code = finish(process)
    assert code == {"": 0, "sys.exit(3)": 3}.get(then, 1)
    assert time.monotonic() - begin < 5
    assert living(pids, 3.0) == []
    # From 3.13 on a traceback quotes the lines of a "-c" program, too.
    assert "Error" not in err.replace("ValueError: end", "").replace(then, "")


def test_os_exit_leaves_nothing(method):
    """Nor after ``os._exit``, which runs no exit handlers."""
    process, pids = start("os._exit(0)", method)
    finish(process)
    assert living(pids, 3.0) == []


def test_exit_with_an_open_stream(method):
    """A stream that was not read to its end does not keep the interpreter."""
    then = """
    stream = parallel_imap(pid, iter(int, 1), backend="processes")
    next(stream)
    """
    process, pids = start(then, method)
    _, err, code = finish(process)
    assert (err, code) == ("", 0)
    assert living(pids, 3.0) == []


def test_exit_while_a_thread_waits(method):
    """A daemon thread in the middle of a call does not keep the interpreter."""
    then = """
    def endless(x):
        time.sleep(60)
    t = threading.Thread(target=parallel_map, args=(endless, range(4)),
                         kwargs={"backend": "processes"}, daemon=True)
    t.start()
    t.join(0.3)
    """
    process, pids = start(then, method)
    finish(process)
    assert living(pids, 3.0) == []


@pytest.mark.sampled(3)
@pytest.mark.skipif(not POSIX, reason="signals")
@pytest.mark.parametrize("busy", [False, True])
def test_killed_parent_leaves_nothing(method, busy):
    """SIGKILL of the program ends its workers, idle or in the middle of an item."""
    then = "def long(x):\n    os.write(1, b'in\\n'); time.sleep(60)\n"
    then += (
        "parallel_map(long, range(4), backend='processes')"
        if busy
        else ("print('in', flush=True); time.sleep(60)")
    )
    process, pids = start(then, method)
    assert process.stdout.readline() == "in\n"
    process.kill()
    assert living(pids, 3.0) == []
    process.communicate()


@pytest.mark.sampled(3)
@pytest.mark.skipif(not POSIX, reason="signals")
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("backend", ["processes", "threads", "serial", "auto"])
def test_ctrl_c(method, backend, group):
    """Ctrl-C during a run: one KeyboardInterrupt, soon, and no child is left."""
    if method == "spawn" and backend != "processes":
        pytest.skip("no processes")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
            import os, time
            from parallax import parallel_map
            def long(x):
                os.write(1, b"in\\n")
                # Not one sleep: Python acts at its end on a signal of the instant before it begins.
                for _ in range(30 if {backend!r} == "threads" else 600):
                    time.sleep(0.1)
            try:
                parallel_map(long, range(8), backend={backend!r})
            except KeyboardInterrupt:
                os.write(1, b"interrupted\\n")
            """),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PARALLAX_START_METHOD": method},
    )
    assert process.stdout.readline() == "in\n"
    pids = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    begin = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    out, err, code = finish(process)
    assert out.count("interrupted") == 1
    assert "Traceback" not in err
    assert code == 0
    assert time.monotonic() - begin < 4
    assert living(pids, 3.0) == []


@pytest.mark.skipif(not POSIX, reason="signals")
def test_sigterm_ends_the_program(method):
    """SIGTERM with its default action ends the program, and its workers with it."""
    process, pids = start("print('in', flush=True); time.sleep(60)", method)
    assert process.stdout.readline() == "in\n"
    process.terminate()
    assert finish(process)[2] == -signal.SIGTERM
    assert living(pids, 3.0) == []
