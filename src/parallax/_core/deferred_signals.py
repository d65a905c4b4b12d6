"""Deferring signal handlers during steps that must not be interrupted half-way.

Python runs signal handlers between any two bytecodes of the main thread: for example after a worker
was removed from one list and before it is added to another. KeyboardInterrupt is raised like this,
and so are time limits (SIGALRM) and the SystemExit of a program that is told to end (SIGTERM).
Steps that must be atomic run in a `Shield`; the handlers of signals that arrive meanwhile are
called when the block ends.

Assumes: a shielded block is short, or has a timeout of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from parallax._core.light_stdlib import Any, TypeAlias, signals

Handler: TypeAlias = "Callable[[int, FrameType | None], Any]"

#: Signals whose handlers commonly raise: Ctrl-C, requests to end, time limits, the last warning of
#: a job queue. Not the signals of profilers, which arrive a thousand times a second.
SHIELDED_SIGNALS = tuple(
    int(getattr(signals, name))
    for name in ("SIGINT", "SIGBREAK", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signals, name)
)

#: The longest wait at once for a lock or a socket. On Windows Ctrl-C ends no such wait, so longer
#: waits would keep it waiting; elsewhere this is what every system accepts.
MAX_WAIT_S = 0.25 if sys.platform == "win32" else 1e6

#: Attempts to restore handlers while restored ones keep raising; more means another fault.
MAX_RESTORE_ATTEMPTS = 1000


class Shield:
    """A block of the main thread, at whose end handlers of signals are called that came in it."""

    __slots__ = ("_handlers", "_pending")

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Handler]] = []
        self._pending: dict[int, FrameType | None] = {}

    def __enter__(self) -> Shield:
        if threading.get_ident() == _main_thread:
            self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        if self._handlers:
            self._release()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Restore the handlers for a block that runs the program's own code."""
        if not self._handlers:
            yield
            return
        try:
            self._release()
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        current = [(number, signals.getsignal(number)) for number in SHIELDED_SIGNALS]
        found = [(number, handler) for number, handler in current if callable(handler)]
        self._handlers = found
        try:
            for number, _ in found:
                signals.signal(number, self._note)
        except BaseException as error:
            if isinstance(error, ValueError) and "main interpreter" in str(error):
                self._handlers = []  # another interpreter's main thread, where no handler runs
                return
            # Raised by a handler that was not replaced yet: the shielded block never begins.
            self._restore()
            raise

    def _restore(self) -> None:
        left, raised = list(self._handlers), None
        for _ in range(MAX_RESTORE_ATTEMPTS):
            try:
                while left:
                    signals.signal(*left[-1])
                    left.pop()
                break
            except BaseException as error:  # noqa: BLE001 - raised by a handler just restored
                raised = error
        if raised is not None:
            raise raised

    def _release(self) -> None:
        try:
            self._restore()
        finally:
            if self._pending:
                pending, self._pending = self._pending, {}
                _call([(each, n, pending[n]) for n, each in self._handlers if n in pending])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending[number] = frame


def _call(calls: list[tuple[Handler, int, FrameType | None]]) -> None:
    """Call each handler, whatever the others raise."""
    if calls:
        handler, number, frame = calls[0]
        try:
            handler(number, frame)
        finally:
            _call(calls[1:])


_main_thread = threading.main_thread().ident


def _after_fork() -> None:
    global _main_thread  # noqa: PLW0603 - the thread that forked is the main thread of the child
    _main_thread = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
