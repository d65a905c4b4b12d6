"""Keeping Ctrl-C, and what other signals raise, out of moments that they would leave half done.

Python runs the handler of a signal between any two bytecodes of the main thread: also after a
worker was taken from one list and before it is in another. KeyboardInterrupt is raised like this,
and so are time limits (SIGALRM) and the SystemExit of a program that was told to end (SIGTERM).
What must not be torn apart runs in a `Shield`; the handlers of signals that come meanwhile are
called at its end.

Assumes: what is shielded is short, or bounded by a timeout of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from parallax._core.light_stdlib import signals

__all__ = ["Shield"]

#: Signals whose handlers programs let raise: the keyboard's, orders to end, time limits, the last
#: warning of a job queue. Not those of profilers, which come a thousand times a second.
NUMBERS = tuple(
    int(getattr(signals, name))
    for name in ("SIGINT", "SIGBREAK", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signals, name)
)

#: Exceptions in a row, of handlers that were just put back, after which something else is wrong.
TRIES = 1000

Handler = Callable[[int, "FrameType | None"], Any]


class Shield:
    """A block that no signal ends in the middle; does nothing in other threads than the main.

    The program's own handlers, whatever they are, are called when the block is over.
    """

    __slots__ = ("_came", "_handlers")

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Handler]] = []
        self._came: dict[int, FrameType | None] = {}

    def __enter__(self) -> Shield:
        if threading.get_ident() == _main:
            self._hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handlers:
            self._let_go()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Let signals through for a while: what comes next is the program's own code."""
        if not self._handlers:
            yield
            return
        try:
            self._let_go()
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        found: list[tuple[int, Handler]] = []
        for number in NUMBERS:
            handler: Any = signals.getsignal(number)
            if callable(handler):
                found.append((number, handler))
        self._handlers = found
        try:
            for number, _ in found:
                signals.signal(number, self._note)
        except BaseException as error:
            if isinstance(error, ValueError) and "main interpreter" in str(error):
                self._handlers = []  # another interpreter's main thread, where no handler runs
                return
            # Raised by the handler of one that was still to be replaced: its block never begins.
            self._put_back()
            raise

    def _put_back(self) -> None:
        left, raised = list(self._handlers), None
        for _ in range(TRIES):
            try:
                while left:
                    signals.signal(*left[-1])
                    left.pop()
                break
            except BaseException as error:  # noqa: BLE001 - by a handler that was just put back
                raised = error
        if raised is not None:
            raise raised

    def _let_go(self) -> None:
        try:
            self._put_back()
        finally:
            if self._came:
                came, self._came = self._came, {}
                _call([(each, n, came[n]) for n, each in self._handlers if n in came])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came[number] = frame


def _call(calls: list[tuple[Handler, int, FrameType | None]]) -> None:
    """Call each of them, whatever the others raise."""
    if calls:
        handler, number, frame = calls[0]
        try:
            handler(number, frame)
        finally:
            _call(calls[1:])


_main = threading.main_thread().ident


def _after_fork() -> None:
    global _main  # noqa: PLW0603 - the thread that forked is the main one now
    _main = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
