"""Which threads of ours Ctrl-C may reach: the main thread, where Python's handlers run, first.

The system gives a signal of the process to any thread that does not block it. One that lands
elsewhere does not interrupt what the main thread waits in, so Ctrl-C would seem lost. The main
thread is asked first, but until it has got a core its signal may be taken by any thread that
unblocks it, and each creation of a thread blocks and unblocks all signals in the one that creates.

Guarantees: threads of ours that live beside the main one block Ctrl-C; those that run items do not,
because programs that items start would inherit that, but unblock it when none is under way.
"""

from __future__ import annotations

import time

from parallax._core.lazy_import import threading
from parallax._core.light_stdlib import Any, signals

#: Seconds for the main thread to take its signal, and between two looks. The former is longer only
#: if the program blocks the signal itself.
TAKEN_S, POLL_S = 0.1, 0.001

_HAS_MASKS = hasattr(signals, "pthread_sigmask")


def block_interrupts() -> Any:
    """Have Ctrl-C go to other threads from now on; returns the mask of before."""
    return signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGINT}) if _HAS_MASKS else ()


def unblock_interrupts() -> None:
    """Let this thread take Ctrl-C again, when the main thread has taken what is under way."""
    if _HAS_MASKS:
        deadline = time.monotonic() + TAKEN_S
        while signals.SIGINT in signals.sigpending() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGINT})


class StartingThread:
    """A block that starts a thread, which inherits that Ctrl-C is blocked."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = block_interrupts()

    def __exit__(self, *_: object) -> None:
        if signals.SIGINT in self._before:
            return
        if threading.get_ident() != threading.main_thread().ident:
            unblock_interrupts()
        elif _HAS_MASKS:  # what is under way is for this thread
            signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGINT})
