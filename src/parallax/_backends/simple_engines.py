"""Single calls where there is nothing to manage: in the thread that submits, or by an executor.

Guarantees: every call has a future that ends like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import Context

from parallax._backends.result_encoding import run_piece
from parallax._core.chunks import Route
from parallax._core.contexts import snapshot
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.nesting import enter, here
from parallax._core.options import CallOptions

if TYPE_CHECKING:
    from parallax._backends.contract import Engine
    from parallax._reporting.recording import CallRecording


class LocalPieces:
    """Pieces of a map, for an engine that does not send calls to another process."""

    recording: CallRecording | None = None

    def record(self, recording: CallRecording | None) -> None:
        self.recording = recording

    def _recorded(self, fn: Callable[..., Any], args: Any, route: Route) -> Callable[..., Any]:
        """What to call for ``fn``, if the call runs in this process."""
        if self.recording is None:
            return fn
        return self.recording.around(fn, len(args[1]) if fn is run_piece else 1, route)  # type: ignore[no-any-return]

    def submit_piece(
        self: Engine, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...], context: Context
    ) -> Future[Any]:
        return self.submit(run_piece, (fn, piece), {}, context)

    def pieces(self, *_: Any) -> bool:
        return False


class _Unmanaged(LocalPieces):
    """An engine without workers of its own: nothing to end, nothing bound to this process."""

    fatal: BaseException | None = None
    thread = None

    def __init__(self) -> None:
        self.closing = False

    def processes(self) -> dict[int, Any]:
        return {}

    def _check(self) -> None:
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def stop(self, *_: object, **__: object) -> None:
        """Take no more calls; those that an executor was handed are the executor's."""
        self.closing = True

    shutdown = abort = stop

    def forget(self, *_: object) -> None:
        """There is no worker, and nothing to drop."""

    rest_after = end_workers = forget


class SerialEngine(_Unmanaged):
    """Runs each call at once, in the thread that submits it."""

    backend = "serial"
    max_workers = 1
    ahead = 1

    def __init__(self, initializer: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._initializer = initializer

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,  # noqa: ARG002 - as a loop would run it
        options: CallOptions | None = None,
    ) -> Future[Any]:
        """Run a call; see ``Engine``. What is no ``Exception`` is raised here."""
        self._check()
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        before = enter(here().item(movable=False))
        try:
            if self._initializer is not None:
                self._initializer()
                self._initializer = None
            value = _with_retries(options, self._recorded(fn, args, "loop"))(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
            future.set_exception(error)
        else:
            future.set_result(value)
        finally:
            enter(before)
        try:
            return future
        finally:
            del future  # an error's traceback refers to this frame


class ExternalEngine(_Unmanaged):
    """Hands calls to an executor of the program, which is not shut down from here."""

    def __init__(self, executor: Executor, max_workers: int) -> None:
        super().__init__()
        self._executor = self.backend = executor
        self.max_workers = max_workers
        self.ahead = 2 * max_workers

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
        options: CallOptions | None = None,
    ) -> Future[Any]:
        """Hand a call on; see ``Engine``. Only threads of this process can take a context."""
        self._check()
        if isinstance(self._executor, ThreadPoolExecutor):
            fn = _with_retries(options, self._recorded(fn, args, "threads"))
            run = (snapshot() if context is None else context).run
            return self._executor.submit(run, fn, *args, **kwargs)
        return self._executor.submit(_with_retries(options, fn), *args, **kwargs)


def _with_retries(options: CallOptions | None, fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn``, run again as often as the options say if it fails."""
    retries = options.get("retries") if options else 0
    return functools.partial(_run_again, retries, fn) if retries else fn


def _run_again(retries: int, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    for _ in range(retries):
        try:
            return fn(*args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever it is, the last one is raised
            continue
    return fn(*args, **kwargs)
