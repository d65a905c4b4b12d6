"""Waiting for the end of a process without collecting its exit status.

Guarantees: a process id that another process uses by now is never waited for: the system's handle
(a pidfd, or a kqueue event) stands for the process that had it when the wait began.
"""

from __future__ import annotations

import errno
import os
import select

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


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


def exit_waiter(pid: int) -> Callable[[], Any] | None:
    """A function that blocks until a process has ended, which need not be a child of this one.

    Returns:
        The function; None if the process is gone, or the system cannot tell.
    """
    kqueue = getattr(select, "kqueue", None)
    try:
        if kqueue is None:
            fd = open_pidfd(pid)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return poll.poll
        names = ("KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_NOTE_EXIT")
        event = getattr(select, "kevent")(pid, *(getattr(select, name) for name in names))  # noqa: B009
        queue = kqueue()
        return lambda: queue.control([event], 1)
    except OSError:
        return None
