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
from parallax._reporting.stall_policy import InFlight, Scene, Silence, describe

__all__ = ["Stage", "Watchman", "stack_of", "watching"]

_log = logging.getLogger("parallax")

clock = time.monotonic

#: Seconds that the thread sleeps at most: it ends that long after what it watched, or later.
NAP = 5.0

#: Seconds that a fork waits for the thread's end.
PATIENCE = 0.5


class Stage(Protocol):
    """What is watched. It is asked from the watchman's thread; times are ``time.monotonic``."""

    def scene(self) -> Scene | None:
        """What is to be seen at a glance; None if nothing is in flight."""

    def flights(self) -> tuple[str, Sequence[InFlight], int | None]:
        """All of it, with stacks: a name, what is in flight, and how much waits."""


class Watchman:
    """Watches one run or executor.

    Args:
        stage: it.
        limit: seconds of silence from which a stall is told; 0 for never.
    """

    __slots__ = ("_began", "limit", "silence", "stage")

    def __init__(self, stage: Stage, limit: float) -> None:
        self.stage: Stage | None = stage
        self.limit = limit
        self.silence: Silence | None = None
        self._began = False

    def start(self) -> None:
        """Begin to watch; does nothing if it does already."""
        if not self._began and self.limit:
            self._began = True
            _post.enter(self)

    def stop(self) -> None:
        """End; returns at once. Idempotent."""
        if self._began:
            _post.leave(self)
            self.stage = None


class _Post:
    """The thread, and what it watches."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._watched: dict[Watchman, None] = {}
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

    def enter(self, watchman: Watchman) -> None:
        with self._lock:
            self._watched[watchman] = None
            self._fresh = True
            if self._wake is None:
                self._begin()
            elif clock() + watchman.limit < self._until:
                self._rouse()

    def leave(self, watchman: Watchman) -> None:
        with self._lock:
            self._watched.pop(watchman, None)

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


def _look(watchman: Watchman, now: float) -> float:
    """Look at one, and tell of it if it is time; when to look again."""
    stage, silence = watchman.stage, watchman.silence
    if stage is None:
        return now + NAP
    if silence is None:
        silence = watchman.silence = Silence(watchman.limit, now)
        return silence.due
    if now < silence.due:
        return silence.due
    try:
        scene = stage.scene()
        if silence.look(scene, now) and scene is not None:
            name, flights, waiting = stage.flights()
            if flights:
                _log.warning("%s", describe(name, now - scene.since, flights, waiting))
    except Exception:  # noqa: BLE001 - what is watched may be in any state
        watchman.stage = None
        _log.debug("a stall cannot be told of", exc_info=True)
    return silence.due


def watching() -> int:
    """How many threads of this process watch."""
    return int(_post.there.locked())


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
    global _post  # noqa: PLW0603 - the parent's locks may be held by threads that are gone
    _post = _Post()


_post = _Post()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _post.pause(),  # noqa: PLW0108 - the one that there is then
        after_in_parent=lambda: _post.resume(),  # noqa: PLW0108
        after_in_child=_start_afresh,
    )
