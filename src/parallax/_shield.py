"""Keeping Ctrl-C out of moments in which it would leave something half done.

Python raises KeyboardInterrupt between any two bytecodes of the main thread: also after a worker
was taken from one list and before it is in another. What must not be torn apart runs in a `Shield`;
an interrupt that comes meanwhile is raised at its end.

Assumes: what is shielded is short, or bounded by a timeout of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from ._lean import signals

__all__ = ["Shield"]

SIGINT = int(signals.SIGINT)


class Shield:
    """A block that Ctrl-C does not end in the middle; does nothing in other threads than the main.

    The program's own handler, whatever it is, is called when the block is over.
    """

    __slots__ = ("_came", "_handler")

    def __init__(self) -> None:
        self._handler: Any = None
        self._came: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Shield:
        if threading.get_ident() == _main:
            handler = signals.getsignal(SIGINT)
            if callable(handler):
                # Before it is replaced: what comes in between finds it.
                self._handler = handler
                signals.signal(SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handler is not None:
            signals.signal(SIGINT, self._handler)
            if self._came is not None:
                self._handler(*self._came)

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Let Ctrl-C through for a while: what comes next is the program's own code."""
        if self._handler is None:
            yield
            return
        signals.signal(SIGINT, self._handler)
        came, self._came = self._came, None
        if came is not None:
            self._handler(*came)
        try:
            yield
        finally:
            signals.signal(SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame


_main = threading.main_thread().ident


def _after_fork() -> None:
    global _main  # noqa: PLW0603 - the thread that forked is the main one now
    _main = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
