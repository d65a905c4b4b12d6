"""Threads of parallax that end before the program forks, and start again after the fork.

Since Python 3.12 a fork of a process with threads is a ``DeprecationWarning``. A program must not
be warned, in Python 3.15 even fail, because of threads that it has not started: a thread that
lives beside the program's code registers here. Threads that run the program's code do not.

Guarantees: a fork waits at most ``FORK_WAIT_S`` for the threads. A thread that forks is not waited
for by itself.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import time
import types
import warnings
from collections.abc import Iterator

from parallax._core.light_stdlib import Any, Protocol
from parallax._core.thread_clocks import native_id


class Pausable(Protocol):
    """Has a thread that can end and start again."""

    #: held from before the start of the thread to its end.
    running: _thread.LockType
    #: the kernel's number of the latest thread, which sets it; None where there are none.
    native_id: int | None

    def pause(self) -> None:
        """Have the thread end soon, if there is one."""

    def resume(self) -> None:
        """Start the thread again if it was ended by ``pause``."""


#: Seconds that a fork waits for the threads. Longer delays forks if a log handler hangs.
FORK_WAIT_S = 0.5

#: Seconds between two looks at a thread that is about to end: its last steps take microseconds.
END_POLL_S = 0.0001

#: Whether ``os.fork`` counts threads that start again after it (python/cpython gh-137109).
COUNTS_LATE = (3, 13) <= sys.version_info < (3, 13, 10) or sys.version_info[:3] == (3, 14, 0)

#: held while we fork, and while we execute: ``subprocess`` waits for the end of a pipe that a fork
#: of another thread at that moment would keep open as long as it lives.
starting = _thread.RLock()

_registered: dict[Pausable, None] = {}
#: one for each block of ``paused``.
_holders: list[None] = []


def pause_at_forks(thread: Pausable) -> None:
    _registered[thread] = None


def forget(thread: Pausable) -> None:
    """Leave a thread alone from now on. Idempotent."""
    _registered.pop(thread, None)


def _before() -> None:
    me, deadline = native_id(), time.monotonic() + FORK_WAIT_S
    ended: set[Pausable] = set()
    # Again: the last thing that one of them did may have been to start another.
    while threads := [e for e in list(_registered) if e not in ended and e.native_id != me]:
        for each in threads:
            each.pause()
        for each in threads:
            _await_end(each, deadline)
        ended.update(threads)


def _await_end(thread: Pausable, deadline: float) -> None:
    if thread.running.acquire(True, max(0.0, deadline - time.monotonic())):
        thread.running.release()
        # The system counts it until its last step, which Python code does not see.
        task = f"/proc/self/task/{thread.native_id}"
        while os.path.exists(task) and time.monotonic() < deadline:
            time.sleep(END_POLL_S)


def _after_in_parent() -> None:
    if not COUNTS_LATE and not _holders:  # else each starts again with its next task
        _resume()


def _resume() -> None:
    for each in list(_registered):
        each.resume()


def _after_in_child() -> None:
    global starting  # noqa: PLW0603 - a thread that is not here may have held it
    starting = _thread.RLock()
    _registered.clear()
    _holders.clear()


def running() -> int:
    """How many of the threads there are now."""
    return sum(each.running.locked() for each in list(_registered))


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """In this block there are none of the threads, before and after a fork."""
    _holders.append(None)
    try:
        _before()
        yield
    finally:
        _holders.pop()
        _resume()


def _fork_here() -> int:
    return os.fork()


#: The name of the module of the function below, by which a warnings filter finds its warning.
_QUIET_MODULE = "parallax._quiet_fork"
_fork_in_quiet_module = types.FunctionType(
    _fork_here.__code__, {"__name__": _QUIET_MODULE, "os": os}
)
_QUIET: Any = ("ignore", None, DeprecationWarning, _QUIET_MODULE, 0)


def quiet_fork() -> int:
    """Fork without a warning about threads.

    Nobody could do anything about threads that are parallax's, and where warnings are errors the
    child would be lost (Python 3.15): it goes on, and the caller gets no process id.
    """
    # Not catch_warnings: it replaces the list, and loses what other threads do to it meanwhile.
    filters: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)()
    filters.insert(0, _QUIET)
    try:
        with starting:
            return _fork_in_quiet_module()  # type: ignore[no-any-return]
    finally:
        filters.remove(_QUIET)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
