"""Waking the caller's thread while it waits for workers.

Guarantees: a wake that comes between the caller's last look and its wait is not lost. With
worker processes the caller waits on a selector, so the wake travels through a socket pair;
without them a lock does, which costs no descriptors.
"""

from __future__ import annotations

import select
import selectors
import socket
import threading
from typing import Any

from parallax._core.deferred_signals import Shield

__all__ = ["MAX_LOCK_WAIT_S", "Waker", "ready_now", "wait_readable"]

#: Seconds that a lock can be waited for in one go, on every system.
MAX_LOCK_WAIT_S = 1e6

#: Seconds of a wait after which to look for signals that came as it began.
SIGNAL_CHECK_S = 0.05


class Waker:
    """One waiting thread, any number of waking ones.

    A wake may come from a finalizer that the garbage collector runs in the very thread that is in
    the middle of one: no lock is taken unless a thread waits without a selector.
    """

    def __init__(self) -> None:
        self._woken = False
        # A bare lock, not an Event, whose own lock an interrupt or a finalizer may leave taken.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._waiting = False
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def attach(self, selector: selectors.BaseSelector) -> None:
        """From now on a wake also makes this selector return."""
        if self._pair is None:
            with Shield():
                pair = socket.socketpair()
                for end in pair:
                    end.setblocking(False)
                self._pair = pair
        selector.register(self._pair[0], selectors.EVENT_READ)
        if self._woken:
            self._ring()

    def clear(self) -> None:
        """Forget earlier wakes; look at the state after this and wait after that."""
        # The mark last: a wake that came between would leave it without a byte behind it, and all
        # later ones would take that for enough.
        self._gate.acquire(blocking=False)
        if self._pair is not None:
            try:
                while self._pair[0].recv(64):
                    pass
            except (BlockingIOError, OSError):
                pass
        self._woken = False

    def wake(self) -> None:
        """Make the waiting thread look again."""
        if not self._woken:
            self._woken = True
            try:
                self._tell()
            except BaseException:  # by the handler of a signal: nobody would tell any more
                self._tell()
                raise

    def wait(self, timeout: float | None) -> None:
        """Wait without a selector."""
        # Said before the look, as a wake is noted before it looks for us: one sees the other.
        self._waiting = True
        if not self._woken:
            # In two: a signal that comes just before a wait begins is not noticed before it ends.
            first = SIGNAL_CHECK_S if timeout is None else min(timeout, SIGNAL_CHECK_S)
            if not self._gate.acquire(timeout=first):
                rest = -1 if timeout is None else min(timeout - first, MAX_LOCK_WAIT_S)
                self._gate.acquire(timeout=rest)
        self._waiting = False

    def close(self) -> None:
        """Give the descriptors back; idempotent."""
        pair, self._pair = self._pair, None
        if pair is not None:
            for end in pair:
                end.close()

    def __del__(self) -> None:
        # An interrupt came before there was anybody who would close it.
        if self.__dict__.get("_pair") is not None:
            self.close()

    def _tell(self) -> None:
        if self._waiting:
            try:
                self._gate.release()
            except RuntimeError:  # another one was quicker
                pass
        self._ring()

    def _ring(self) -> None:
        if self._pair is not None:
            try:
                self._pair[1].send(b"w")
            except TimeoutError:
                raise  # by the handler of a signal: a socket that does not block raises none
            except OSError:
                return


def ready_now(channels: list[Any]) -> list[Any]:
    """Those of many sockets that have something to read, or whose other end is gone."""
    if not channels:
        return []
    if not hasattr(select, "poll"):
        return select.select(channels, [], [], 0)[0]
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(0)}
    return [channel for channel in channels if channel.fileno() in ready]


def wait_readable(channel: Any, timeout: float | None) -> bool:
    """Wait until something can be read from one socket, without a selector of its own.

    Args:
        channel: anything with a ``fileno``.
        timeout: seconds, None for as long as it takes.

    Returns:
        False if nothing came in time.
    """
    if not hasattr(select, "poll"):
        return bool(select.select([channel], [], [], timeout)[0])
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))
