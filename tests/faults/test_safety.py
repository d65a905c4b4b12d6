"""Nobody else gets a word in: no listening socket, no name, nothing handed down."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from parallax import Executor, ProcessPoolExecutor, options, parallel_map
from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.process_tree import descendants
from parallax._shm.segment import create_segment

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

METHODS = ("zygote", "spawn")


@pytest.fixture(params=METHODS)
def method(request):
    """Each way of starting worker processes."""
    with options(start_method=request.param, backend="processes"):
        yield request.param


def tree():
    return [os.getpid(), *descendants(os.getpid())]


@pytest.mark.parametrize("method", METHODS, indirect=True)
def test_nobody_listens(method):
    """Neither the program nor its helpers can be connected to."""
    with ProcessPoolExecutor(2) as one, Executor(2, backend="processes") as other:
        futures = [one.submit(time.sleep, 0.01), other.submit(time.sleep, 0.01)]
        parallel_map(abs, range(4))
        for future in futures:
            future.result(30)
        before = len(tree())
        for pid in tree():
            for link in psutil.Process(pid).net_connections("all"):
                # A socket with a name, or one that listens; inherited ones of the test run have
                # neither.
                assert link.status != psutil.CONN_LISTEN, (pid, link)
                assert not link.laddr, (pid, link)
    assert before > 3


def test_sockets_have_no_name(method):
    """There is nothing in the file system, nor in the abstract name space, to connect to."""
    parallel_map(abs, range(4))
    names = Path("/proc/net/unix").read_text().splitlines()[1:]
    mine = set()
    for pid in tree():
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue  # it was closed just now
            if target.startswith("socket:["):
                mine.add(target[8:-1])
    assert mine
    # The inode is the seventh field, the name the eighth if there is one.
    assert [line for line in names if line.split()[6] in mine and len(line.split()) > 7] == []


@pytest.mark.parametrize("without", [(), ("memfd_create",)], ids=["memfd", "file"])
def test_memory_is_nobody_elses(monkeypatch, without):
    """Mode 0600, and no name that somebody could open."""
    for name in without:
        monkeypatch.delattr(os, name)
    segment = create_segment()
    try:
        status = os.fstat(segment.handle)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_nlink == 0
    finally:
        segment.close()


def opened_in_a_program(_):
    """What a program sees that an item starts without closing descriptors."""
    done = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_nothing_is_handed_down(method):
    """Sockets, memory and trace files are closed in the programs that an item starts."""
    for text in parallel_map(opened_in_a_program, range(2)):
        assert text
        assert "socket:" not in text
        assert "parallax" not in text


def test_command_lines_have_no_secrets(method, monkeypatch):
    """What others can read of a worker is where it finds its modules."""
    monkeypatch.setenv("PARALLAX_TEST_TOKEN", "hunter2")
    assert parallel_map(lambda _: os.environ["PARALLAX_TEST_TOKEN"], range(4)) == ["hunter2"] * 4
    for pid in tree()[1:]:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"hunter2" not in line


def forge(x):
    """Write what looks like a frame of another protocol into every socket of the worker."""
    if x == 3:
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    with socket.socket(fileno=os.dup(fd)) as sock:
                        sock.send(b"plx9" + bytes(20))
            except OSError:
                continue
        time.sleep(30)
    return x


def test_a_worker_that_sends_rubbish(method):
    """It is ended; its item is named, the others come back."""
    results = parallel_map(forge, range(8), on_error="return", chunksize=1)
    assert [v for i, v in enumerate(results) if i != 3] == [0, 1, 2, 4, 5, 6, 7]
    assert "cannot be read" in str(results[3])
    assert results[3].index == 3


def test_the_words_of_both_sides_differ():
    """A frame that is sent back to its sender means nothing to it."""
    to_worker = {protocol.CONTEXT, protocol.CALL, protocol.TASK, protocol.BATCH, protocol.INIT}
    from_worker = {protocol.HELLO, protocol.RESULT, protocol.REFUSED, protocol.BYE}
    assert not to_worker & from_worker
