"""``ProcessPoolExecutor``: the standard library's, on parallax's own worker processes.

Guarantees: the signatures and the errors of ``concurrent.futures``; every future ends; a worker
that dies fails only the call that it was running, and the pool lives on.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures import ProcessPoolExecutor as StandardPool
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import ParamSpec

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.parent.process_engine import ProcessEngine
from parallax._backends.processes.parent.process_view import ProcessHandle
from parallax._backends.processes.parent.warm_pool import warm_pool
from parallax._backends.processes.start.initializer import InheritanceError, forks_by_default
from parallax._core.cores import usable_cores
from parallax._core.errors import RemoteTraceback, UnreadableError, WorkerDiedError, set_cause
from parallax._core.options import stall_limit
from parallax._executors.lifetimes import Life
from parallax._executors.map_results import MapResults, check_window, submitter

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["ProcessPoolExecutor", "lost_call", "no_workers", "standard"]

#: WaitForMultipleObjects takes no more, less what the standard library keeps for itself.
MOST_ON_WINDOWS = 61

P = ParamSpec("P")
T = TypeVar("T")


class ProcessPoolExecutor(StandardPool):
    """Run calls in worker processes; takes the place of ``concurrent.futures.ProcessPoolExecutor``.

    What differs is better on purpose: lambdas, closures and functions of ``__main__`` work; no
    ``if __name__ == "__main__"`` is needed; a worker that dies fails only the call that it was
    running; a killed program leaves no worker behind.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        """Check the arguments. Workers start when calls are submitted.

        Args:
            max_workers: most worker processes; default as many as there are usable cores.
            mp_context: a context of ``multiprocessing``. With "spawn" each worker is executed anew,
                with "fork" it is forked from this process. Otherwise it is forked from a clean
                helper process; without a context from this one after all, if that is the default of
                ``multiprocessing`` and the initializer gets locks or queues that were made for it.
            initializer: called once in each worker before its first call. If it raises, every call
                fails with ``BrokenProcessPool``, whose ``__cause__`` is that exception.
            initargs: arguments of the initializer.
            max_tasks_per_child: calls after which a worker is replaced by a new one.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument has a value that cannot be used.
            SerializationError: the initializer cannot travel to other processes.
        """
        # Not super().__init__: everything that it sets up is the engine's.
        if max_workers is None:
            max_workers = usable_cores()
        elif max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        elif sys.platform == "win32" and max_workers > MOST_ON_WINDOWS:
            raise ValueError(f"max_workers must be <= {MOST_ON_WINDOWS}, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError(
                    f"max_tasks_per_child must be an integer, not {max_tasks_per_child!r}"
                )
            if max_tasks_per_child <= 0:
                raise ValueError(f"max_tasks_per_child must be >= 1, not {max_tasks_per_child}")
        method = "auto" if mp_context is None else mp_context.get_start_method(allow_none=False)
        if max_tasks_per_child is not None and method == "fork":
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' start method; "
                "leave mp_context out, or pass another one"
            )
        if mp_context is None:
            mp_context = get_context(None if max_tasks_per_child is None else "spawn")
            given = False
        else:
            given = True
        self._mp_context = mp_context
        pool = warm_pool(method if method in {"spawn", "fork"} else "auto")
        pool.prepare(set())
        make = functools.partial(
            ProcessEngine,
            max_workers,
            died=lost_call,
            broken=no_workers,
            failed=standard,
            initializer=initializer,
            initargs=tuple(initargs),
            max_tasks=max_tasks_per_child,
            stall_warn=stall_limit(),
        )
        try:
            self._engine = make(pool)
        except InheritanceError:
            if given or not forks_by_default():
                raise
            self._engine = make(warm_pool("fork"))
        self._life = Life(self, self._engine)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called in a worker.

        Returns:
            Its future.

        Raises:
            RuntimeError: the executor was shut down.
            BrokenProcessPool: no worker can be had.
        """
        return self._engine.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` on every item in the workers; results come in order.

        The input is read as results are read, and may be endless. Without anybody who reads them,
        ``shutdown``, and so the end of a ``with`` block, has the rest of it worked through.

        Args:
            fn: the callable.
            *iterables: its arguments; the shortest one ends the call.
            timeout: seconds from now until which results must have come.
            chunksize: items that travel in one piece. With the default, 1, short items travel many
                at a time and long ones one by one, as their measured time asks for.
            buffersize: most items that are submitted and whose results are not yet read; then
                nothing reads on but the reader. Default: as many as keep the workers busy.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` is less than 1.
            TypeError: ``buffersize`` is not a whole number.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        check_window(buffersize)
        engine = submitter(self, self._engine, ProcessPoolExecutor.submit)
        results = MapResults(
            engine,
            fn,
            iterables,
            timeout=timeout,
            buffersize=buffersize,
            chunksize=chunksize if chunksize > 1 else None,
        )
        self._life.feeds.add(results)
        return results

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        """Shut down: wait for all calls, or after Ctrl-C end those that can be ended."""
        self._life.leave(kind)
        self.shutdown(wait=kind is None or not issubclass(kind, KeyboardInterrupt))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; workers leave when all are done.

        Args:
            wait: return only when all calls are done and the workers are gone.
            cancel_futures: cancel the calls that no worker has yet.
        """
        self._life.end(wait=wait, cancel=cancel_futures)

    def terminate_workers(self) -> None:
        """Ask all workers to end, now; the executor is shut down.

        Calls that run fail with ``BrokenProcessPool``, those that wait are cancelled.
        """
        self._stop(ProcessHandle.terminate)

    def kill_workers(self) -> None:
        """End all workers at once; otherwise as ``terminate_workers``."""
        self._stop(ProcessHandle.kill)

    def _stop(self, end: Callable[[ProcessHandle], None]) -> None:
        self._life.end(wait=False, cancel=True)
        self._engine.abort(end)

    # What programs read, and the standard library's own tests.

    @property
    def _max_workers(self) -> int:
        return self._engine.max_workers

    @property
    def _processes(self) -> dict[int, ProcessHandle]:  # type: ignore[override]
        return self._engine.processes()

    @property
    def _broken(self) -> bool:  # type: ignore[override]
        return self._engine.fatal is not None

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:  # type: ignore[override]
        return self._engine.thread


# -- errors that are the standard library's and tell more ------------------------------------------


class LostCallError(WorkerDiedError, BrokenProcessPool):
    """A worker process ended while it ran a call."""

    def _message(self) -> str:
        text = f"worker process {self.pid} ended while running this call: {self._reason()}"
        return f"{text}. Other calls are not affected; submit it again to run it again"


class UnreadableCallError(UnreadableError, BrokenProcessPool):
    """The arguments or the result of a call cannot be unpickled where they have arrived."""


def lost_call(end: WorkerEnd, attempts: int) -> BaseException:
    """The error of a call whose worker ended while it ran it."""
    return LostCallError(attempts=attempts, **end._asdict())


def no_workers(cause: BaseException) -> BaseException:
    """The error of all calls when no worker can be had, or an initializer has failed."""
    words = str(cause)
    if not isinstance(cause, BrokenExecutor):  # a WorkerStartError is one
        words = f"the initializer raised {type(cause).__name__}: {cause}"
    error = BrokenProcessPool(words)
    error.__cause__ = cause
    return error


def standard(error: BaseException) -> BaseException:
    """The error of a call, of a type that programs expect of the standard library's pool."""
    if type(error) is UnreadableError:
        error = UnreadableCallError(error.what, error.index, error.path, error.reason)
    cause = error.__cause__
    if type(cause) is RemoteTraceback:
        set_cause(error, _RemoteTraceback(str(cause)))  # type: ignore[arg-type]
    return error
