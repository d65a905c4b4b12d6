"""``Executor``: a ``concurrent.futures.Executor`` that finds out how to run each function.

Guarantees: every argument is checked before anything starts; every future ends. The adaptive engine
is in ``_adaptive``; engines are imported when an executor needs them.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from operator import methodcaller

from parallax._core.cores import start_methods, usable_cores
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.options import BACKENDS, Backend, Options, resolve
from parallax._executors.executor_base import EngineExecutor, check_arguments
from parallax._executors.thread_executor import ThreadPoolExecutor, default_threads

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from parallax._backends import clusters
else:
    clusters = lazy_module("parallax._backends.clusters")

_numbers = itertools.count()


class Executor(EngineExecutor):
    """Run calls in threads or worker processes, each function in the way that fits it.

    A function's first call runs in a thread at once and is measured; what is submitted meanwhile
    waits for the decision, a fraction of a second at most. Functions that hold the GIL, and whose
    code has no side effects on this process, then run in worker processes, all others in threads.
    Later calls are measured, too, and a function changes its route when that does not fit any more.
    ``report()`` tells what was chosen and why.
    """

    _engine: Any

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
        idle_timeout: float | None = None,
    ) -> None:
        """Check the arguments. Workers start when calls are submitted.

        Args:
            max_workers: maximum number of calls that run at a time; default the value of
                ``options`` or ``configure``. Without one, as many processes as there are usable
                cores, and as many threads as pay: four more than cores, or for calls that wait, 32
                and more as long as more threads increase the throughput.
            backend: "auto" (default, unless ``options`` say otherwise), "threads", "processes",
                "interpreters" (from Python 3.14 on), "serial" (each call runs at once in the thread
                that submits it), "dask", the address of a scheduler of Dask, its ``Client``, or any
                ``concurrent.futures.Executor``, which is not shut down with this one.
            thread_name_prefix: first part of the threads' names.
            initializer: called once in each worker, threads too, before its first call. If it
                raises, every call fails with a ``BrokenExecutor`` whose ``__cause__`` is that
                exception.
            initargs: arguments of the initializer.
            mp_context: a context of ``multiprocessing``, as for ``ProcessPoolExecutor``.
            max_tasks_per_child: calls after which a worker process is replaced by a new one.
            idle_timeout: seconds after which an idle worker ends; a later call starts a new one.
                Default None: it stays until the executor ends.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument has a value that cannot be used.
        """
        check_arguments(max_workers if isinstance(max_workers, int) else None, initializer)
        given = {
            "backend": backend,
            "max_workers": max_workers,
            "max_tasks_per_child": max_tasks_per_child,
            "idle_timeout": idle_timeout,
        }
        options = resolve(given)
        self._backend, max_workers = options.backend, options.max_workers
        max_tasks_per_child = options.max_tasks_per_child
        name = thread_name_prefix or f"Executor-{next(_numbers)}"
        pool: EngineExecutor | None = None
        if self._backend == "threads":
            pool = ThreadPoolExecutor(
                max_workers, name, initializer, initargs, idle_timeout=idle_timeout
            )
        elif self._backend == "processes":
            from parallax._executors.process_executor import ProcessPoolExecutor

            pool = ProcessPoolExecutor(
                max_workers,
                mp_context,
                initializer,
                initargs,
                max_tasks_per_child=max_tasks_per_child,
                idle_timeout=idle_timeout,
            )
        elif self._backend == "interpreters":
            from parallax._backends.processes.parent.process_engine import ProcessEngine
            from parallax._backends.processes.parent.warm_pool import warm_pool

            spare = _spawn_or(options.start_method, mp_context)
            engine = ProcessEngine(
                max_workers or usable_cores(),
                warm_pool(f"interpreters:{spare}"),
                call_errors=_process_errors(),
                initializer=initializer,
                initargs=tuple(initargs),
                stall_warn=options.stall_warn,
            )
            self._use(engine, idle_timeout)
        elif self._backend == "auto":
            from parallax._adaptive.adaptive_engine import AdaptiveEngine, Settings

            settings = Settings(
                max_workers=max_workers,
                default_threads=default_threads(),
                name=name,
                errors=_process_errors,
                initializer=initializer,
                initargs=tuple(initargs),
                max_tasks=max_tasks_per_child,
                method=_spawn_or(options.start_method, mp_context),
                stall_warn=options.stall_warn,
            )
            self._use(AdaptiveEngine(settings), idle_timeout)
        else:
            from parallax._backends.simple_engines import ExternalEngine, SerialEngine

            if self._backend == "serial":
                self._use(SerialEngine())
            else:
                executor = clusters.connected(options).backend
                workers = getattr(executor, "_max_workers", None) or usable_cores()
                self._use(ExternalEngine(executor, max_workers or workers))
        if pool is not None:  # which must live as long as this executor
            self._pool, self._engine, self._maps = pool, pool._engine, pool._maps

    def _message_size(self, chunksize: int) -> int | None:
        size = super()._message_size(chunksize)
        return size if self._backend in ("interpreters", "processes") else None

    def terminate_workers(self) -> None:
        """End the worker processes by SIGTERM, and all calls that can be ended.

        Calls that they run fail with ``BrokenProcessPool``, calls that wait are cancelled, and
        those in threads go on. The executor stays usable: later calls get new workers. (That of a
        ``ProcessPoolExecutor``, as the standard library's, shuts it down besides.)
        """
        self._end_workers(methodcaller("terminate"))

    def kill_workers(self) -> None:
        """End the worker processes by SIGKILL; otherwise as ``terminate_workers``."""
        self._end_workers(methodcaller("kill"))

    def _end_workers(self, end: Callable[[Any], object]) -> None:
        self._maps.cut()
        self._engine.end_workers(end)


def _spawn_or(method: str, context: BaseContext | None) -> str:
    """The start method that the options ask for, unless the context asks for another one."""
    if context is None:
        return method
    if context.get_start_method(allow_none=True) == "spawn":
        return "spawn"
    return start_methods()[0] if method in {"auto", "snapshot"} else method


def _process_errors() -> Any:
    """The functions that make the errors of worker processes; loads ``multiprocessing``."""
    from parallax._executors import process_errors

    return process_errors


#: The executors for calls that are given none, by backend and ``max_workers``.
_defaults: dict[Any, Executor] = {}
_defaults_lock = threading.Lock()


def shared_executor(options: Options) -> Executor:
    """The executor of this process for a call with such options, which is given none.

    Its idle workers end after ``idle_timeout``, as those of ``parallel_map``.
    """
    if options.backend not in BACKENDS:
        options = clusters.connected(options)  # the program may have another client by now
    key = options.backend, options.max_workers
    with _defaults_lock:
        executor = _defaults.get(key)
        if executor is None:
            executor = _defaults[key] = Executor(options.max_workers, backend=options.backend)
            executor._engine.rest_after(resolve({}).idle_timeout)
            executor._engine.record(None)  # it lives as long as the program
    if options.item_timeout is not None or options.retries:
        return executor.options(item_timeout=options.item_timeout, retries=options.retries)
    return executor


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_defaults.clear)
    # The parent's may be held by a thread that is gone.
    os.register_at_fork(after_in_child=_defaults_lock._at_fork_reinit)  # type: ignore[attr-defined]
