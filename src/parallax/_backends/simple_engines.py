"""Single calls where there is nothing to manage: in the thread that submits, or by an executor.

Guarantees: every call has a future that ends like any other.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from parallax._backends.result_encoding import run_piece
from parallax._core.contexts import snapshot
from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from contextvars import Context
    from typing import Any

    from parallax._backends.contract import Engine


class LocalPieces:
    """Pieces of a map, for an engine that does not send calls to another process."""

    def submit_piece(
        self: Engine, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...], context: Context
    ) -> Future[Any]:
        """Run several calls as one; see ``Engine``."""
        return self.submit(run_piece, (fn, piece), {}, context)

    def pieces(self, *_: Any) -> bool:
        """Calls do not travel, as far as is known."""
        return False


class _Unmanaged(LocalPieces):
    """An engine without workers of its own: nothing to end, nothing bound to this process."""

    def __init__(self) -> None:
        self._closing = False

    def _check(self) -> None:
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def shutdown(self, *, wait: bool, cancel: bool) -> None:  # noqa: ARG002 - see Engine
        """Take no more calls; those that an executor was handed are the executor's."""
        self._closing = True

    def stop(self) -> None:
        """Take no more calls."""
        self._closing = True

    def forget(self) -> None:
        """Nothing to drop."""


class SerialEngine(_Unmanaged):
    """Runs each call at once, in the thread that submits it."""

    max_workers = 1
    ahead = 1

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,  # noqa: ARG002 - as a loop would run it
    ) -> Future[Any]:
        """Run a call; see ``Engine``. What is no ``Exception`` is raised here."""
        self._check()
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            value = fn(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
            future.set_exception(error)
        else:
            future.set_result(value)
        try:
            return future
        finally:
            del future  # an error's traceback refers to this frame


class ExternalEngine(_Unmanaged):
    """Hands calls to an executor of the program, which is not shut down from here."""

    def __init__(self, executor: Executor, max_workers: int) -> None:
        super().__init__()
        self._executor = executor
        self.max_workers = max_workers
        self.ahead = 2 * max_workers

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
    ) -> Future[Any]:
        """Hand a call on; see ``Engine``. Only threads of this process can take a context."""
        self._check()
        if isinstance(self._executor, ThreadPoolExecutor):
            run = (snapshot() if context is None else context).run
            return self._executor.submit(run, fn, *args, **kwargs)
        return self._executor.submit(fn, *args, **kwargs)
