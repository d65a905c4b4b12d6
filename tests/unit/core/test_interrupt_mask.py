"""Ctrl-C goes to the main thread, also while other threads begin."""

from __future__ import annotations

import signal
import threading

import pytest

from parallax._core import interrupt_mask
from parallax._core.interrupt_mask import StartingThread, unblock_interrupts
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
def system(monkeypatch):
    """A process with signals under way, each for so many looks; and what was asked of it."""
    under_way, asked = [], []

    class System:
        SIGINT, SIG_UNBLOCK = signal.SIGINT, signal.SIG_UNBLOCK

        def sigpending(self):
            return under_way.pop(0) if under_way else set()

        def pthread_sigmask(self, how, which):
            asked.append((how, which, len(under_way)))

    monkeypatch.setattr(interrupt_mask, "signals", System())
    return under_way, asked


def test_a_signal_is_left_to_the_main_thread(system):
    """It is under way while a thread, which has inherited the mask, is about to unblock it."""
    under_way, asked = system
    under_way += [{signal.SIGTERM, signal.SIGINT}, {signal.SIGINT}, {signal.SIGTERM}]
    unblock_interrupts()
    assert asked == [(signal.SIG_UNBLOCK, {signal.SIGINT}, 0)]


def test_a_program_that_keeps_it_blocked_is_not_waited_for(system, monkeypatch):
    monkeypatch.setattr(interrupt_mask, "TAKEN_S", 0.01)
    under_way, asked = system
    under_way += [{signal.SIGINT}] * 1000
    unblock_interrupts()
    assert len(asked) == 1
    assert under_way


def test_threads_are_started_with_the_signal_blocked():
    def work():
        before = blocked()
        with StartingThread():
            inside, inherited = blocked(), in_thread(blocked)
        return before, inside, inherited, blocked()

    assert in_thread(work) == (False, True, True, False)
    assert work() == (False, True, True, False)


def test_the_watching_thread_blocks_it():
    class Monitor:
        limit = 0.001

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


def test_the_watching_thread_is_asleep_before_items_run(monkeypatch):
    """Else it takes the GIL in the middle of the first one, and Ctrl-C may come too late for it."""

    class Monitor:
        limit = 60.0

        def check(self, now):
            looked.append(now)
            return now + 60.0

    looked, monitor = [], Monitor()
    monkeypatch.setattr(stall_monitor, "_monitor_thread", stall_monitor._MonitorThread())
    monkeypatch.setattr(stall_monitor, "START_S", DEADLINE_S)
    stall_monitor.watch(monitor)
    assert looked
    stall_monitor.unwatch(monitor)
    stall_monitor._monitor_thread.pause()
    with stall_monitor._monitor_thread.running:
        pass
