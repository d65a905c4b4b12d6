"""``ThreadPoolExecutor``: the standard library's, with futures that cost less.

Guarantees: the signatures and the errors of ``concurrent.futures``; every future ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as StandardPool
from concurrent.futures.thread import BrokenThreadPool
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import ParamSpec

from parallax._backends.thread_engine import ThreadEngine
from parallax._core.cores import usable_cores
from parallax._core.options import stall_limit
from parallax._executors.lifetimes import Life
from parallax._executors.map_results import MapResults, check_window, submitter

if TYPE_CHECKING:
    import threading

__all__ = ["ThreadPoolExecutor", "default_threads"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count()


class ThreadPoolExecutor(StandardPool):
    """Run calls in threads; takes the place of ``concurrent.futures.ThreadPoolExecutor``.

    What differs is better on purpose: submitting costs less; ``map`` reads its input as its results
    are read; a call that waits for another of the same pool cannot starve it; when an initializer
    fails, the error's ``__cause__`` says how.
    """

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        """Check the arguments. Threads start when calls are submitted.

        Args:
            max_workers: most threads; default as many as there are usable cores and four more, 32
                at most.
            thread_name_prefix: first part of the threads' names.
            initializer: called once in each thread before its first call. If it raises, every call
                fails with ``BrokenThreadPool``, whose ``__cause__`` is that exception.
            initargs: arguments of the initializer.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: ``max_workers`` is less than 1.
        """
        # Not super().__init__: everything that it sets up is the engine's.
        if max_workers is None:
            max_workers = default_threads()
        if max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        self._thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(_numbers)}"
        self._engine = ThreadEngine(
            max_workers,
            name=self._thread_name_prefix,
            broken=_broken,
            initializer=initializer,
            initargs=tuple(initargs),
            stall_warn=stall_limit(),
        )
        self._life = Life(self, self._engine)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called in a thread.

        Returns:
            Its future.

        Raises:
            RuntimeError: the executor was shut down.
            BrokenThreadPool: an initializer has failed.
        """
        return self._engine.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,  # noqa: ARG002 - the standard library's
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` on every item in the threads; results come in order.

        The input is read as results are read, and may be endless. Without anybody who reads them,
        ``shutdown``, and so the end of a ``with`` block, has the rest of it worked through.

        Args:
            fn: the callable.
            *iterables: its arguments; the shortest one ends the call.
            timeout: seconds from now until which results must have come.
            chunksize: without meaning here, as in the standard library.
            buffersize: most items that are submitted and whose results are not yet read; then
                nothing reads on but the reader. Default: as many as keep the threads busy.

        Raises:
            ValueError: ``buffersize`` is less than 1.
            TypeError: ``buffersize`` is not a whole number.
        """
        check_window(buffersize)
        engine = submitter(self, self._engine, ThreadPoolExecutor.submit)
        results = MapResults(engine, fn, iterables, timeout=timeout, buffersize=buffersize)
        self._life.feeds.add(results)
        return results

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        """Shut down: wait for all calls, or after Ctrl-C end those that can be ended."""
        self._life.leave(kind)
        self.shutdown(wait=kind is None or not issubclass(kind, KeyboardInterrupt))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; threads end when all are done.

        Args:
            wait: return only when the threads have ended.
            cancel_futures: cancel the calls that no thread has yet.
        """
        self._life.end(wait=wait, cancel=cancel_futures)

    # What programs read, and the standard library's own tests.

    @property
    def _max_workers(self) -> int:  # type: ignore[override]
        return self._engine.max_workers

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


def default_threads() -> int:
    """How many threads an executor has if nobody says: the standard library's number."""
    return min(32, usable_cores() + 4)


def _broken(cause: BaseException) -> BaseException:
    error = BrokenThreadPool(f"the initializer raised {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
