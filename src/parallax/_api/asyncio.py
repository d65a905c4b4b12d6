"""``arun`` and ``amap``: calls and maps for coroutines.

Guarantees: the event loop never blocks on a call; a cancelled call is not begun, or is ended with
its worker process; closing or dropping ``amap`` ends every call that can be ended.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sized,
)
from typing import Any, TypeVar, overload

from typing_extensions import ParamSpec

from parallax._core.callables import name_of, runs_nothing
from parallax._core.options import resolve
from parallax._executors.executor import Executor, shared_executor
from parallax._guard.seeding import seeded
from parallax._reporting.progress import Progress, make_progress
from parallax._reporting.unread import log_unread
from parallax._routing.requested import THREADS

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")


@overload
async def arun(
    fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> R: ...
@overload
async def arun(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
async def arun(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``fn(*args, **kwargs)`` where it is best run, without holding up the event loop.

    It goes to an ``Executor`` that the whole program shares; ``options(backend=..., max_workers=
    ...)`` around the call choose another one, and their ``item_timeout`` and ``retries`` hold for
    the call, as in ``Executor.options``. A coroutine function runs on the loop itself. In
    threads the call sees the caller's context variables.

    Cancelling the task cancels the call. One that a worker process has begun is ended with that
    worker; a thread cannot be ended, what it returns is dropped.

    Args:
        fn: a callable or a coroutine function.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        What it returned.

    Raises:
        TypeError: ``fn`` is not callable.
        Exception: what ``fn`` raised.
    """
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {fn!r}. Write arun(fn, x), not arun(fn(x))")
    if runs_nothing(fn) == "coroutine":
        return await fn(*args, **kwargs)
    return await _run(shared_executor(resolve({})), fn, kwargs, *args)


async def _run(
    executor: Executor, fn: Callable[..., Any], kwargs: dict[str, Any], *args: Any
) -> Any:
    future = executor.submit(fn, *args, **kwargs)
    try:
        return await asyncio.wrap_future(future)  # cancelled together with this task
    finally:
        # A traceback refers to this frame.
        del future


@overload
def amap(
    fn: Callable[[A], Coroutine[Any, Any, R]],
    items: Iterable[A] | AsyncIterable[A],
    /,
    *,
    concurrency: int | None = ...,
    ordered: bool = ...,
    seed: Any = ...,
    progress: Any = ...,
) -> AsyncIterator[R]: ...
@overload
def amap(
    fn: Callable[[A], R],
    items: Iterable[A] | AsyncIterable[A],
    /,
    *,
    concurrency: int | None = ...,
    ordered: bool = ...,
    seed: Any = ...,
    progress: Any = ...,
) -> AsyncIterator[R]: ...
@overload
def amap(
    fn: Callable[..., Any],
    first: Iterable[Any] | AsyncIterable[Any],
    second: Iterable[Any] | AsyncIterable[Any],
    /,
    *more: Iterable[Any] | AsyncIterable[Any],
    concurrency: int | None = ...,
    ordered: bool = ...,
    seed: Any = ...,
    progress: Any = ...,
) -> AsyncIterator[Any]: ...
def amap(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any] | AsyncIterable[Any],
    concurrency: int | None = None,
    ordered: bool = True,
    seed: Any = None,
    progress: Any = False,
) -> AsyncIterator[Any]:
    """Call ``fn`` on every item where it is best run, and iterate over the results.

        async for thumb in parallax.amap(resize, paths):
            ...

    The input is read as results are read, and may be endless or asynchronous. Coroutine functions
    run on the event loop, at most ``concurrency`` at a time; other callables as by ``arun``. The
    first exception ends the iteration and cancels the rest, and so does closing the iterator
    (``contextlib.aclosing``) or cancelling the task that reads it. If a call is cancelled from
    elsewhere, as by ``shutdown(cancel_futures=True)`` of the executor, the iteration raises
    ``asyncio.CancelledError`` in its place, as a coroutine does that awaits a cancelled future. If
    the iterator is closed before an error of the input that is known by then, the logger
    ``parallax`` is told.

    Args:
        fn: a callable or a coroutine function.
        *iterables: the items, from iterables or asynchronous ones. With several the shortest ends
            the call.
        concurrency: most calls that run at a time; default 32 for coroutine functions, as many as
            pay for others. At most twice as many are begun and not yet read.
        ordered: True (default) for the input's order, False for results as they finish.
        seed: as for ``parallel_map``. Not for coroutine functions, which take turns in one thread.
        progress: as for ``parallel_map``; an item counts when its result is read.

    Returns:
        An asynchronous iterator of results.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: ``concurrency`` is less than 1, or ``seed`` less than 0.
        BackendMissingError: ``progress=True`` without tqdm.
    """
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {fn!r}. Write amap(fn, items)")
    if not iterables:
        raise TypeError(f"amap({name_of(fn)}) needs at least one iterable of items")
    for each in iterables:
        if not isinstance(each, AsyncIterable):
            iter(each)  # raises a TypeError that names it
    if concurrency is not None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise TypeError(f"concurrency must be a whole number, not {concurrency!r}")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    if not isinstance(ordered, bool):
        raise TypeError(f"ordered must be True or False, not {ordered!r}")
    options, items = resolve({"seed": seed}), iterables
    if runs_nothing(fn) == "coroutine":
        if seed:
            raise TypeError(
                f"{name_of(fn)} is a coroutine function: several of them take turns in one thread, "
                f"so none can have generators of its own. Make one in it, of a seed in the item"
            )
        start: Callable[..., Awaitable[Any]] = fn
    else:
        called = seeded(fn, seed, options.seed)
        if called is not fn:
            iterables = (itertools.count(), *iterables)
        start = functools.partial(_run, shared_executor(options), called, {})
    sized = [len(each) for each in items if isinstance(each, Sized)]
    bar = make_progress(progress, min(sized) if len(sized) == len(items) else None)
    running = concurrency or THREADS
    return _Work(name_of(fn), start, iterables, running=running, ordered=ordered).results(bar)


class _Work:
    """One ``amap``: a task that reads the input, tasks that run calls, and the reader of results.

    ``start`` makes a coroutine from the arguments of a call, ``running`` of which run at a time.
    """

    def __init__(
        self,
        name: str,
        start: Callable[..., Awaitable[Any]],
        iterables: tuple[Any, ...],
        *,
        running: int,
        ordered: bool,
    ) -> None:
        self._name = name
        self._start = start
        self._source = _zipped(iterables)
        self._ordered = ordered
        self._slots = asyncio.Semaphore(running)
        #: limits calls that have begun and whose result was not read yet.
        self._unread = asyncio.Semaphore(2 * running)
        self._ready: deque[asyncio.Future[Any]] = deque()
        self._news = asyncio.Event()
        self._live: set[asyncio.Future[Any]] = set()
        #: the input has ended, by an error that the reader has not got.
        self._ended = False
        self._error: BaseException | None = None

    async def results(self, bar: Progress | None) -> AsyncIterator[Any]:
        feeder = asyncio.ensure_future(self._feed())
        try:
            while True:
                while not self._ready:
                    if self._ended and (self._ordered or not self._live):
                        if self._error is not None:
                            raise self._error
                        return
                    self._news.clear()
                    await self._news.wait()
                first = self._ready.popleft()
                try:
                    value = await first
                finally:
                    del first  # the traceback of an error refers to this frame
                self._unread.release()
                if bar is not None:
                    bar.update(1)
                yield value
                del value
        except GeneratorExit:
            if self._error is not None:
                log_unread(self._name, self._error)
            raise
        finally:
            if bar is not None:
                bar.close()
            feeder.cancel()
            each: Any
            for each in self._live:
                each.cancel()
            await asyncio.gather(feeder, *self._live, return_exceptions=True)
            self._error = each = None
            while self._ready:
                each = self._ready.popleft()
                # Retrieved, because asyncio warns of exceptions that are never retrieved.
                if not each.cancelled():
                    each.exception()
                each = None

    async def _feed(self) -> None:
        try:
            while True:
                await self._unread.acquire()
                await self._slots.acquire()
                try:
                    args = await self._source.__anext__()
                except StopAsyncIteration:
                    break
                task = asyncio.ensure_future(self._start(*args))
                del args
                self._live.add(task)
                task.add_done_callback(self._done)
                if self._ordered:
                    self._tell(task)
        except BaseException as raised:  # noqa: BLE001 - raised where the item would be
            # A CancelledError, too: if another task has cancelled this one, the reader must know.
            self._error = raised
        self._ended = True
        self._news.set()

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._live.discard(task)
        self._slots.release()
        if not self._ordered:
            self._tell(task)

    def _tell(self, task: asyncio.Future[Any]) -> None:
        self._ready.append(task)
        self._news.set()


async def _zipped(iterables: tuple[Any, ...]) -> AsyncIterator[tuple[Any, ...]]:
    sources: list[Any] = [
        each.__aiter__() if isinstance(each, AsyncIterable) else iter(each) for each in iterables
    ]
    while True:
        found: list[Any] = []
        for source in sources:
            try:
                asynchronous = not isinstance(source, Iterator)
                found.append(await source.__anext__() if asynchronous else next(source))
            except (StopIteration, StopAsyncIteration):
                return
        yield tuple(found)
