"""Waiting for the end of a process without collecting its exit status.

Guarantees: a process id that another process uses by now is never waited for: the system's handle
(a pidfd, or a kqueue event) stands for the process that had it when the wait began.
"""

from __future__ import annotations

import errno
import os
import select
import sys

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallax._core.light_stdlib import sockets


def open_pidfd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends.

    Raises:
        ProcessLookupError: no process has that id.
        OSError: the system has no such descriptors, or none is left.
    """
    if not hasattr(os, "pidfd_open"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.pidfd_open(pid)


def wait_for_exit(pid: int, timeout: float | None) -> bool | None:
    """Wait for the end of a process.

    Args:
        pid: process id.
        timeout: seconds to wait at most; None for as long as it takes.

    Returns:
        Whether the process has ended; None, at once, where the system cannot tell.
    """
    try:
        fd = open_pidfd(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return None
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    finally:
        os.close(fd)


def _exit_queue(pid: int) -> Any:
    """A kqueue in which the end of a process is an event; None where there are no kqueues."""
    if not hasattr(select, "kqueue"):
        return None
    names = ("KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_NOTE_EXIT")
    event = getattr(select, "kevent")(pid, *(getattr(select, name) for name in names))  # noqa: B009
    queue = getattr(select, "kqueue")()  # noqa: B009
    queue.control([event], 0)
    return queue


def exit_waiter(pid: int) -> Callable[[], Any] | None:
    """A function that blocks until a process has ended, which need not be a child of this one.

    Returns:
        The function; None if the process is gone, or the system cannot tell.
    """
    try:
        queue = _exit_queue(pid)
        if queue is not None:
            return lambda: queue.control(None, 1)
        poll = select.poll()
        poll.register(open_pidfd(pid), select.POLLIN)
        return poll.poll
    except OSError:
        return None


def exit_sentinel(pid: int, connection: sockets.socket) -> Any:
    """What ``multiprocessing.connection.wait`` finds ready when a process has ended.

    Args:
        pid: process id.
        connection: a socket whose other end only that process has, for systems without such things.

    Returns:
        A descriptor or handle, or an object that has a descriptor as long as it exists.
    """
    try:
        if sys.platform == "win32":
            import _winapi

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
