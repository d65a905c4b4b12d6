"""Waiting for the end of a process that is not a child, with what each system has for it."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import subprocess
import sys
from multiprocessing import connection

import pytest

from parallax._backends.processes.common import process_exit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors")

WAITS = [sys.executable, "-S", "-E", "-c", "import sys; sys.stdin.read()"]


def refuses(_):
    raise OSError(errno.ENOSYS, "no such system call")


@pytest.fixture(params=["native", "epoll"])
def system(request, monkeypatch):
    """With a descriptor for processes, and without."""
    if request.param == "epoll":
        if not hasattr(select, "epoll"):
            pytest.skip("no epoll")
        monkeypatch.setattr(process_exit, "open_pidfd", refuses)
    return request.param


@pytest.fixture
def child():
    """A process that waits, the end of a socket that only it has the other of, and its end."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(WAITS, stdin=theirs)
    theirs.close()
    yield process, ours
    process.kill()
    process.wait()
    ours.close()


@pytest.fixture(autouse=True)
def _close_duplicates(monkeypatch):
    """A sentinel is kept as long as its process: what it holds is not given back."""
    made, dup = [], os.dup
    monkeypatch.setattr(os, "dup", lambda fd: made.append(dup(fd)) or made[-1])
    yield
    for fd in made:
        os.close(fd)


def close(sentinel):
    if isinstance(sentinel, int):
        os.close(sentinel)
    else:
        sentinel.close()


def test_the_sentinel_is_ready_at_the_end_and_not_before(system, child):
    """Data on the connection is no end."""
    process, sock = child
    sentinel = process_exit.exit_sentinel(process.pid, sock)
    number = sentinel if isinstance(sentinel, int) else sentinel.fileno()
    gc.collect()
    assert connection.wait([number], 0) == []
    process.kill()
    assert connection.wait([number], 10) == [number]
    assert connection.wait([number], 0) == [number]  # for ever
    close(sentinel)


def test_data_is_no_end(system):
    """On the connection to a parent that is alive."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sentinel = process_exit.exit_sentinel(os.getpid(), ours)
        theirs.send(b"work")
        number = sentinel if isinstance(sentinel, int) else sentinel.fileno()
        assert connection.wait([number], 0) == []
        close(sentinel)


def test_the_sentinel_of_a_process_that_is_gone(child):
    process, sock = child
    process.kill()
    process.wait()
    sentinel = process_exit.exit_sentinel(process.pid, sock)
    assert connection.wait([sentinel], 0) == [sentinel]
    os.close(sentinel)
