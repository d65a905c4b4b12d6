"""Reports stalls to the logger, from a thread that watches all runs and executors of the process.

No other thread could: the caller's thread may be inside the item that hangs. To be registered costs
a run less than a microsecond.

Guarantees: the thread only sleeps, and ends some seconds after nothing is left to watch. It pauses
at forks. An error in what is watched ends the watching of that, and of nothing else.
"""

from __future__ import annotations

import _thread
import os
import time
from collections.abc import Sequence

from parallax._core.current_frames import current_frames
from parallax._core.fork_pauses import pause_at_forks
from parallax._core.interrupt_mask import StartingThread
from parallax._core.lazy_import import logging
from parallax._core.light_stdlib import Any, Protocol
from parallax._core.own_code import is_own
from parallax._core.thread_clocks import native_id
from parallax._reporting.stall_policy import InFlight, StallDetector, stall_message

#: Longest sleep of the thread: it ends at most that long after the last run or executor.
MAX_SLEEP_S = 5.0

#: Longest wait for a new thread to be asleep; one without a core by then is not waited for.
START_S = 0.01


class StallView(Protocol):
    """What is watched; it is asked from the monitor's thread. Times are ``time.monotonic``."""

    def quiet_since(self) -> float | None:
        """Since when nothing has ended of what is in flight; None if nothing is."""

    def details(self) -> tuple[str, Sequence[InFlight], int | None]:
        """A name, what is in flight with stacks, and how much waits; see ``stall_message``."""


class StallMonitor:
    """Watches one run or executor; ``limit`` 0 watches nothing, see ``StallDetector``."""

    __slots__ = ("_began", "detector", "limit", "view")

    def __init__(self, view: StallView, limit: float) -> None:
        self.view: StallView | None = view
        self.limit = limit
        self.detector: StallDetector | None = None
        self._began = False

    def start(self) -> None:
        """Begin to watch. Idempotent."""
        if not self._began and self.limit:
            self._began = True
            _monitor_thread.add(self)

    def stop(self) -> None:
        """End; returns at once. Idempotent."""
        if self._began:
            _monitor_thread.remove(self)
            self.view = None

    def check(self, now: float) -> float:
        """Report a stall if one is due; returns when to check next."""
        view, detector = self.view, self.detector
        if view is None:
            return now + MAX_SLEEP_S
        if detector is None:
            detector = self.detector = StallDetector(self.limit, now)
        if now < detector.due:
            return detector.due
        try:
            quiet = view.quiet_since()
            if detector.is_stalled(quiet, now) and quiet is not None:
                name, running, waiting = view.details()
                if running:
                    silent = now - quiet
                    message = stall_message(name, silent, running, waiting)
                    logging.getLogger("parallax").warning("%s", message)
        except Exception:  # noqa: BLE001 - what is watched may be in any state
            self.view = None
            logging.getLogger("parallax").debug(
                "the check for stalls has failed and is off for this run or executor", exc_info=True
            )
        return detector.due


class _MonitorThread:
    """The thread, and the monitors that it checks."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._monitors: dict[Any, None] = {}
        #: released to end the thread's sleep; None without a thread.
        self._wake: _thread.LockType | None = None
        self._next_check = 0.0
        #: held from the start of the thread to its end.
        self.running = _thread.allocate_lock()
        self.native_id: int | None = 0
        self._ends = False
        #: whether a monitor was added since the thread read the list.
        self._added = False

    def add(self, monitor: Any) -> None:
        with self._lock:
            self._monitors[monitor] = None
            self._added = True
            asleep = self._start() if self._wake is None else None
            if asleep is None and time.monotonic() + monitor.limit < self._next_check:
                self._wake_up()
        if asleep is not None:
            # Else it may take the GIL in the middle of the first item, and keep the caller's thread
            # just short of a system call when Ctrl-C comes: Python would act on it after the call.
            asleep.acquire(True, START_S)

    def remove(self, monitor: Any) -> None:
        # Without the lock: a finalizer may do this in the thread that holds it.
        self._monitors.pop(monitor, None)

    def _start(self) -> _thread.LockType:
        """Start the thread; returns what it releases before its first sleep."""
        pause_at_forks(self)
        asleep = _thread.allocate_lock()
        asleep.acquire()
        self._wake, self._ends, self._next_check = _thread.allocate_lock(), False, 0.0
        self._wake.acquire()
        self.running.acquire()  # one that ends holds it no longer than it takes to return
        try:
            # Not threading.Thread, whose start waits for the new thread.
            with StartingThread():
                _thread.start_new_thread(self._run, (self._wake, asleep))
        except RuntimeError:  # no more threads: nothing is watched
            self._wake = None
            self.running.release()
            asleep.release()
        return asleep

    def _wake_up(self) -> None:
        if self._wake is not None and self._wake.locked():
            self._wake.release()

    def _run(self, wake: _thread.LockType, asleep: _thread.LockType) -> None:
        self.native_id = native_id()
        try:
            while True:
                with self._lock:
                    monitors, self._added = list(self._monitors), False
                    if self._ends or not monitors:
                        self._wake = None
                        return
                now = time.monotonic()
                due = min([now + MAX_SLEEP_S, *(monitor.check(now) for monitor in monitors)])
                del monitors  # they refer to what the program waits for to end
                with self._lock:
                    if self._added:
                        due = now
                    self._next_check = due
                if asleep.locked():
                    asleep.release()
                wake.acquire(True, max(0.0, due - time.monotonic()))
        finally:
            self.running.release()

    def pause(self) -> None:
        with self._lock:
            self._ends = True
            self._wake_up()

    def resume(self) -> None:
        with self._lock:
            self._ends = False
            if self._monitors and self._wake is None:
                self._start()


def watch(monitor: Any) -> None:
    """Have the thread call ``check(now)``, which returns when to be called next.

    The first call is after ``monitor.limit`` seconds at most.
    """
    _monitor_thread.add(monitor)


def unwatch(monitor: Any) -> None:
    """Have the thread check it no more. Idempotent; one check may be under way."""
    _monitor_thread.remove(monitor)


def stack_of(ident: int) -> str:
    """The stack of the user's code in a thread, innermost frame first, as faulthandler has it."""
    frame = current_frames().get(ident)
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
    os.register_at_fork(after_in_child=_start_afresh)
