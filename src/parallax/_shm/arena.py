"""The shared memory of this process: one sender for all data that goes to worker processes.

It is created for the first worker. Each worker inherits the descriptor of its segment at its start,
so that no descriptor has to be passed later.
"""

from __future__ import annotations

import _thread
import errno
import os
import threading
import time

from parallax._core.fork_pauses import forget, pause_at_forks
from parallax._core.thread_clocks import native_id
from parallax._shm.segment import create_segment
from parallax._shm.sender import KEPT_FREE_BYTES, SlabSender

#: Seconds that more free memory than usual is kept: the next call of a series comes sooner.
SURPLUS_KEPT_S = 2.0

_lock = threading.Lock()
# Lists, which the garbage collector can empty atomically.
_senders: list[SlabSender] = []
_trimmers: list[_IdleTrimmer] = []
_refused: list[OSError] = []


class _IdleTrimmer:
    """A thread that lives while large data is sent, and trims the free memory afterwards."""

    def __init__(self) -> None:
        self.sender: SlabSender | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._latest = 0.0
        self.running = _thread.allocate_lock()
        self.native_id: int | None = 0
        #: set while no surplus may be kept.
        self.over = threading.Event()
        #: the thread is to end, and another may be started at once.
        self._paused = False

    def on_allocate(self, *, large: bool) -> None:
        self._latest = time.monotonic()
        if not large or self._thread is not None or self.over.is_set():
            return
        if self._starting.acquire(blocking=False):  # else another thread starts it, or a handler
            try:
                if self._thread is None:
                    # A lock of its own: one that trims may want the lock held here.
                    self.running = _thread.allocate_lock()
                    self.running.acquire()
                    thread = threading.Thread(
                        target=self._run,
                        args=(self.running,),
                        name="parallax-pool-memory",
                        daemon=True,
                    )
                    self._thread = thread
                    pause_at_forks(self)
                    thread.start()
            finally:
                self._starting.release()

    def pause(self) -> None:
        if self._thread is not None and not self.over.is_set():
            self._paused = True
            self.over.set()

    def resume(self) -> None:
        """The next large data starts a thread."""

    def keeps_surplus(self) -> bool:
        return self._thread is not None

    def _run(self, running: _thread.LockType) -> None:
        self.native_id = native_id()
        while not self.over.is_set():
            left = self._latest + SURPLUS_KEPT_S - time.monotonic()
            if left <= 0:
                break
            self.over.wait(left)
        if self._paused:
            self._paused = False
            self.over.clear()
        forget(self)
        # First this: memory that is freed from now on is trimmed at once.
        self._thread = None
        if self.sender is not None:
            self.sender.trim(KEPT_FREE_BYTES)
        running.release()


def arena_sender() -> SlabSender | None:
    """The sender of this process; None if the system provides no shared memory."""
    with _lock:
        for sender in _senders:
            if sender.keep_open():
                _trimmers[-1].over.clear()
                return sender
        if _refused and _refused[0].errno not in {errno.EMFILE, errno.ENFILE}:
            return None
        trimmer = _IdleTrimmer()
        try:
            made = SlabSender(create_segment(), threading.Lock(), trimmer=trimmer, threads=True)
        except OSError as error:
            _refused[:] = [error]
            return None
        trimmer.sender = made
        _trimmers[:], _senders[:] = [trimmer], [made]
        return made


def unavailable_reason() -> OSError | None:
    """Why there is no shared memory; None if there is."""
    return _refused[0] if _refused else None


def release_when_unused() -> None:
    """Close the segment once no slab is in use: no worker is left, arrays may still be shared."""
    # A stream that the garbage collector drops may end while this thread has the lock.
    if not _lock.acquire(blocking=False):
        return  # somebody is about to use it
    try:
        for sender in _senders:
            _trimmers[-1].over.set()
            sender.on_unused = _close_senders
            sender.trim(0)
    finally:
        _lock.release()


def _close_senders() -> None:
    # The garbage collector may call this, in any thread; it must not wait for a lock.
    try:
        while True:
            _senders.pop().close()
    except IndexError:
        pass


def reset() -> None:
    """Start anew: the sender belongs to the process that forked this one, or to a test."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined] # a thread that is gone may have held it
    for sender in _senders:
        sender.close()
    _senders.clear()
    _refused.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)
