"""``parallel_map``, ``parallel_imap`` and ``explain``: the calls that users make.

Guarantees: every argument is checked before anything starts; the work itself is in ``_run``.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable

from parallax._backends.contract import Call
from parallax._core.callables import name_of, runs_nothing
from parallax._core.lazy_import import futures, lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any, Generic, TypeVar, overload
from parallax._core.options import (
    EXPLAIN_OPTIONS,
    MAP_OPTIONS,
    STREAM_OPTIONS,
    ExplainOptions,
    MapOptions,
    Options,
    StreamOptions,
    check_names,
    resolve,
)
from parallax._profiling.history import key_of, past_item_seconds
from parallax._reporting.reports import Report
from parallax._run.first_items import Blocks, FirstItems, little_work, needs_run, report_of
from parallax._run.run import Run
from parallax._scheduling.input import Input

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from parallax._guard import seeding

    A = TypeVar("A")
else:
    seeding = lazy_module("parallax._guard.seeding")


R = TypeVar("R")


class Results(list["R"]):
    """The results of ``parallel_map``: a list, in the order of the input.

    ``print(results.report)`` reads like a person's answer: what was measured, what was chosen and
    why.
    """

    #: what the report is made of when it is read, of a call that was over at once.
    _brief: tuple[str, float, float, int, Blocks]

    @functools.cached_property
    def report(self) -> Report:
        """What was measured, what was chosen and why."""
        return report_of(*self._brief)


#: Seconds of real work that ``explain`` spends at most before it answers.
EXPLAIN_BUDGET_S = 0.5


@overload
def parallel_map(
    fn: Callable[[A], R], items: Iterable[A], /, **options: Unpack[MapOptions]
) -> Results[R]: ...
@overload
def parallel_map(
    fn: Callable[..., R],
    first: Iterable[Any],
    second: Iterable[Any],
    /,
    *more: Iterable[Any],
    **options: Unpack[MapOptions],
) -> Results[R]: ...
def parallel_map(
    fn: Callable[..., R], /, *iterables: Iterable[Any], **options: Unpack[MapOptions]
) -> Results[R]:
    """Call ``fn`` on every item and return the results, as fast as this machine can.

    The answer is that of ``[fn(x) for x in items]``: same values, same order, same exception.
    The first items run in this thread and are measured while they work; the rest goes to a loop,
    to threads or to processes, whichever is predicted to be fastest and cannot change the answer.

    Args:
        fn: the callable. Several iterables give it several arguments, as in ``map``.
        *iterables: the items. With several, the shortest ends the call unless ``strict``.
        backend: "auto" (default), "serial", "threads", "processes", "interpreters" (from Python
            3.14 on), any ``concurrent.futures.Executor``, or a cluster of Dask: "dask" for the
            program's present ``distributed.Client``, a client, or a scheduler's address.
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
        progress: True for a tqdm bar, a tqdm object, a pair of rich's ``Progress`` and a task, or a
            callable that takes the number of items just finished.
        strict: several iterables must be equally long, as in ``zip``.
        max_tasks_per_child: items that a worker process runs before a fresh one takes its place,
            over all calls that it works for. Does not by itself make ``auto`` choose processes.
        max_memory_per_worker: bytes of resident memory above which a worker process is replaced
            after the item that it is at. Does not by itself make ``auto`` choose processes.
        seed: a whole number or a ``numpy.random.SeedSequence``: each item draws from a stream of
            its own, whose numbers depend on the seed and on the item's place in the input alone;
            True for such streams with numbers that differ each time. See docs/random.md.
        resources: what a call takes of its Dask worker, as {"GPU": 1}; see docs/engines.md.
        record: keep what each worker did when, for ``report.to_html`` and ``to_perfetto``.

    Returns:
        A list of the results, with the run's report as its attribute ``report``.

    Raises:
        TypeError: an argument has the wrong type, or ``fn`` cannot be mapped.
        ValueError: an argument has a value that cannot be used.
        TimeoutError: ``timeout`` was over.
        ParallaxError: a worker died, or something could not travel between processes.
        ConnectionError: the scheduler of a cluster cannot be reached, or goes away.
        Exception: what ``fn`` or the input raised, with a note that names the item. It has the
            report as its attribute ``parallax_report``.
    """
    check_names("parallel_map()", options, MAP_OPTIONS)
    return _map(fn, iterables, options)


def spread_map(fn: Callable[..., R], tuples: Iterable[Iterable[Any]], options: Any) -> Results[R]:
    """``parallel_map`` with the arguments of each call together, as in ``itertools.starmap``."""
    return _map(fn, (tuples,), options, spread=True)


def _map(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    given: Any,
    *,
    spread: bool = False,
) -> Results[Any]:
    called, name, source, options = _prepare(fn, iterables, given, stream=False, spread=spread)

    def make(first: FirstItems | None = None) -> Run:
        return Run(called, name, source, options, stream=False, first=first)

    key = key_of(called)
    each = past_item_seconds(key)
    if needs_run(options) or (each is not None and not little_work(source, each)):
        return _collect(make(), Results())  # not in a name: the frames of errors lead here
    results: Results[Any] = Results()
    call = Call(called, source.star, stop=True)
    first = FirstItems(call, source, options, each=each, make=make)
    error: BaseException | None = None
    try:
        if (run := first.work(results)) is not None:
            return _collect(run, results)
        first.remember(key)
        results._brief = name, *first.brief()
        return results
    except BaseException as raised:
        error = raised
        raise
    finally:
        first.end(name, error)
        del error, results, first, call, make  # the frames of errors lead here


def _collect(run: Run, results: Results[Any]) -> Results[Any]:
    stop: BaseException | None = None
    batches = run.batches()  # kept: once dropped, it takes itself for closed by its reader
    try:
        for batch in batches:
            if results:
                results.extend(batch)
            else:
                results[:] = batch
            del batch
    except BaseException as error:
        # The callable's StopIteration, which Python turns into a RuntimeError on its way out of a
        # generator (PEP 479). One that the callable turned itself bears the item's note.
        stop = error.__cause__ if isinstance(error, RuntimeError) else None
        if not isinstance(stop, StopIteration) or hasattr(error, "__notes__"):
            run.report.cut(error)  # Ctrl-C may have come in this frame
            batches.close()
            raise
    try:
        if stop is not None:
            raise stop  # not above, where it would get this RuntimeError as its context
    finally:
        del stop  # its traceback refers to this frame
    results.report = run.report
    try:
        return results
    finally:
        del results  # the frames of the errors in it lead here


@overload
def parallel_imap(
    fn: Callable[[A], R], items: Iterable[A], /, **options: Unpack[StreamOptions]
) -> ResultStream[R]: ...
@overload
def parallel_imap(
    fn: Callable[..., R],
    first: Iterable[Any],
    second: Iterable[Any],
    /,
    *more: Iterable[Any],
    **options: Unpack[StreamOptions],
) -> ResultStream[R]: ...
def parallel_imap(
    fn: Callable[..., R], /, *iterables: Iterable[Any], **options: Unpack[StreamOptions]
) -> ResultStream[R]:
    """Like ``parallel_map``, but lazy: an iterator that reads its input as it is read itself.

    The input may be endless. At most ``buffersize`` items are read ahead of the reader; by
    default as many as keep the workers busy. Work goes on between two reads; closing the
    iterator, or dropping it, cancels what is under way, and no more results come. If another thread
    closes it, the reader gets the finished results and then ``concurrent.futures.CancelledError``:
    what is cut short from elsewhere does not end as if it were complete.

    An error of an item or of the input is raised where the result would be, and ends the iterator:
    what follows is StopIteration, as with a generator. If the reader closes or drops it before an
    error of the input that is known by then, the logger ``parallax`` is told.

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
        progress: True, a tqdm object, a pair of rich or a callable.
        strict: several iterables must be equally long.
        max_tasks_per_child: items that a worker process runs before it is replaced.
        max_memory_per_worker: bytes of resident memory above which it is replaced.
        seed: random numbers that depend on the item alone.
        record: keep what each worker did when, for ``report.to_html``.

    Returns:
        An iterator of results, with the run's report so far as its attribute ``report``.

    Raises:
        TypeError: an argument has the wrong type, or ``fn`` cannot be mapped.
        ValueError: an argument has a value that cannot be used.
    """
    check_names("parallel_imap()", options, STREAM_OPTIONS)
    return ResultStream(_run(fn, iterables, options))


class ResultStream(Generic[R]):
    """The results of ``parallel_imap``, an iterator.

    Not a generator, whose end would not tell who closed it.
    """

    __slots__ = ("__weakref__", "_batches", "_cut", "_reader", "_ready", "_run")

    # Any: what users see has no type of ours in it.
    def __init__(self, run: Any) -> None:
        self._run: Any = run
        self._batches: Any = run.batches()
        #: results to be read, last first: one that was read must not be kept alive here.
        self._ready: list[R] = []
        #: the thread that reads; and whether another one has closed this.
        self._reader = 0
        self._cut = False

    @property
    def report(self) -> Report:
        """The run's report so far; complete when the iterator has ended."""
        report: Report = self._run.report_now()
        return report

    def __iter__(self) -> ResultStream[R]:
        return self

    def __next__(self) -> R:
        while not self._ready:
            self._ready = self._batch()
        return self._ready.pop()

    def _batch(self) -> list[R]:
        self._reader = threading.get_ident()
        try:
            if self._cut:
                with contextlib.suppress(ValueError):  # the other thread is closing it
                    self._batches.close()
                raise futures.CancelledError("the iterator was closed by another thread")
            batch: list[R] = next(self._batches)
        except BaseException:
            self._cut = False
            raise
        batch.reverse()
        return batch

    def close(self) -> None:
        """Cancel what is under way; no more results come. See ``parallel_imap``."""
        if self._reader in {0, threading.get_ident()}:
            self._ready.clear()
            self._batches.close()
            return
        self._cut = True
        try:
            self._batches.close()
        except ValueError:  # the reader waits inside it
            self._run.cancel()


def explain(
    fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Unpack[ExplainOptions]
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
        seed: as for ``parallel_map``.

    Returns:
        The report; ``print`` it, or read its attributes.

    Raises:
        TypeError: an argument has the wrong type, or ``fn`` cannot be mapped.
        ValueError: an argument has a value that cannot be used.
        Exception: what ``fn`` or the input raised.
    """
    check_names("explain()", options, EXPLAIN_OPTIONS)
    return _run(fn, iterables, options).explain(EXPLAIN_BUDGET_S)


def _run(fn: Callable[..., Any], iterables: tuple[Iterable[Any], ...], given: Any) -> Run:
    """Check everything and make a run whose results are read one by one."""
    return Run(*_prepare(fn, iterables, given, stream=True), stream=True)


def _prepare(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    given: Any,
    *,
    stream: bool,
    spread: bool = False,
) -> tuple[Callable[..., Any], str, Input, Options]:
    """Check everything; the callable with its name, the input, and all options."""
    _check_callable(fn)
    while isinstance(fn, functools.partial) and not fn.args and not fn.keywords:
        fn = fn.func  # what it adds is time; and @parallel's functions are such partials
    options = resolve(given)
    called = fn
    if options.seed is not None:
        called = seeding.seeded(fn, given.get("seed"), options.seed)
    numbered = called is not fn
    source = Input(iterables, strict=options.strict, spread=spread, numbered=numbered)
    if not stream and not numbered:
        source.whole = iterables
    elif not stream and not spread and source.total is not None:
        source.whole = range(source.total), *iterables
    return called, name_of(fn), source, options


def _check_callable(fn: Any) -> None:
    if not callable(fn):
        raise TypeError(
            f"fn must be callable, not {fn!r}. The function comes first and is not called: "
            f"parallel_map(fn, items), not parallel_map(fn(items))"
        )
    kind = runs_nothing(fn)
    if kind == "coroutine":
        raise TypeError(
            f"{name_of(fn)} is a coroutine function: calling it runs nothing. Run it on an event "
            f"loop with asyncio.gather, or pass a plain function that calls asyncio.run"
        )
    if kind == "generator":
        raise TypeError(
            f"{name_of(fn)} is a generator function: calling it runs nothing, and a generator "
            f"cannot be sent between processes. Return a list instead: "
            f"lambda x: list({name_of(fn)}(x))"
        )
