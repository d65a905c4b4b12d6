"""``Executor``: a ``concurrent.futures.Executor`` that finds out how to run what it is given.

Guarantees: every argument is checked before anything starts; every future ends; the work itself is
in ``_routed``.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import ParamSpec

from parallax._adaptive.adaptive_engine import RoutedEngine
from parallax._adaptive.process_route import Settings
from parallax._backends.processes.parent.process_engine import ProcessEngine
from parallax._backends.simple_engines import ExternalEngine, SerialEngine
from parallax._core.cores import usable_cores
from parallax._core.options import Backend, resolve
from parallax._executors.lifetimes import Life
from parallax._executors.map_results import MapResults, check_window, submitter
from parallax._executors.process_executor import (
    ProcessPoolExecutor,
    lost_call,
    no_workers,
    standard,
)
from parallax._executors.thread_executor import ThreadPoolExecutor, default_threads
from parallax._reporting.tally import ExecutorReport, function_report

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["Executor", "close_default_executors", "default_executor"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count()


class Executor(concurrent.futures.Executor):
    """Run calls in threads or worker processes, each function in the way that fits it.

    A function's first call runs in a thread at once and is measured; what is submitted meanwhile
    waits for the verdict, a fraction of a second at most. Functions that hold the GIL, and whose
    code has no side effects on this process, then run in worker processes, all others in threads.
    Each call says how it went, and the route is changed when it does not fit any more. ``report()``
    tells what was chosen and why.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        backend: Backend | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        mp_context: BaseContext | None = None,
        max_tasks_per_child: int | None = None,
    ) -> None:
        """Check the arguments. Workers start when calls are submitted.

        Args:
            max_workers: most calls that run at a time; if not given, what ``options`` or
                ``configure`` say. Without, as many processes as there are usable cores, and as
                many threads as pay: four more than cores, or for calls that wait, 32 and more as
                long as more of them bring more.
            backend: "auto" (default, unless ``options`` say otherwise), "threads", "processes",
                "serial" (each call runs at once in the thread that submits it), or any
                ``concurrent.futures.Executor``, which is not shut down with this one.
            thread_name_prefix: first part of the threads' names.
            initializer: called once in each worker, threads too, before its first call. If it
                raises, every call fails with a ``BrokenExecutor`` whose ``__cause__`` it is.
            initargs: arguments of the initializer.
            mp_context: a context of ``multiprocessing``, as for ``ProcessPoolExecutor``.
            max_tasks_per_child: calls after which a worker process is replaced by a new one.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument has a value that cannot be used.
        """
        if isinstance(max_workers, int) and max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        given = {
            "backend": backend,
            "max_workers": max_workers,
            "max_tasks_per_child": max_tasks_per_child,
        }
        wishes = resolve(given)
        self._backend, max_workers = wishes.backend, wishes.max_workers
        max_tasks_per_child = wishes.max_tasks_per_child
        self._inner: Any = None
        if self._backend == "threads":
            name = thread_name_prefix or f"Executor-{next(_numbers)}"
            self._inner = ThreadPoolExecutor(max_workers, name, initializer, initargs)
        elif self._backend == "processes":
            self._inner = ProcessPoolExecutor(
                max_workers,
                mp_context,
                initializer,
                initargs,
                max_tasks_per_child=max_tasks_per_child,
            )
        if self._inner is not None:
            self._engine, self._life = self._inner._engine, self._inner._life
            return
        if self._backend == "serial":
            self._engine = SerialEngine()
        elif not isinstance(self._backend, str):
            workers = getattr(self._backend, "_max_workers", None) or usable_cores()
            self._engine = ExternalEngine(self._backend, max_workers or workers)
        else:
            context = None if mp_context is None else mp_context.get_start_method(allow_none=True)
            settings = Settings(
                max_workers=max_workers,
                default_threads=default_threads(),
                name=thread_name_prefix or f"Executor-{next(_numbers)}",
                died=lost_call,
                broken=no_workers,
                failed=standard,
                initializer=initializer,
                initargs=tuple(initargs),
                max_tasks=max_tasks_per_child,
                method="spawn" if context == "spawn" else wishes.start_method,
                stall_warn=wishes.stall_warn,
            )
            self._engine = RoutedEngine(settings)
        self._life = Life(self, self._engine)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called.

        Returns:
            Its future.

        Raises:
            RuntimeError: the executor was shut down.
            BrokenExecutor: an initializer has failed.
        """
        future: Future[T] = self._engine.submit(fn, args, kwargs)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` on every item; results come in order.

        The input is read as results are read, and may be endless. Without anybody who reads them,
        ``shutdown``, and so the end of a ``with`` block, has the rest of it worked through.

        Args:
            fn: the callable.
            *iterables: its arguments; the shortest one ends the call.
            timeout: seconds from now until which results must have come.
            chunksize: items that travel to a process in one piece. With the default, 1, short
                items travel many at a time and long ones one by one.
            buffersize: most items that are submitted and whose results are not yet read; then
                nothing reads on but the reader. Default: as many as keep the workers busy.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` is less than 1.
            TypeError: ``buffersize`` is not a whole number.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        check_window(buffersize)
        engine = submitter(self, self._engine, Executor.submit)
        fixed = chunksize if chunksize > 1 and self._backend == "processes" else None
        results = MapResults(
            engine, fn, iterables, timeout=timeout, buffersize=buffersize, chunksize=fixed
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

    def report(self) -> ExecutorReport:
        """What was chosen for each function so far, and why; ``print`` it, or read its fields."""
        if isinstance(self._engine, RoutedEngine):
            return ExecutorReport("auto", tuple(map(function_report, self._engine.choices)))
        name = self._backend if isinstance(self._backend, str) else type(self._backend).__name__
        return ExecutorReport(name, ())

    def _rest_after(self, seconds: float) -> None:
        if isinstance(self._engine, RoutedEngine):
            self._engine.far.rest_after(seconds)
        elif isinstance(self._engine, ProcessEngine):
            self._engine.rest_after(seconds)

    @property
    def _max_workers(self) -> int:
        workers: int = self._engine.max_workers
        return workers


_defaults: dict[Any, Executor] = {}
_defaults_lock = threading.Lock()


def default_executor(backend: Any = "auto", max_workers: int | None = None) -> Executor:
    """The executor of this process for calls that bring none.

    Its idle worker processes leave after ``idle_timeout``, as those of ``parallel_map``.

    Args:
        backend: as for ``Executor``.
        max_workers: as for ``Executor``.
    """
    key = (backend, max_workers)
    with _defaults_lock:
        executor = _defaults.get(key)
        if executor is None:
            executor = _defaults[key] = Executor(max_workers, backend=backend)
            executor._rest_after(resolve({}).idle_timeout)
        return executor


def close_default_executors() -> None:
    """Shut them down; calls that need one make a new one."""
    with _defaults_lock:
        executors = list(_defaults.values())
        _defaults.clear()
    for executor in executors:
        executor.shutdown()


def _after_fork() -> None:
    global _defaults_lock  # noqa: PLW0603 - the parent's may be held by a thread that is gone
    _defaults_lock = threading.Lock()
    _defaults.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
