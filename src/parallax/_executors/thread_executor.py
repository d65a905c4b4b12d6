"""``ThreadPoolExecutor``: the standard library's, with futures that cost less.

Guarantees: the signatures and the errors of ``concurrent.futures``; every future ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor as StandardThreadPool
from concurrent.futures.thread import BrokenThreadPool

from parallax._backends.thread_engine import ThreadEngine
from parallax._core.cores import usable_cores
from parallax._core.options import stall_limit
from parallax._executors.executor_base import (
    EngineExecutor,
    check_initializer,
    check_max_workers,
)

TYPE_CHECKING = False

if TYPE_CHECKING:
    import threading
    from typing import Any

__all__ = ["ThreadPoolExecutor", "default_threads", "thread_engine"]

_numbers = itertools.count()


class ThreadPoolExecutor(EngineExecutor, StandardThreadPool):  # type: ignore[override]
    """Run calls in threads; takes the place of ``concurrent.futures.ThreadPoolExecutor``.

    What differs is better on purpose: submitting costs less; ``map`` reads its input as its results
    are read; a call that waits for another of the same pool cannot starve it; when an initializer
    fails, the error's ``__cause__`` is the exception that it raised.
    """

    _engine: ThreadEngine

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        """Check the arguments. Threads start when calls are submitted.

        Args:
            max_workers: maximum number of threads; default four more than there are usable cores,
                32 at most.
            thread_name_prefix: first part of the threads' names.
            initializer: called once in each thread before its first call. If it raises, every call
                fails with ``BrokenThreadPool``, whose ``__cause__`` is that exception.
            initargs: arguments of the initializer.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: ``max_workers`` is less than 1.
        """
        # Not super().__init__: the engine holds everything that it sets up.
        self._thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(_numbers)}"
        self._use(thread_engine(max_workers, self._thread_name_prefix, initializer, initargs))

    def _message_size(self, chunksize: int) -> None:
        """As in the standard library, ``chunksize`` is neither used nor checked."""

    # Attributes of the standard library's pool that programs, and CPython's own tests, read.

    @property
    def _threads(self) -> set[threading.Thread]:  # type: ignore[override]
        return self._engine.threads

    @property
    def _work_queue(self) -> Any:  # type: ignore[override]
        return self._engine.queue

    @property
    def _shutdown(self) -> bool:  # type: ignore[override]
        return self._engine.closing

    @property
    def _broken(self) -> bool:  # type: ignore[override]
        return self._engine.fatal is not None


def thread_engine(
    max_workers: int | None,
    name: str,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> ThreadEngine:
    """The engine of an executor that runs calls in threads.

    Args:
        max_workers: maximum number of threads; None for the default.
        name: first part of the threads' names.
        initializer: called once in each thread; None for none.
        initargs: arguments of the initializer.

    Raises:
        TypeError: ``initializer`` is not callable.
        ValueError: ``max_workers`` is less than 1.
    """
    if max_workers is None:
        max_workers = default_threads()
    check_max_workers(max_workers)
    check_initializer(initializer)
    return ThreadEngine(
        max_workers,
        name=name,
        broken=_broken_pool,
        initializer=initializer,
        initargs=tuple(initargs),
        stall_warn=stall_limit(),
    )


def default_threads() -> int:
    """The default number of threads of an executor, the same as the standard library's."""
    return min(32, usable_cores() + 4)


def _broken_pool(cause: BaseException) -> BaseException:
    error = BrokenThreadPool(f"the initializer raised {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
