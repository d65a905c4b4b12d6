"""Single calls where there is nothing to manage: in the thread that submits, or by somebody else.

Guarantees: what the caller gets is a future that ends like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any

from parallax._backends.result_encoding import run_piece

__all__ = ["ExternalEngine", "SerialEngine"]


class SerialEngine:
    """Runs each call at once, in the thread that submits it."""

    max_workers = 1
    ahead = 1

    def __init__(self) -> None:
        self._closing = False

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
    ) -> Future[Any]:
        """Run a call, in a context if one is given.

        Raises:
            RuntimeError: the engine was shut down.
        """
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            value = fn(*args, **kwargs) if context is None else context.run(fn, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
            future.set_exception(error)
        else:
            future.set_result(value)
        return future

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]
    ) -> Future[Any]:
        """Run several calls as one; see ``run_piece``."""
        return self.submit(run_piece, (fn, piece), {})

    def pieces(self, *_: Any) -> bool:
        """Nothing travels here."""
        return False

    def shutdown(self, *, wait: bool, cancel: bool) -> None:  # noqa: ARG002 - as the others
        """Take no more calls."""
        self._closing = True

    def stop(self) -> None:
        """Take no more calls."""
        self._closing = True

    def forget(self) -> None:
        """Nothing is bound to the process."""


class ExternalEngine:
    """Hands calls to an executor that belongs to somebody else, and is not shut down from here.

    Args:
        executor: it.
        max_workers: calls that it runs at a time.
    """

    def __init__(self, executor: Executor, max_workers: int) -> None:
        self._executor = executor
        self._closing = False
        self.max_workers = max_workers

    @property
    def ahead(self) -> int:
        """Calls that should be submitted at a time."""
        return 2 * self.max_workers

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
    ) -> Future[Any]:
        """Hand a call on, in a context if one is given and the executor's threads can take it.

        Raises:
            RuntimeError: this engine, or the executor, was shut down.
        """
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if context is not None and isinstance(self._executor, ThreadPoolExecutor):
            return self._executor.submit(context.run, fn, *args, **kwargs)
        return self._executor.submit(fn, *args, **kwargs)

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]
    ) -> Future[Any]:
        """Run several calls as one; see ``run_piece``."""
        return self.submit(run_piece, (fn, piece), {})

    def pieces(self, *_: Any) -> bool:
        """Not known: calls travel one by one."""
        return False

    def shutdown(self, *, wait: bool, cancel: bool) -> None:  # noqa: ARG002 - as the others
        """Take no more calls; those that were handed on are the executor's."""
        self._closing = True

    def stop(self) -> None:
        """Take no more calls; those that were handed on are the executor's."""
        self._closing = True

    def forget(self) -> None:
        """What is bound to the process is the executor's."""
