"""Threads that live beside the program's code end before a fork, and start again after it."""

from __future__ import annotations

import faulthandler
import os
import sys
import time

import pytest

from parallax._core.fork_pauses import COUNTS_LATE
from parallax._core.thread_clocks import native_id
from parallax._profiling.gil_sampler import GilSampler
from parallax._shm import arena

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads"),
    pytest.mark.filterwarnings("always"),
]


def threads():
    return set(map(int, os.listdir("/proc/self/task"))) - {native_id()}


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_other_threads(recwarn):
    """pytest's watchdog is one."""
    faulthandler.cancel_dump_traceback_later()
    alone = not threads()
    yield
    assert not (alone and recwarn.list)  # another test may have left one


def fork():
    """Fork and wait for the child."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_sampler_goes_on_after_a_fork():
    """With what it has seen, and in another thread."""
    alone = threads()
    sampler = GilSampler()
    sampler.start()
    until(lambda: sampler.mark().samples.ticks > 3)
    first, before = threads() - alone, sampler.mark().samples
    assert first
    for _ in range(8):  # before the new thread has had a turn, too
        fork()
    if not COUNTS_LATE:
        until(lambda: sampler.mark().samples.ticks > before.ticks + 3)
        assert not first & threads()
    assert sampler.mark().samples.cpu >= before.cpu
    sampler.stop()
    until(lambda: not sampler.running.locked())
    fork()
    assert not sampler.running.locked()


def test_a_sampler_that_was_stopped_stays_so():
    """Also in the child, where its thread does not exist."""
    sampler = GilSampler()
    sampler.start()
    pid = os.fork()
    if pid == 0:
        sampler.stop()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    sampler.stop()
    sampler.resume()
    until(lambda: not sampler.running.locked())


def test_memory_is_trimmed_before_a_fork():
    """The next large data has it kept again."""
    trimmer = arena._IdleTrimmer()
    for _ in range(2):
        trimmer.on_allocate(large=True)
        assert trimmer.keeps_surplus()
        fork()
        until(lambda: not trimmer.keeps_surplus())
    trimmer.over.set()
    trimmer.on_allocate(large=True)
    trimmer.pause()
    assert trimmer.over.is_set()
