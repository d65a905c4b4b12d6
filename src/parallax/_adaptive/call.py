"""What a routing executor keeps of a submitted call, and what else its threads are given to do.

Guarantees: a call is begun once, by a thread or by a worker process, or cancelled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol, TypeAlias

from parallax._adaptive.functions import Path
from parallax._backends.capture import capture
from parallax._backends.processes.parent.task import Task
from parallax._backends.result_encoding import run_piece
from parallax._core.futures import Helper

__all__ = ["Asked", "Errand", "RoutedCall"]

clock = time.perf_counter

#: What was submitted: a callable with its arguments, or with those of several calls and None.
Asked: TypeAlias = "tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any] | None]"
#: What running a call gives: its value, what it raised, its seconds on both clocks.
_Ran: TypeAlias = "tuple[Any, BaseException | None, float, float]"


class CallOwner(Helper, Protocol):
    """The engine that a call was submitted to."""

    @property
    def lock(self) -> Any:
        """Guards its state."""

    def starts(self, call: RoutedCall, via: str) -> None:
        """Count a call as handed on; the lock is held."""

    def ran(self, call: RoutedCall, wall: float, cpu: float, ident: int) -> None:
        """A measured call has ended in a thread."""

    def bring_back(self, call: RoutedCall, error: BaseException) -> bool:
        """Whether a call that failed in a worker process runs here instead; the lock is held."""

    def ended(self, call: RoutedCall) -> None:
        """A call has its result or error."""

    def review(self, path: Path, now: float) -> None:
        """Look at a route again; the lock is held."""

    def cancel_waiting(self) -> None:
        """Cancel the calls that were not handed on."""

    def fail_waiting(self, error: BaseException) -> None:
        """End the calls that were not handed on with an error."""


class RoutedCall(Task):
    """A submitted call, and its future."""

    def __init__(self, engine: CallOwner, path: Path, call: Asked, context: Context | None) -> None:
        super().__init__(engine, None, None)
        self.path = path
        self._context = context
        self.call: Asked | None = call
        #: calls that it stands for.
        self.count = 1 if call[2] is not None else len(call[1])
        #: what it was handed to: "", "threads", "processes", or "probe" for the one thread that
        #: measures calls of its kind.
        self.via = ""

    @property
    def waits(self) -> bool:
        """Whether nobody has begun it, and it was not cancelled."""
        return self._state == "PENDING"

    @property
    def engine(self) -> CallOwner:
        """Whose it is."""
        return self._helper  # type: ignore[return-value]

    def execute(self) -> None:
        """Run it in this thread, unless it was cancelled or runs elsewhere."""
        engine = self.engine
        with engine.lock:
            if self.via == "processes" or not self.claim():
                return
            if not self.via:  # a thread of ours that waits for it runs it before its turn
                engine.starts(self, "threads")
            measured = self.path.choice.samples()
            if measured:
                self.path.choice.began(threading.get_ident(), clock())
        self.execute_with(capture if measured else _plain)

    def execute_with(self, run: Callable[..., _Ran]) -> None:
        """Have it run in this thread; it was claimed."""
        call, self.call = self.call, None
        assert call is not None
        try:
            if call[2] is None:
                call = run_piece, call[:2], {}
            if self._context is None:
                value, error, wall, cpu = run(*call)
            else:
                value, error, wall, cpu = self._context.run(run, *call)
        except BaseException as problem:  # noqa: BLE001 - ours; nobody may wait for ever
            value, error, wall, cpu = None, problem, 0.0, 0.0
        if run is not _plain:
            self.engine.ran(self, wall, cpu, threading.get_ident())
        self.settle(value, error)
        # The traceback of an error refers to this frame.
        del self, call, error, value

    def drop(self) -> None:
        """Forget what was to be called."""
        self.call = self.data = None

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Enter FINISHED and tell those who wait; not under the engine's lock."""
        engine = self.engine
        if error is not None and self.via == "processes" and self.call is not None:
            with engine.lock:
                self._state = "PENDING"
                if engine.bring_back(self, error):
                    return
                self._state = "RUNNING"
        self.call = None
        super().settle(value, error)
        engine.ended(self)


def _plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Ran:
    return fn(*args, **kwargs), None, 0.0, 0.0


class Errand:
    """Something for a thread of the executor to do that is no call.

    Args:
        engine: whose thread.
        path: the function whose calls it is about.
        do: what to do.
    """

    def __init__(self, engine: CallOwner, path: Path, do: Callable[[Path], None]) -> None:
        self.engine = engine
        self._path = path
        self._do = do

    def execute(self) -> None:
        """Do it."""
        self._do(self._path)

    def cancel(self) -> None:
        """Cancel the calls that it is about, which are cancelled with all others."""
        self.engine.cancel_waiting()

    def abandon(self, error: BaseException) -> None:
        """The calls that it is about are known to the engine."""

    def fail(self, error: BaseException) -> None:
        """No thread can be had."""
        self.engine.fail_waiting(error)
