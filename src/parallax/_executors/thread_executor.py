"""``ThreadPoolExecutor``: the standard library's, with futures that cost less.

Guarantees: the signatures and the errors of ``concurrent.futures``; every future ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor as StandardThreadPool
from concurrent.futures.thread import BrokenThreadPool
from operator import attrgetter

from parallax._backends.thread_engine import ThreadEngine
from parallax._core.cores import usable_cores
from parallax._core.light_stdlib import Any
from parallax._core.options import resolve
from parallax._executors.executor_base import EngineExecutor, check_arguments

_numbers = itertools.count()


class ThreadPoolExecutor(EngineExecutor, StandardThreadPool):  # type: ignore[override]
    """Run calls in threads; takes the place of ``concurrent.futures.ThreadPoolExecutor``.

    What differs is better on purpose: submitting costs less; calls see the context variables of the
    code that submits them; ``map`` reads its input as its results are read; a call that waits for
    another of the same pool cannot starve it; when an initializer fails, the error's ``__cause__``
    is the exception that it raised.
    """

    _engine: ThreadEngine

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        idle_timeout: float | None = None,
    ) -> None:
        """Check the arguments. Threads start when calls are submitted.

        Args:
            max_workers: maximum number of threads; default four more than there are usable cores,
                32 at most.
            thread_name_prefix: first part of the threads' names.
            initializer: called once in each thread before its first call. If it raises, every call
                fails with ``BrokenThreadPool``, whose ``__cause__`` is that exception.
            initargs: arguments of the initializer.
            idle_timeout: seconds after which an idle thread ends; a later call starts a new one.
                Default None: it stays until the executor ends.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: ``max_workers`` is less than 1, or ``idle_timeout`` than 0.
        """
        # Not super().__init__: the engine holds everything that it sets up.
        if max_workers is None:
            max_workers = default_threads()
        check_arguments(max_workers, initializer, idle_timeout)
        self._thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(_numbers)}"
        engine = ThreadEngine(
            max_workers,
            name=self._thread_name_prefix,
            broken=_broken_pool,
            initializer=initializer,
            initargs=tuple(initargs),
            stall_warn=resolve({}).stall_warn,
        )
        self._use(engine, idle_timeout)

    def _message_size(self, chunksize: int) -> None:
        """As in the standard library, ``chunksize`` is neither used nor checked."""

    # Attributes of the standard library's pool that programs, and CPython's own tests, read.

    _threads = property(attrgetter("_engine.threads"))
    _work_queue = property(attrgetter("_engine.queue"))
    _shutdown = property(attrgetter("_engine.closing"))
    _broken = property(lambda self: self._engine.fatal is not None)


def default_threads() -> int:
    """The default number of threads of an executor, the same as the standard library's."""
    return min(32, usable_cores() + 4)


def _broken_pool(cause: BaseException) -> BaseException:
    error = BrokenThreadPool(f"the initializer raised {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
