"""After a call nothing of the user's is kept, however it ended, and without the garbage collector.

An exception that is stored keeps the frames of its traceback, and a frame its variables: the
executor, the callable, the items. Where such a frame leads back to the exception, only the
collector would free them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import multiprocessing
import threading
import time
import warnings
import weakref
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as TimedOutError  # another one before 3.11

import pytest
from helpers.executor_kinds import CONCURRENT, KINDS, OUTSIDE, SOON
from jobs.owned import Owned, OwnedError, Work, fail_to_initialize, initialize, living

from parallax import (
    ItemTimeoutError,
    SerializationError,
    WorkerDiedError,
    amap,
    arun,
    explain,
    options,
    parallel,
    parallel_imap,
    parallel_map,
)
from parallax._core.cores import gil_enabled
from tests.helpers.leaks import close_default_executors

pytestmark = pytest.mark.sampled(3)


@pytest.fixture(autouse=True)
def _without_the_collector():
    logging.disable()  # pytest keeps records, with their exceptions
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


def gone(*references, but=()):
    """Whether all that is the user's has gone, within a time; otherwise what is left."""
    deadline = time.monotonic() + SOON / 6
    while True:
        if not gil_enabled():  # a thread that made an object hears later that others dropped it
            gc.collect()
        left = [what for what in living() if what not in but]
        left += [type(found).__name__ for each in references if (found := each()) is not None]
        if not left or time.monotonic() > deadline:
            return left == [] or left
        time.sleep(0.002)


# -- executors -------------------------------------------------------------------------------------


def error_of(future):
    """The kind of error that a call has ended with; raising it here would tie a knot."""
    return type(future.exception(SOON))


def succeeds(executor):
    assert executor.submit(Work(), Owned("item")).result(SOON).what == "result"


def is_not_read(executor):
    executor.submit(Work(), Owned("item"))
    executor.submit(Work(), Owned("item"), "raise")


def raises(executor):
    assert error_of(executor.submit(Work(), Owned("item"), "raise")) is OwnedError


def raises_here(executor):
    try:
        executor.submit(Work(), Owned("item"), "raise").result(SOON)
    except OwnedError:
        pass


def raises_stop_iteration(executor):
    assert error_of(executor.submit(Work(), Owned("item"), "stop")) is StopIteration


def refuses(executor):
    for call in [
        (Work(stuck="pickling"), Owned("item")),
        (Work(), Owned("item", "pickling")),
        (Work(), Owned("item", "elsewhere")),
        (Work(), Owned("item"), None, "pickling"),
        (Work(), Owned("item"), None, "elsewhere"),
        (Work(), Owned("item"), "raise", "pickling"),
        (Work(), Owned("item"), "raise", "elsewhere"),
    ]:
        executor.submit(*call).exception(SOON)


def dies(executor):
    error_of(executor.submit(Work(), Owned("item"), "exit"))


def is_cancelled(executor):
    futures = [executor.submit(Work(), Owned("item")) for _ in range(20)]
    while futures:
        futures.pop().cancel()


def times_out(executor):
    with contextlib.suppress(TimeoutError, TimedOutError):
        executor.submit(Work(), Owned("item")).result(0)


def is_mapped(executor):
    for each in executor.map(Work(), [Owned("item") for _ in range(9)]):
        assert each.what == "result"


def is_mapped_and_not_read(executor):
    executor.map(Work(), [Owned("item") for _ in range(9)])


def is_mapped_and_read_in_part(executor):
    results = executor.map(Work(), [Owned("item") for _ in range(9)])
    next(results)


def is_mapped_and_raises(executor):
    with contextlib.suppress(OwnedError):
        list(executor.map(Work(), [Owned("item")] * 9, [None] * 5 + ["raise"] * 4))


def is_mapped_and_stops(executor):
    with contextlib.suppress(RuntimeError):
        list(executor.map(Work(), [Owned("item")] * 9, [None] * 5 + ["stop"] * 4))


def is_mapped_and_refused(executor):
    with contextlib.suppress(SerializationError):
        list(executor.map(Work(), [Owned("item", "pickling") for _ in range(9)]))


def is_mapped_over_a_bad_input(executor):
    def source():
        yield Owned("item")
        yield Owned("item")
        raise OwnedError("error", Owned("data"))

    with contextlib.suppress(OwnedError):
        list(executor.map(Work(), source()))


def is_mapped_for_too_long(executor):
    with contextlib.suppress(TimeoutError, TimedOutError):
        list(executor.map(Work(), [Owned("item") for _ in range(9)], timeout=0))


def is_submitted_too_late(executor):
    executor.shutdown()
    with contextlib.suppress(RuntimeError):
        executor.submit(Work(), Owned("item"))
    with contextlib.suppress(RuntimeError):
        executor.map(Work(), [Owned("item")])


CALLS = [
    succeeds,
    is_not_read,
    raises,
    raises_here,
    raises_stop_iteration,
    refuses,
    is_cancelled,
    times_out,
    is_mapped,
    is_mapped_and_not_read,
    is_mapped_and_read_in_part,
    is_mapped_and_raises,
    is_mapped_and_stops,
    is_mapped_and_refused,
    is_mapped_over_a_bad_input,
    is_mapped_for_too_long,
    is_submitted_too_late,
]


def ends_with_its_calls(kind, *calls, holds=("callable", "initializer"), settings=dict):
    """Have an executor run calls: what it ``holds`` goes with it, all else before."""
    threads = set(threading.enumerate())
    executor = KINDS[kind](2, **settings())
    for call in calls:
        call(executor)
        assert gone(but=holds) is True, call.__name__
    there = weakref.ref(executor)
    del executor
    assert gone(there) is True
    for thread in set(threading.enumerate()) - threads:
        thread.join(SOON)
        assert not thread.is_alive(), thread


@pytest.mark.parametrize("kind", KINDS)
def test_executors(kind):
    """While the executor lives nothing is left of a call but a callable, and then not even that."""
    ends_with_its_calls(kind, *CALLS)


@pytest.mark.parametrize("kind", KINDS)
def test_functions_with_captured_data(kind):
    """Executors remember functions: as long as they live."""

    def captures(executor):
        data = Owned("callable")
        assert executor.submit(lambda: data.what).result(SOON) == "callable"

    ends_with_its_calls(kind, captures)


@pytest.mark.parametrize("kind", OUTSIDE)
def test_after_the_death_of_a_worker(kind):
    """The error that names it holds nothing."""
    ends_with_its_calls(kind, dies, dies, succeeds)


@pytest.mark.parametrize("kind", CONCURRENT)
@pytest.mark.parametrize("read", [True, False])
def test_initializers_that_fail(kind, read):
    """Neither their arguments nor the frames that they failed in."""

    def is_broken(executor):
        for _ in range(2):
            try:
                future = executor.submit(Work(), Owned("item"))
            except BrokenExecutor:
                continue
            if read:
                assert isinstance(future.exception(SOON), BrokenExecutor)
            del future

    # The executor raises the error again at each call.
    ends_with_its_calls(
        kind,
        is_broken,
        holds=("error", "initializer"),
        settings=lambda: {
            "initializer": fail_to_initialize,
            "initargs": (Owned("initializer"),),
        },
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", OUTSIDE)
@pytest.mark.parametrize("make", ["Event", "Lock", "Queue"])
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_initializers_with_shared_objects(kind, make, method):
    """Those that were made for fork do not pickle: an error on the way to workers that inherit."""
    if method == "fork" and multiprocessing.get_context().get_start_method() != "fork":
        pytest.skip("only where processes are forked by default")
    shared = getattr(multiprocessing.get_context(method), make)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
        ends_with_its_calls(
            kind,
            succeeds,
            settings=lambda: {"initializer": initialize, "initargs": (shared,)},
        )


@pytest.mark.parametrize("kind", OUTSIDE)
def test_initializers_that_are_refused(kind):
    """The error at the start is all that there ever was."""
    there = []

    def refused():
        with contextlib.suppress(SerializationError):
            there.append(KINDS[kind](1, initializer=Work(stuck="pickling"), initargs=(1,)))

    refused()
    assert (gone(), there) == (True, [])


# -- maps ------------------------------------------------------------------------------------------


def map_succeeds(backend):
    assert len(parallel_map(Work(), [Owned("item") for _ in range(9)], backend=backend)) == 9


def map_raises(backend):
    with contextlib.suppress(OwnedError):
        parallel_map(Work(), [Owned("item")] * 9, [None] * 5 + ["raise"] * 4, backend=backend)


def map_returns_errors(backend):
    actions = [None, "raise", "stop", "raise", None]
    parallel_map(Work(), [Owned("item")] * 5, actions, backend=backend, on_error="return")


def map_retries(backend):
    actions = [None, "raise", "raise", None]
    parallel_map(
        Work(), [Owned("item")] * 4, actions, backend=backend, on_error="return", retries=2
    )


def map_retries_and_raises(backend):
    with contextlib.suppress(OwnedError):
        parallel_map(Work(), [Owned("item")] * 3, [None, "raise", None], backend=backend, retries=1)


def map_stops(backend):
    with contextlib.suppress(StopIteration):
        parallel_map(Work(), [Owned("item")] * 3, [None, "stop", None], backend=backend)


def map_is_interrupted(backend):
    with contextlib.suppress(KeyboardInterrupt):
        parallel_map(Work(), [Owned("item")] * 3, [None, "interrupt", None], backend=backend)


def map_refuses(backend):
    for how in ("pickling", "elsewhere"):
        for items, results in (([Owned("item", how)], [None]), ([Owned("item")], [how])):
            for action in (None, "raise"):
                with contextlib.suppress(SerializationError, OwnedError):
                    parallel_map(Work(), items, [action], results, backend=backend)
    with contextlib.suppress(SerializationError):
        parallel_map(Work(stuck="pickling"), [Owned("item")] * 3, backend=backend)


def map_has_a_bad_input(backend):
    def source():
        yield Owned("item")
        raise OwnedError("error", Owned("data"))

    with contextlib.suppress(OwnedError):
        parallel_map(Work(), source(), backend=backend)
    with contextlib.suppress(OwnedError):
        list(parallel_imap(Work(), source(), backend=backend))


def map_is_misused(backend):
    with contextlib.suppress(ValueError):
        parallel_map(Work(), [Owned("item")], backend=backend, chunksize=0)
    with contextlib.suppress(TypeError):
        parallel_map(Owned("callable"), [Owned("item")], backend=backend)
    with contextlib.suppress(ValueError):
        parallel_map(Work(), [Owned("item")], [1, 2], backend=backend, strict=True)


def map_times_out(backend):
    with contextlib.suppress(TimeoutError):
        parallel_map(Work(), [Owned("item") for _ in range(9)], backend=backend, timeout=1e-9)


def imap_succeeds(backend):
    for each in parallel_imap(Work(), [Owned("item") for _ in range(9)], backend=backend):
        assert each.what == "result"


def imap_is_dropped(backend):
    results = parallel_imap(Work(), [Owned("item") for _ in range(9)], backend=backend)
    next(results)


def imap_raises(backend):
    for action in ("raise", "stop"):
        with contextlib.suppress(OwnedError, RuntimeError):
            list(
                parallel_imap(
                    Work(), [Owned("item")] * 4, [None, None, action, None], backend=backend
                )
            )


def is_explained(backend):
    explain(Work(), [Owned("item") for _ in range(9)], backend=backend)


MAPS = [
    map_succeeds,
    map_raises,
    map_returns_errors,
    map_retries,
    map_retries_and_raises,
    map_stops,
    map_is_interrupted,
    map_refuses,
    map_has_a_bad_input,
    map_is_misused,
    map_times_out,
    imap_succeeds,
    imap_is_dropped,
    imap_raises,
    is_explained,
]


@pytest.mark.variants("serial", "threads", "processes", "auto")  # the frames of others keep things
@pytest.mark.parametrize("call", MAPS, ids=lambda call: call.__name__)
def test_maps(backend, call):
    """Nothing at all is left."""
    call(backend)
    assert gone() is True


@pytest.mark.variants("processes", "spawn")
def test_maps_whose_workers_are_lost(backend):
    """By themselves, or ended for the time that an item takes."""

    def call():
        errors = parallel_map(
            Work(),
            [Owned("item") for _ in range(3)],
            [None, "exit", "sleep"],
            backend=backend,
            on_error="return",
            item_timeout=0.3,
        )
        assert [type(error) for error in errors[1:]] == [WorkerDiedError, ItemTimeoutError]

    call()
    assert gone() is True


# -- functions and coroutines ----------------------------------------------------------------------


def decorated_is_called():
    work = parallel(Work().__call__)
    assert work(Owned("item")).what == "result"
    with contextlib.suppress(OwnedError):
        work(Owned("item"), "raise")


def decorated_is_mapped():
    work = parallel(Work().__call__)
    work.map([Owned("item") for _ in range(5)])
    with contextlib.suppress(OwnedError):
        work.map([Owned("item")] * 3, [None, "raise", None])


def decorated_is_submitted():
    work = parallel(Work().__call__)
    assert work.submit(Owned("item")).result(SOON).what == "result"
    assert error_of(work.submit(Owned("item"), "raise")) is OwnedError


async def runs():
    await arun(Work(), Owned("item"))


async def runs_and_raises():
    with contextlib.suppress(OwnedError):
        await arun(Work(), Owned("item"), "raise")


async def runs_and_is_cancelled():
    task = asyncio.ensure_future(arun(Work(), Owned("item")))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def is_mapped_on_a_loop():
    async for each in amap(Work(), [Owned("item") for _ in range(5)]):
        assert each.what == "result"


async def is_mapped_on_a_loop_and_raises():
    for action in ("raise", "stop"):
        with contextlib.suppress(OwnedError, RuntimeError):
            async for _ in amap(Work(), [Owned("item")] * 4, [None, None, action, None]):
                pass


async def is_mapped_on_a_loop_and_closed():
    async with contextlib.aclosing(amap(Work(), [Owned("item") for _ in range(5)])) as results:
        async for _ in results:
            break


OTHERS = [
    decorated_is_called,
    decorated_is_mapped,
    decorated_is_submitted,
    runs,
    runs_and_raises,
    runs_and_is_cancelled,
    is_mapped_on_a_loop,
    is_mapped_on_a_loop_and_raises,
    is_mapped_on_a_loop_and_closed,
]


@pytest.mark.parametrize("call", OTHERS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("kind", ["auto", "threads", "processes"])
def test_functions_and_coroutines(call, kind):
    """On the executors that the program shares, which live on."""
    try:
        with options(backend=kind):
            if inspect.iscoroutinefunction(call):
                asyncio.run(call())
            else:
                call()
        assert gone() is True
    finally:
        close_default_executors()
