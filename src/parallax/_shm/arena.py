"""The shared memory of this process: one segment for all that it sends to worker processes.

Few and large: the descriptor of it is given to each worker at its birth, so that nothing has to be
passed later. Made when the first worker is started.
"""

from __future__ import annotations

import os
import threading
import time

from parallax._shm.segment import create_segment
from parallax._shm.sender import KEPT_FREE_BYTES, SlabSender

__all__ = ["arena_sender", "release_when_unused", "reset", "unavailable_reason"]

#: Seconds that more free memory is kept than usual. The next call of a series comes sooner.
SURPLUS_KEPT_S = 2.0

_lock = threading.Lock()
_made: list[SlabSender] = []
_trimmers: list[_IdleTrimmer] = []
_refused: list[OSError] = []


class _IdleTrimmer:
    """A thread that lives while large data comes and goes, and then trims what is left of it."""

    def __init__(self) -> None:
        self.sender: SlabSender | None = None
        self._thread: threading.Thread | None = None
        self._latest = 0.0
        #: nothing is to be kept for a while any more.
        self.over = threading.Event()

    def on_allocate(self, *, large: bool) -> None:
        self._latest = time.monotonic()
        if large and self._thread is None and not self.over.is_set():
            self._thread = threading.Thread(
                target=self._run, name="parallax-pool-memory", daemon=True
            )
            self._thread.start()

    def keeps_surplus(self) -> bool:
        return self._thread is not None

    def _run(self) -> None:
        while (
            left := self._latest + SURPLUS_KEPT_S - time.monotonic()
        ) > 0 and not self.over.is_set():
            self.over.wait(left)
        # First this: what comes back from now on is trimmed at once.
        self._thread = None
        if self.sender is not None:
            self.sender.trim(KEPT_FREE_BYTES)


def arena_sender() -> SlabSender | None:
    """What lends this process's memory to its workers; None if there is none to be had."""
    with _lock:
        if not _made and not _refused:
            try:
                trimmer = _IdleTrimmer()
                sender = SlabSender(
                    create_segment(), threading.Lock(), trimmer=trimmer, threads=True
                )
                trimmer.sender = sender
                _trimmers[:] = [trimmer]
                _made.append(sender)
            except OSError as error:
                _refused.append(error)
        for sender in _made:
            sender.on_unused = None
            _trimmers[-1].over.clear()
            return sender
        return None


def unavailable_reason() -> OSError | None:
    """Why there is none, if there is none."""
    return _refused[0] if _refused else None


def release_when_unused() -> None:
    """Let go of it as no worker is left: now, or when nothing is shared by name any more."""
    with _lock:
        for sender in _made:
            _trimmers[-1].over.set()
            sender.on_unused = _leave
            sender.trim(0)


def _leave() -> None:
    # Called by the garbage collector perhaps, which must not wait for a lock.
    while _made:
        _made.pop().close()


def reset() -> None:
    """Begin anew: what was made belongs to the process that forked this one, or to a test."""
    global _lock  # noqa: PLW0603 - the parent's lock may be held by a thread that is gone
    _lock = threading.Lock()
    for sender in _made:
        sender.close()
    _made.clear()
    _refused.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)
