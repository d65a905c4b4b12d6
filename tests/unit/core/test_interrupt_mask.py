"""Ctrl-C goes to the main thread, also while other threads begin."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from parallax._core import interrupt_mask
from parallax._core.interrupt_mask import StartingThread, block_interrupts, unblock_interrupts
from parallax._reporting import stall_monitor

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="has no masks")

DEADLINE_S = 10.0


def blocked():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(DEADLINE_S)
    return found[0]


@pytest.fixture
def order(monkeypatch):
    """What happened; the main thread blocks the signal for the test."""
    monkeypatch.setattr(interrupt_mask, "TAKEN_S", DEADLINE_S)
    happened = []
    handler = signal.signal(signal.SIGINT, lambda *_: happened.append("taken"))
    before = block_interrupts()
    yield happened
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    signal.signal(signal.SIGINT, handler)


def test_a_signal_is_left_to_the_main_thread(order, monkeypatch):
    """It is under way while a thread, which has inherited the mask, is about to unblock it."""
    looked = threading.Event()
    monkeypatch.setattr(interrupt_mask.time, "sleep", lambda _: looked.set() or looked.wait(0.001))

    def work():
        unblock_interrupts()
        order.append("unblocked")

    os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    assert looked.wait(DEADLINE_S)
    assert order == []
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    thread.join(DEADLINE_S)
    assert order == ["taken", "unblocked"]


def test_a_program_that_keeps_it_blocked_is_not_waited_for(order, monkeypatch):
    monkeypatch.setattr(interrupt_mask, "TAKEN_S", 0.01)
    os.kill(os.getpid(), signal.SIGINT)
    in_thread(unblock_interrupts)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert order == ["taken"]


def test_threads_are_started_with_the_signal_blocked():
    def work():
        before = blocked()
        with StartingThread():
            inside, inherited = blocked(), in_thread(blocked)
        return before, inside, inherited, blocked()

    assert in_thread(work) == (False, True, True, False)
    with StartingThread():
        assert not blocked(), "the main thread takes it"


def test_the_watching_thread_blocks_it():
    class Monitor:
        def check(self, now):
            masks.append(blocked())
            seen.set()
            return now + 60.0

    masks, seen, monitor = [], threading.Event(), Monitor()
    stall_monitor.watch(monitor)
    try:
        assert seen.wait(DEADLINE_S)
    finally:
        stall_monitor.unwatch(monitor)
    assert masks[0]
