"""Looks from a thread of its own whether work has stalled, and says so through the logger.

Nobody else can look: the caller's thread may be inside the item that hangs. One thread watches all
runs and executors of the process; to be entered in its list costs a run less than a microsecond.

Guarantees: the thread only sleeps, and ends some seconds after there is nothing to watch any more;
it ends before a fork, so nobody is warned of a program with threads, and is begun again after it;
a fault of what it watches ends the watching of that and nothing else.
"""

from __future__ import annotations

import _thread
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from parallax._core.own_code import is_own
from parallax._reporting.stall_policy import Activity, InFlight, StallDetector, describe

__all__ = ["StallMonitor", "StallView", "monitor_threads", "stack_of"]

_log = logging.getLogger("parallax")

clock = time.monotonic

#: Seconds that the thread sleeps at most: it ends that long after what it watched, or later.
NAP = 5.0

#: Seconds that a fork waits for the thread's end.
PATIENCE = 0.5


class StallView(Protocol):
    """What is watched. It is asked from the monitor's thread; times are ``time.monotonic``."""

    def activity(self) -> Activity | None:
        """What is to be seen at a glance; None if nothing is in flight."""

    def details(self) -> tuple[str, Sequence[InFlight], int | None]:
        """All of it, with stacks: a name, what is in flight, and how much waits."""


class StallMonitor:
    """Watches one run or executor.

    Args:
        view: it.
        limit: seconds of detector from which a stall is told; 0 for never.
    """

    __slots__ = ("_began", "detector", "limit", "view")

    def __init__(self, view: StallView, limit: float) -> None:
        self.view: StallView | None = view
        self.limit = limit
        self.detector: StallDetector | None = None
        self._began = False

    def start(self) -> None:
        """Begin to watch; does nothing if it does already."""
        if not self._began and self.limit:
            self._began = True
            _monitor_thread.enter(self)

    def stop(self) -> None:
        """End; returns at once. Idempotent."""
        if self._began:
            _monitor_thread.leave(self)
            self.view = None


class _MonitorThread:
    """The thread, and what it watches."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._watched: dict[StallMonitor, None] = {}
        #: released to end the thread's sleep; None without a thread.
        self._wake: _thread.LockType | None = None
        #: when it looks next.
        self._until = 0.0
        #: held by the thread as long as it runs.
        self.there = _thread.allocate_lock()
        self._ends = False
        self._ident = 0
        #: somebody was entered since the thread has looked.
        self._fresh = False

    def enter(self, monitor: StallMonitor) -> None:
        with self._lock:
            self._watched[monitor] = None
            self._fresh = True
            if self._wake is None:
                self._begin()
            elif clock() + monitor.limit < self._until:
                self._rouse()

    def leave(self, monitor: StallMonitor) -> None:
        with self._lock:
            self._watched.pop(monitor, None)

    def _begin(self) -> None:
        self._wake, self._ends, self._until = _thread.allocate_lock(), False, 0.0
        self._wake.acquire()
        try:
            # Not threading.Thread, whose start waits for the new thread.
            _thread.start_new_thread(self._watch, (self._wake,))
        except RuntimeError:  # no more threads: what there is goes unwatched
            self._wake = None

    def _rouse(self) -> None:
        if self._wake is not None and self._wake.locked():
            self._wake.release()

    def _watch(self, wake: _thread.LockType) -> None:
        self._ident = _thread.get_ident()
        with self.there:
            while True:
                with self._lock:
                    watched, self._fresh = list(self._watched), False
                    if self._ends or not watched:
                        self._wake = None
                        return
                now = clock()
                due = min([now + NAP, *(_look(each, now) for each in watched)])
                with self._lock:
                    if self._fresh:
                        due = now  # somebody came meanwhile
                    self._until = due
                wake.acquire(True, max(0.0, due - clock()))

    def pause(self) -> None:
        """End the thread, before a fork."""
        with self._lock:
            running = self._wake is not None
            self._ends = True
            self._rouse()
        # Not in a handler of the log that forks, nor for one that waits for who forks.
        if running and self._ident != _thread.get_ident() and self.there.acquire(True, PATIENCE):
            self.there.release()

    def resume(self) -> None:
        """Begin it again, after a fork."""
        with self._lock:
            self._ends = False
            if self._watched and self._wake is None:
                self._begin()


def _look(monitor: StallMonitor, now: float) -> float:
    """Look at one, and tell of it if it is time; when to look again."""
    view, detector = monitor.view, monitor.detector
    if view is None:
        return now + NAP
    if detector is None:
        detector = monitor.detector = StallDetector(monitor.limit, now)
        return detector.due
    if now < detector.due:
        return detector.due
    try:
        activity = view.activity()
        if detector.is_stalled(activity, now) and activity is not None:
            name, flights, waiting = view.details()
            if flights:
                _log.warning("%s", describe(name, now - activity.since, flights, waiting))
    except Exception:  # noqa: BLE001 - what is watched may be in any state
        monitor.view = None
        _log.debug("a stall cannot be told of", exc_info=True)
    return detector.due


def monitor_threads() -> int:
    """How many threads of this process watch."""
    return int(_monitor_thread.there.locked())


def stack_of(ident: int) -> str:
    """Where the user's code in a thread is, outermost frame last as faulthandler has it.

    Args:
        ident: the thread's.
    """
    frame = sys._current_frames().get(ident)
    lines: list[str] = []
    users = False
    while frame is not None:
        name = frame.f_code.co_filename
        ours = is_own(name)
        if ours and users:
            break  # what called the user's function
        users = not ours
        lines.append(f'File "{name}", line {frame.f_lineno} in {frame.f_code.co_name}')
        frame = frame.f_back
    return "\n".join(lines) if users else ""


def _start_afresh() -> None:
    global _monitor_thread  # noqa: PLW0603 - the parent's locks may be held by threads that are gone
    _monitor_thread = _MonitorThread()


_monitor_thread = _MonitorThread()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _monitor_thread.pause(),  # noqa: PLW0108 - the one that there is then
        after_in_parent=lambda: _monitor_thread.resume(),  # noqa: PLW0108
        after_in_child=_start_afresh,
    )
