"""When a stall is told, and in which words."""

from __future__ import annotations

import faulthandler
import os
import threading

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax._core.fork_pauses import COUNTS_LATE
from parallax._reporting import stall_monitor
from parallax._reporting.stall_monitor import StallMonitor, stack_of
from parallax._reporting.stall_policy import (
    MAX_REPORTED_WORKERS,
    InFlight,
    StallDetector,
    stall_message,
)

LIMIT = 8.0


class Work:
    """Items that begin and end at given moments; at most one is in flight."""

    def __init__(self, spans):
        self.spans = spans

    def quiet_since(self, now):
        ends = [end for _, end in self.spans if end <= now]
        for begin, end in self.spans:
            if begin <= now < end:
                return max([begin, *ends])
        return None

    def stalls(self, until):
        """The items that nothing ended in for the limit: each is one stall."""
        return [(begin, end) for begin, end in self.spans if min(end, until) - begin >= LIMIT * 1.5]


@given(st.lists(st.tuples(st.floats(0.01, 20), st.floats(0.01, 40)), max_size=12))
def test_each_stall_is_told_once(steps):
    """At the limit or soon after, and not while nothing is in flight."""
    spans, now = [], 0.0
    for pause, length in steps:
        spans.append((now + pause, now + pause + length))
        now += pause + length
    work, detector = Work(spans), StallDetector(LIMIT, 0.0)
    told, clock = [], 0.0
    while clock < now:
        clock = max(detector.due, clock + 1e-6)
        quiet = work.quiet_since(clock)
        if detector.is_stalled(quiet, clock):
            told.append((clock, quiet))
    for moment, quiet in told:
        assert moment - quiet + 1e-9 >= LIMIT
        assert moment - quiet <= LIMIT * 1.5
    assert len({quiet for _, quiet in told}) == len(told)
    missed = {begin for begin, _ in work.stalls(now)} - {quiet for _, quiet in told}
    assert not missed


def test_one_that_goes_on_is_not_told_again():
    """However often it is looked at, and though the clock is not exact."""
    detector = StallDetector(1.0, 0.0)
    told = [detector.is_stalled(0.001 * (n % 3), 0.25 * n) for n in range(1, 100)]
    assert sum(told) == 1
    assert detector.is_stalled(24.9, 26.0)


def test_words():
    """The oldest first, some of many, and what waits."""
    flights = [InFlight(f"item {n}", f"worker process {n}", n, "File x\nFile y") for n in range(12)]
    text = stall_message("item of `work`", 61.2, flights, 30)
    assert text.startswith("no item of `work` has finished for 61 s; still running:")
    assert text.index("item 11 in worker process 11, for 11 s") < text.index("item 10")
    assert f"and {12 - MAX_REPORTED_WORKERS} more" in text
    assert "30 more are waiting to start" in text
    assert "\n    File x\n    File y\n" in text
    assert "item 1 in" not in text


def test_nothing_that_waits_is_not_told():
    """Nor is it if nobody knows."""
    for waiting in (0, None):
        assert "wait" not in stall_message("item", 1.0, [], waiting).replace("stall_warn", "")


def test_where_a_thread_is():
    """The user's frames, from the innermost to the one that parallax called."""
    ready, go = threading.Event(), threading.Event()

    def waits_in_here():
        ready.set()
        go.wait()

    thread = threading.Thread(target=waits_in_here)
    thread.start()
    ready.wait()
    text = stack_of(thread.ident)
    go.set()
    thread.join()
    assert "in waits_in_here" in text
    assert text.index("in wait\n") < text.index("in waits_in_here")
    assert stack_of(thread.ident) == ""


class HangingView:
    """One thing that hangs, until it is asked about."""

    def __init__(self):
        self.asked = threading.Event()
        self.since = 0.0

    def quiet_since(self):
        return self.since

    def details(self):
        self.asked.set()
        raise RuntimeError("a fault of the watched")


def monitor_threads():
    """Number of threads of this process that watch for stalls, 0 or 1."""
    return int(stall_monitor._monitor_thread.running.locked())


def ended():
    """The thread that watches is gone, or goes."""
    for _ in range(1000):
        if not monitor_threads():
            return True
        threading.Event().wait(0.01)
    return False


def test_a_fault_of_what_is_watched_ends_its_watching_only(caplog):
    """Nobody hears of it, unless who looks for it; others are watched on."""
    first, second = HangingView(), HangingView()
    monitors = [StallMonitor(view, 0.01) for view in (first, second)]
    monitors[0].start()
    assert first.asked.wait(10)
    monitors[1].start()
    assert second.asked.wait(10)
    for monitor in (*monitors, *monitors):
        monitor.stop()
    stall_monitor._monitor_thread.pause()
    assert ended()
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_one_that_is_due_sooner_is_not_told_later():
    """The thread sleeps until the first that is due, also if that came last."""
    patient, hasty = HangingView(), HangingView()
    monitors = [StallMonitor(patient, 60), StallMonitor(hasty, 0.01)]
    for monitor in monitors:
        monitor.start()
    assert hasty.asked.wait(4)
    assert not patient.asked.is_set()
    for monitor in monitors:
        monitor.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("always")
def test_a_fork_meets_no_thread(recwarn):
    """The thread ends before it, and goes on after it in the parent only."""
    faulthandler.cancel_dump_traceback_later()  # pytest's is a thread
    others = psutil.Process().num_threads() - 1
    view = HangingView()
    monitor = StallMonitor(view, 0.3)
    monitor.start()
    while not monitor_threads():
        threading.Event().wait(0.001)
    pid = os.fork()
    if pid == 0:
        os._exit(monitor_threads())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    # Other tests may have left threads, which are what is warned of then.
    assert others or not recwarn.list
    following = StallMonitor(HangingView(), 0.3)
    if COUNTS_LATE:  # the next run or executor starts it
        following.start()
    assert view.asked.wait(10)
    monitor.stop()
    following.stop()


def test_a_finalizer_ends_a_monitor():
    """The collector may run it in any thread, at any line, also under the lock."""
    monitor = StallMonitor(HangingView(), 5.0)
    monitor.start()
    with stall_monitor._monitor_thread._lock:
        monitor.stop()
    assert monitor not in stall_monitor._monitor_thread._monitors


def test_nothing_is_watched_without_a_limit(monkeypatch):
    """With 0 there is not even a thread."""
    monkeypatch.setattr(stall_monitor, "_monitor_thread", stall_monitor._MonitorThread())
    monitor = StallMonitor(HangingView(), 0.0)
    monitor.start()
    assert not monitor_threads()
    monitor.stop()
