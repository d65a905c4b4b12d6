"""Waiting for the end of a process without collecting its exit status.

Guarantees: a process id that another process uses by now is never waited for: the system's handle
(a pidfd, a kqueue event, a handle of Windows) stands for the process that had it at first.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable
from functools import partial

from parallax._core.light_stdlib import Any, signals, sockets

if sys.platform == "win32":
    import _winapi


#: Seconds for the exit functions of ``multiprocessing``: a queue may have no reader any more. Less
#: loses what slow readers have not read, more keeps hanging workers longer.
EXIT_FUNCTIONS_S = 60


def open_pidfd(pid: int) -> int:
    """A descriptor, readable when a process ends; ProcessLookupError if it has, or OSError."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.pidfd_open(pid)


def wait_for_exit(pid: int, timeout: float | None) -> bool | None:
    """Whether a process ends in time; None, at once, where the system cannot tell."""
    if sys.platform != "win32" and not hasattr(select, "poll"):  # a library may remove it
        return None
    try:
        wait, close = exit_waiter(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return None
    try:
        return wait(timeout)
    finally:
        close()


def _exit_queue(pid: int) -> Any:
    """A kqueue in which the end of a process is an event; None where there are no kqueues."""
    if not hasattr(select, "kqueue"):
        return None
    names = ("KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_NOTE_EXIT")
    event = getattr(select, "kevent")(pid, *(getattr(select, name) for name in names))  # noqa: B009
    queue = getattr(select, "kqueue")()  # noqa: B009
    queue.control([event], 0)  # raises ProcessLookupError for one that has ended
    return queue


def exit_waiter(
    pid: int, wake_fd: int | None = None
) -> tuple[Callable[[float | None], bool], Callable[[], object]]:
    """What waits for the end of a process, child or not, or for ``wake_fd`` (not on Windows).

    The first function waits for so many seconds at most and tells whether the process has ended,
    the second closes what that waits on. ProcessLookupError if it has ended, OSError if nothing
    tells.
    """
    if sys.platform == "win32":
        handle = _winapi.OpenProcess(_winapi.SYNCHRONIZE, False, pid)

        def wait(timeout: float | None) -> bool:
            milliseconds = _winapi.INFINITE if timeout is None else int(timeout * 1000)
            return _winapi.WaitForSingleObject(handle, milliseconds) == _winapi.WAIT_OBJECT_0

        return wait, partial(_winapi.CloseHandle, handle)
    queue = _exit_queue(pid)
    if queue is not None:
        reads, add = getattr(select, "KQ_FILTER_READ"), getattr(select, "KQ_EV_ADD")  # noqa: B009
        if wake_fd is not None:
            queue.control([getattr(select, "kevent")(wake_fd, reads, add)], 0)  # noqa: B009
        return (
            lambda timeout: any(e.filter != reads for e in queue.control(None, 2, timeout)),
            queue.close,
        )
    fd = open_pidfd(pid)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if wake_fd is not None:
        poll.register(wake_fd, select.POLLIN)

    def ended(timeout: float | None) -> bool:
        ready = poll.poll(None if timeout is None else timeout * 1000)
        return any(each == fd for each, _ in ready)

    return ended, partial(os.close, fd)


def exit_sentinel(pid: int, connection: sockets.socket) -> Any:
    """What ``multiprocessing`` finds ready when a process with the other end has ended."""
    try:
        if sys.platform == "win32":
            return _winapi.OpenProcess(_winapi.SYNCHRONIZE, False, pid)
        return _exit_queue(pid) or open_pidfd(pid)
    except ProcessLookupError:
        ended, theirs = os.pipe()
        os.close(theirs)
        return ended
    except OSError:
        poll = getattr(select, "epoll")()  # noqa: B009 - where there are no pidfds
        # A duplicate: a fork that an item makes closes the socket. Data does not count.
        poll.register(os.dup(connection.fileno()), select.EPOLLRDHUP)
        return poll


def run_exit_functions() -> None:
    """Wait for what the user's code has begun to write to queues, as a ``Process`` does."""
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        return
    if hasattr(signals, "alarm"):
        signals.signal(signals.SIGALRM, signals.SIG_DFL)
        signals.alarm(EXIT_FUNCTIONS_S)
    try:
        util._exit_function()
    except BaseException:  # noqa: BLE001 - any finalizer may raise anything
        sys.excepthook(*sys.exc_info())
