"""Waking the caller's thread while it waits for workers.

Guarantees: a wake between the caller's last check and its wait is not lost. With worker processes
the caller waits on a selector, so the wake goes through a socket pair; without them a lock does,
which needs no descriptors.
"""

from __future__ import annotations

import select
import threading

from parallax._core.deferred_signals import MAX_WAIT_S, Shield
from parallax._core.lazy_import import selectors, socket
from parallax._core.light_stdlib import Any, sockets

#: The first part of a wait. A signal that arrives just before is noticed only at its end.
SIGNAL_CHECK_S = 0.05


class Waker:
    """One waiting thread, any number of waking threads.

    A wake may come from a finalizer that the garbage collector runs in a thread that is inside
    ``wake``. So no lock is acquired unless a thread waits without a selector.
    """

    def __init__(self) -> None:
        self._woken = False
        # A bare lock. The own lock of an Event may stay locked by an interrupt or a finalizer.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._waiting = False
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def attach(self, selector: selectors.BaseSelector) -> None:
        if self._pair is None:
            with Shield():
                pair = socket_pair()
                for end in pair:
                    end.setblocking(False)
                self._pair = pair
        selector.register(self._pair[0], selectors.EVENT_READ)
        if self._woken:
            self._ring()

    def clear(self) -> None:
        """Forget earlier wakes; the caller checks its state after this call, and then waits."""
        # The flag last. A wake between flag and recv would set the flag and lose its byte, and all
        # later wakes would see the flag and do nothing.
        self._gate.acquire(blocking=False)
        if self._pair is not None:
            try:
                while self._pair[0].recv(64):
                    pass
            except (BlockingIOError, OSError):
                pass
        self._woken = False

    def wake(self) -> None:
        """Make the waiting thread check its state again."""
        if not self._woken:
            self._woken = True
            try:
                self._tell()
            except BaseException:  # from a signal handler; later wakes would see the flag
                self._tell()
                raise

    def wait(self, timeout: float | None) -> None:
        """Wait without a selector; may return early."""
        # Announced before the check, as a wake sets its flag before it looks here: at least one of
        # the two threads sees the other.
        self._waiting = True
        if not self._woken:
            first = SIGNAL_CHECK_S if timeout is None else min(timeout, SIGNAL_CHECK_S)
            if not self._gate.acquire(timeout=first):
                rest = MAX_WAIT_S if timeout is None else min(timeout - first, MAX_WAIT_S)
                self._gate.acquire(timeout=rest)
        self._waiting = False

    def close(self) -> None:
        pair, self._pair = self._pair, None
        if pair is not None:
            for end in pair:
                end.close()

    def __del__(self) -> None:
        # If an interrupt came before there was an owner to close it.
        if self.__dict__.get("_pair") is not None:
            self.close()

    def _tell(self) -> None:
        if self._waiting:
            try:
                self._gate.release()
            except RuntimeError:  # another thread was quicker
                pass
        self._ring()

    def _ring(self) -> None:
        pair = self._pair  # another thread may close it
        if pair is not None:
            try:
                pair[1].send(b"w")
            except TimeoutError:
                raise  # from a signal handler: a non-blocking socket raises none
            except OSError:
                return


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets. On Windows they are TCP, which holds small messages back by itself."""
    if hasattr(sockets, "socketpair"):
        return sockets.socketpair()
    pair = socket.socketpair()
    for end in pair:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return pair


def ready_channels(channels: list[Any], timeout: float | None) -> list[Any]:
    """Wait for channels without a selector; those with something to read, or gone."""
    if not channels:
        return []
    if not hasattr(select, "poll"):
        return select.select(channels, [], [], timeout)[0]
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
    return [channel for channel in channels if channel.fileno() in ready]
