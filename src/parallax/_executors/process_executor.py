"""``ProcessPoolExecutor``: the standard library's, on parallax's own worker processes.

Guarantees: the signatures and the errors of ``concurrent.futures``; every future ends; a worker
that dies fails only the call that it was running, and the pool lives on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor as StandardProcessPool
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from operator import attrgetter

from parallax._backends.processes.parent.process_engine import ProcessEngine
from parallax._backends.processes.parent.process_view import ProcessHandle
from parallax._backends.processes.parent.warm_pool import warm_pool
from parallax._backends.processes.start.fork_safety import unsafe_reason
from parallax._backends.processes.start.initializer import forks_by_default
from parallax._backends.simple_engines import SerialEngine
from parallax._core import fork_pauses
from parallax._core.cores import usable_cores
from parallax._core.errors import InheritanceError, WorkerStartError
from parallax._core.light_stdlib import Any
from parallax._core.nesting import loading
from parallax._core.options import resolve
from parallax._executors import process_errors
from parallax._executors.executor_base import EngineExecutor, check_arguments

if sys.platform == "linux":
    # What the first call needs, unless it cannot fork the program.
    import parallax._backends.processes.parent.snapshot_pool  # noqa: F401


#: What the standard library allows on Windows, whose WaitForMultipleObjects takes 64 handles, so
#: that programs find the same limit.
MAX_WINDOWS_WORKERS = 61


class ProcessPoolExecutor(EngineExecutor, StandardProcessPool):
    """Run calls in worker processes; takes the place of ``concurrent.futures.ProcessPoolExecutor``.

    What differs is better on purpose: lambdas, closures and functions of ``__main__`` work; no
    ``if __name__ == "__main__"`` is needed; a worker that dies fails only the call that it was
    running; a killed program leaves no worker behind. Made while a worker imports a module, it
    runs each call at once: a module that makes a pool would otherwise start pools without end.
    """

    _engine: ProcessEngine | SerialEngine  # the latter where a worker imports or unpickles

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        """Check the arguments. Workers start when calls are submitted.

        Args:
            max_workers: maximum number of worker processes; default the number of usable cores.
            mp_context: a context of ``multiprocessing``. With "spawn" each worker is executed anew,
                with "fork" it is forked from this process. With another one it is forked from a
                clean helper process. Without a context, workers are forked from a snapshot of this
                process at its first call if it has one thread and no open files (Linux), else from
                the helper; from this process if that is the default of ``multiprocessing`` and the
                initializer gets locks or queues that only forked workers can inherit.
            initializer: called once in each worker before its first call. If it raises, every call
                fails with ``BrokenProcessPool``, whose ``__cause__`` is that exception.
            initargs: arguments of the initializer.
            max_tasks_per_child: calls after which a worker is replaced by a new one.
            idle_timeout: seconds after which an idle worker ends; a later call starts a new one.
                Default None: it stays until the executor ends.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument has a value that cannot be used.
            SerializationError: the initializer cannot be sent to other processes.
        """
        # Not super().__init__: the engine holds everything that it sets up.
        if max_workers is None:
            max_workers = usable_cores()
            if sys.platform == "win32":
                max_workers = min(max_workers, MAX_WINDOWS_WORKERS)
        check_arguments(max_workers, initializer, idle_timeout)
        if sys.platform == "win32" and max_workers > MAX_WINDOWS_WORKERS:
            raise ValueError(f"max_workers must be <= {MAX_WINDOWS_WORKERS}, not {max_workers}")
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
        if method not in {"spawn", "fork"}:
            method = "auto"
        if loading():
            first = initializer and functools.partial(initializer, *initargs)
            self._use(SerialEngine(first))
            self._mp_context = mp_context or get_context()
            return
        options = resolve({})
        make = functools.partial(
            ProcessEngine,
            max_workers,
            call_errors=process_errors,
            initializer=initializer,
            initargs=tuple(initargs),
            max_tasks=max_tasks_per_child,
            stall_warn=options.stall_warn,
        )
        try:
            pool = warm_pool(method)
            snapshot = mp_context is None and options.start_method in {"auto", "snapshot"}
            if snapshot and unsafe_reason(fork_pauses.running()):
                snapshot = False
            if not snapshot:
                pool.prepare(set())
            engine = make(pool, snapshot=snapshot)
        except OSError as error:
            raise WorkerStartError(method, str(error)) from error
        except InheritanceError:
            if mp_context is not None or not forks_by_default():
                raise
            engine = make(warm_pool("fork"))
        self._use(engine, idle_timeout)
        if mp_context is None:
            mp_context = get_context(None if max_tasks_per_child is None else "spawn")
        self._mp_context = mp_context

    def terminate_workers(self) -> None:
        """Shut down and send SIGTERM to all workers.

        Running calls fail with ``BrokenProcessPool``, waiting ones are cancelled.
        """
        self._abort(ProcessHandle.terminate)

    def kill_workers(self) -> None:
        """Shut down and send SIGKILL to all workers; otherwise as ``terminate_workers``."""
        self._abort(ProcessHandle.kill)

    def _abort(self, end: Callable[[ProcessHandle], None]) -> None:
        self._maps.shutdown(self._engine, wait=False, cancel=True)
        self._engine.abort(end)

    # Attributes of the standard library's pool that programs, and CPython's own tests, read.

    _processes = property(lambda self: self._engine.processes())
    _broken = property(lambda self: self._engine.fatal is not None)
    _executor_manager_thread = property(attrgetter("_engine.thread"))
    _shutdown_lock = property(attrgetter("_engine.lock"))
