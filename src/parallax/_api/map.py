"""``parallel_map``, ``parallel_imap`` and ``explain``: the calls that users make.

Guarantees: every argument is checked before anything starts; the work itself is in ``_run``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar, overload

from parallax._core.options import Backend, Options, resolve
from parallax._reporting.reports import Report
from parallax._run.run import Run
from parallax._scheduling.input import Feed

__all__ = [
    "Results",
    "explain",
    "parallel_imap",
    "parallel_map",
    "spread_map",
]

R = TypeVar("R")
A = TypeVar("A")

#: Seconds of real work that ``explain`` spends at most before it answers.
EXPLAIN = 0.5


class Results(list[R]):
    """The results of ``parallel_map``: a list, in the order of the input.

    Attributes:
        report: what was measured, what was chosen and why. ``print(results.report)`` reads like
            a person's answer.
    """

    report: Report


@overload
def parallel_map(
    fn: Callable[[A], R],
    items: Iterable[A],
    /,
    *,
    backend: Backend | None = ...,
    max_workers: int | None = ...,
    chunksize: int | None = ...,
    buffersize: int | None = ...,
    timeout: float | None = ...,
    item_timeout: float | None = ...,
    on_error: Literal["raise", "return"] | None = ...,
    retries: int | None = ...,
    progress: Any = ...,
    strict: bool | None = ...,
    max_tasks_per_child: int | None = ...,
    max_memory_per_worker: int | None = ...,
) -> Results[R]: ...
@overload
def parallel_map(
    fn: Callable[..., R],
    first: Iterable[Any],
    second: Iterable[Any],
    /,
    *more: Iterable[Any],
    backend: Backend | None = ...,
    max_workers: int | None = ...,
    chunksize: int | None = ...,
    buffersize: int | None = ...,
    timeout: float | None = ...,
    item_timeout: float | None = ...,
    on_error: Literal["raise", "return"] | None = ...,
    retries: int | None = ...,
    progress: Any = ...,
    strict: bool | None = ...,
    max_tasks_per_child: int | None = ...,
    max_memory_per_worker: int | None = ...,
) -> Results[R]: ...
def parallel_map(
    fn: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    backend: Backend | None = None,
    max_workers: int | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    item_timeout: float | None = None,
    on_error: Literal["raise", "return"] | None = None,
    retries: int | None = None,
    progress: Any = None,
    strict: bool | None = None,
    max_tasks_per_child: int | None = None,
    max_memory_per_worker: int | None = None,
) -> Results[R]:
    """Call ``fn`` on every item and return the results, as fast as this machine can.

    The answer is that of ``[fn(x) for x in items]``: same values, same order, same exception.
    The first items run in this thread and are measured while they work; the rest goes to a loop,
    to threads or to processes, whichever is predicted to be fastest and cannot change the answer.

    Args:
        fn: the callable. Several iterables give it several arguments, as in ``map``.
        *iterables: the items. With several, the shortest ends the call unless ``strict``.
        backend: "auto" (default), "serial", "threads", "processes", or any
            ``concurrent.futures.Executor``.
        max_workers: most workers at a time; default as many as pay.
        chunksize: items handed to a worker in one piece; default by measured time.
        buffersize: checked and otherwise unused: all results are kept anyway. It is for
            ``parallel_imap``.
        timeout: seconds for the whole call.
        item_timeout: seconds for one item. Its worker process is ended and the item fails alone;
            needs processes.
        on_error: "raise" (default) raises the first error and cancels the rest; "return" puts
            exceptions in the place of results.
        retries: how often a failed or lost item is run again.
        progress: True for a tqdm bar, a tqdm object, or a callable that takes the number of
            items just finished.
        strict: several iterables must be equally long, as in ``zip``.
        max_tasks_per_child: items that a worker process runs before a fresh one takes its place,
            over all calls that it works for. Does not by itself make ``auto`` choose processes.
        max_memory_per_worker: bytes of resident memory above which a worker process is replaced
            after the item that it is at. Does not by itself make ``auto`` choose processes.

    Returns:
        A list of the results, with the run's report as its attribute ``report``.

    Raises:
        TypeError: an argument has the wrong type, or ``fn`` cannot be mapped.
        ValueError: an argument has a value that cannot be used.
        TimeoutError: ``timeout`` was over.
        ParallaxError: a worker died, or something could not travel between processes.
        Exception: what ``fn`` or the input raised, with a note that names the item.
    """
    run = _prepare(
        fn,
        iterables,
        {
            "backend": backend,
            "max_workers": max_workers,
            "chunksize": chunksize,
            "buffersize": buffersize,
            "timeout": timeout,
            "item_timeout": item_timeout,
            "on_error": on_error,
            "retries": retries,
            "progress": progress,
            "strict": strict,
            "max_tasks_per_child": max_tasks_per_child,
            "max_memory_per_worker": max_memory_per_worker,
        },
        stream=False,
    )
    return _collected(run)


def spread_map(
    fn: Callable[..., R], tuples: Iterable[Iterable[Any]], given: dict[str, Any]
) -> Results[R]:
    """``parallel_map`` with the arguments of each call together, as in ``itertools.starmap``.

    Args:
        fn: the callable.
        tuples: the arguments, call by call.
        given: the options of ``parallel_map``.

    Raises:
        BaseException: as ``parallel_map``.
    """
    return _collected(_prepare(fn, (tuples,), given, stream=False, spread=True))


def _collected(run: Run) -> Results[Any]:
    results: Results[Any] = Results()
    try:
        for batch in run.batches():
            if results:
                results.extend(batch)
            else:
                results[:] = batch
    except RuntimeError as error:
        # The callable's StopIteration, which Python turns into this on its way out of a
        # generator (PEP 479). One that the callable turned itself bears the item's note.
        if isinstance(error.__cause__, StopIteration) and not getattr(error, "__notes__", ()):
            raise error.__cause__ from None
        raise
    results.report = run.report
    return results


@overload
def parallel_imap(
    fn: Callable[[A], R],
    items: Iterable[A],
    /,
    *,
    ordered: bool | None = ...,
    backend: Backend | None = ...,
    max_workers: int | None = ...,
    chunksize: int | None = ...,
    buffersize: int | None = ...,
    timeout: float | None = ...,
    item_timeout: float | None = ...,
    on_error: Literal["raise", "return"] | None = ...,
    retries: int | None = ...,
    progress: Any = ...,
    strict: bool | None = ...,
    max_tasks_per_child: int | None = ...,
    max_memory_per_worker: int | None = ...,
) -> Iterator[R]: ...
@overload
def parallel_imap(
    fn: Callable[..., R],
    first: Iterable[Any],
    second: Iterable[Any],
    /,
    *more: Iterable[Any],
    ordered: bool | None = ...,
    backend: Backend | None = ...,
    max_workers: int | None = ...,
    chunksize: int | None = ...,
    buffersize: int | None = ...,
    timeout: float | None = ...,
    item_timeout: float | None = ...,
    on_error: Literal["raise", "return"] | None = ...,
    retries: int | None = ...,
    progress: Any = ...,
    strict: bool | None = ...,
    max_tasks_per_child: int | None = ...,
    max_memory_per_worker: int | None = ...,
) -> Iterator[R]: ...
def parallel_imap(
    fn: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    ordered: bool | None = None,
    backend: Backend | None = None,
    max_workers: int | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    timeout: float | None = None,
    item_timeout: float | None = None,
    on_error: Literal["raise", "return"] | None = None,
    retries: int | None = None,
    progress: Any = None,
    strict: bool | None = None,
    max_tasks_per_child: int | None = None,
    max_memory_per_worker: int | None = None,
) -> Iterator[R]:
    """Like ``parallel_map``, but lazy: an iterator that reads its input as it is read itself.

    The input may be endless. At most ``buffersize`` items are read ahead of the reader; by
    default as many as keep the workers busy. Work goes on between two reads; closing the
    iterator, or dropping it, cancels what is under way.

    Args:
        fn: the callable.
        *iterables: the items.
        ordered: True (default) for the input's order, False for results as they finish.
        backend: as for ``parallel_map``, like all that follow.
        max_workers: most workers at a time.
        chunksize: items handed to a worker in one piece.
        buffersize: most items read from the input and not yet given to the reader.
        timeout: seconds for the whole call, from its first result on.
        item_timeout: seconds for one item.
        on_error: "raise" or "return".
        retries: how often a failed or lost item is run again.
        progress: True, a tqdm object or a callable.
        strict: several iterables must be equally long.
        max_tasks_per_child: items that a worker process runs before it is replaced.
        max_memory_per_worker: bytes of resident memory above which it is replaced.

    Returns:
        An iterator of results.

    Raises:
        TypeError: an argument has the wrong type, or ``fn`` cannot be mapped.
        ValueError: an argument has a value that cannot be used.
    """
    run = _prepare(
        fn,
        iterables,
        {
            "ordered": ordered,
            "backend": backend,
            "max_workers": max_workers,
            "chunksize": chunksize,
            "buffersize": buffersize,
            "timeout": timeout,
            "item_timeout": item_timeout,
            "on_error": on_error,
            "retries": retries,
            "progress": progress,
            "strict": strict,
            "max_tasks_per_child": max_tasks_per_child,
            "max_memory_per_worker": max_memory_per_worker,
        },
        stream=True,
    )
    return _stream(run)


def _stream(run: Run) -> Iterator[Any]:
    batches = run.batches()
    try:
        for batch in batches:
            # Reversed and popped: a result that was read must not be kept alive here.
            batch.reverse()
            while batch:
                yield batch.pop()
    finally:
        batches.close()  # type: ignore[attr-defined]


def explain(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    max_workers: int | None = None,
    backend: Backend | None = None,
    max_tasks_per_child: int | None = None,
    max_memory_per_worker: int | None = None,
) -> Report:
    """Run ``fn`` on the first items and say what ``parallel_map`` would do with the rest.

    The items that it measures on are really run, once, and their results are dropped.

    Args:
        fn: the callable.
        *iterables: the items.
        max_workers: most workers at a time.
        backend: "auto", or a backend to be explained.
        max_tasks_per_child: checked; it does not change the choice.
        max_memory_per_worker: checked; it does not change the choice.

    Returns:
        The report; ``print`` it, or read its attributes.

    Raises:
        TypeError: an argument has the wrong type, or ``fn`` cannot be mapped.
        ValueError: an argument has a value that cannot be used.
        Exception: what ``fn`` or the input raised.
    """
    options = {
        "max_workers": max_workers,
        "backend": backend,
        "max_tasks_per_child": max_tasks_per_child,
        "max_memory_per_worker": max_memory_per_worker,
    }
    return _prepare(fn, iterables, options, stream=True).explain(EXPLAIN)


def _prepare(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    given: dict[str, Any],
    *,
    stream: bool,
    spread: bool = False,
) -> Run:
    """Check everything and make the run."""
    _check_callable(fn)
    while isinstance(fn, functools.partial) and not fn.args and not fn.keywords:
        fn = fn.func  # what it adds is time; and @parallel's functions are such partials
    options: Options = resolve(given)
    feed = Feed(iterables, strict=options.strict, spread=spread)
    return Run(fn, _name(fn), feed, options, stream=stream)


def _check_callable(fn: Any) -> None:
    if not callable(fn):
        raise TypeError(
            f"fn must be callable, not {fn!r}. The function comes first and is not called: "
            f"parallel_map(fn, items), not parallel_map(fn(items))"
        )
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    call = inner if inspect.isroutine(inner) else vars(type(inner)).get("__call__", inner)
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call):
        raise TypeError(
            f"{_name(fn)} is a coroutine function: calling it runs nothing. Run it on an event "
            f"loop with asyncio.gather, or pass a plain function that calls asyncio.run"
        )
    generators = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(test(inner) or test(call) for test in generators):
        raise TypeError(
            f"{_name(fn)} is a generator function: calling it runs nothing, and a generator "
            f"cannot be sent between processes. Return a list instead: "
            f"lambda x: list({_name(fn)}(x))"
        )


def _name(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__
