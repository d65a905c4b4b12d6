"""Progress: one tick per finished item, on every backend and in every way of calling."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading

import jobs
import pytest

import parallax
from parallax import BackendMissingError, parallel_imap, parallel_map
from tests.helpers.leaks import close_default_executors

EXECUTORS = [parallax.Executor, parallax.ThreadPoolExecutor, parallax.ProcessPoolExecutor]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_progress_ticks_to_the_total(backend, chunksize):
    """A progress callable is told of each item once, whatever the chunk size."""
    ticks = []
    parallel_map(
        jobs.nap_square, range(30), progress=ticks.append, chunksize=chunksize, backend=backend
    )
    assert sum(ticks) == 30
    assert all(t > 0 for t in ticks)


def test_progress_counts_failed_items_too(backend):
    """Failed items are finished ones."""
    ticks = []
    parallel_map(
        functools.partial(jobs.oops_at, {3, 4}),
        range(30),
        progress=ticks.append,
        on_error="return",
        backend=backend,
    )
    assert sum(ticks) == 30


def test_progress_of_a_stream(backend):
    """A stream ticks as well, also over an input of unknown length."""
    ticks = []
    stream = parallel_imap(jobs.square, iter(range(30)), progress=ticks.append, backend=backend)
    assert list(stream) == [x * x for x in range(30)]
    assert sum(ticks) == 30


def test_progress_is_told_in_the_callers_thread(backend):
    """Bars need not be thread-safe."""
    threads = set()
    parallel_map(
        jobs.nap_square,
        range(20),
        progress=lambda n: threads.add(threading.get_ident()),
        backend=backend,
    )
    assert threads == {threading.get_ident()}


def test_progress_with_tqdm(backend, capsys):
    """A tqdm bar, made by the caller or by us, ends at its total."""
    from tqdm import tqdm

    with tqdm(total=20, disable=False) as bar:
        parallel_map(jobs.square, range(20), progress=bar, backend=backend)
        assert bar.n == 20
    parallel_map(jobs.square, range(20), progress=True, backend=backend)
    assert "20/20" in capsys.readouterr().err


def test_progress_that_raises(backend):
    """An error of the progress callable reaches the caller and leaves nothing."""

    def fail(n):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        parallel_map(jobs.nap_square, range(20), progress=fail, backend=backend)


@pytest.mark.variants("serial", "threads", "processes")
def test_limits_that_are_years_away(backend):
    """More than the system can wait for in one go."""
    kwargs = {"item_timeout": 1e12} if backend == "processes" else {}
    assert parallel_map(jobs.nap_square, range(4), backend=backend, timeout=1e12, **kwargs) == [
        0,
        1,
        4,
        9,
    ]


def test_progress_with_rich(backend):
    """A task of rich's gets its total, and all ticks."""
    rich = pytest.importorskip("rich.progress")
    with rich.Progress(disable=True) as bars:
        task, sized = bars.add_task("items", total=None), bars.add_task("more", total=100)
        parallel_map(jobs.square, range(20), progress=(bars, task), backend=backend)
        parallel_map(jobs.square, range(20), progress=(bars, sized), backend=backend)
    found = {each.id: (each.completed, each.total) for each in bars.tasks}
    assert found == {task: (20, 20), sized: (20, 100)}


class Bar:
    """A bar that tells what is done with it."""

    total = None
    ticks = closed = 0

    def update(self, finished):
        self.ticks += finished

    def refresh(self):
        self.closed += 1


@pytest.mark.parametrize("make", EXECUTORS)
def test_progress_of_an_executors_map(make):
    """Ticks as results are read, with the total of sized inputs; closed at the end."""
    bar = Bar()
    with make(2) as pool:
        results = pool.map(jobs.add, range(30), range(40), progress=bar)
        assert (bar.total, bar.ticks) == (30, 0)
        assert next(results) == 0
        assert (bar.ticks, bar.closed) == (1, 0)
        assert list(results) == list(range(2, 60, 2))
        assert (bar.ticks, bar.closed) == (30, 1)


@pytest.mark.parametrize("make", EXECUTORS)
def test_progress_of_a_map_that_fails(make):
    """The failed item was finished, too; a reader that gives up closes the bar."""
    bar, other = Bar(), Bar()
    with make(2) as pool:
        with pytest.raises(jobs.Oops):
            list(pool.map(functools.partial(jobs.oops_at, {3}), range(30), progress=bar))
        results = pool.map(jobs.square, iter(range(30)), progress=other)
        next(results)
        results.close()
    assert bar.closed == other.closed == 1
    assert bar.ticks in {3, 4}
    assert (other.ticks, other.total) == (1, None)


def test_progress_of_amap():
    """As the results are read; closed whether the input is read to its end or not."""

    async def main(bar, stop):
        stream = parallax.amap(jobs.square, range(10), progress=bar)
        async for result in stream:
            if result == stop:
                break
        await stream.aclose()

    bar, other = Bar(), Bar()
    with parallax.options(backend="serial"):
        asyncio.run(main(bar, None))
        asyncio.run(main(other, 4))
    close_default_executors()
    assert (bar.ticks, bar.total, bar.closed) == (10, 10, 1)
    assert (other.ticks, other.closed) == (3, 1)


def test_two_bars_at_once(capsys):
    """Of nested calls, each has a line of its own, and both reach their totals."""

    def outer(x):
        return sum(parallel_map(jobs.square, range(4), progress=True, backend="serial"))

    assert parallel_map(outer, range(3), progress=True, backend="serial") == [14] * 3
    err = capsys.readouterr().err
    assert "3/3" in err
    assert err.count("4/4") >= 3


def test_no_tqdm(monkeypatch):
    """The error names the package; nothing has begun."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    begun = []
    with pytest.raises(BackendMissingError, match="pip install tqdm"):
        parallel_map(begun.append, [1], progress=True)
    with parallax.ThreadPoolExecutor(1) as pool:
        with pytest.raises(BackendMissingError, match="pip install tqdm"):
            pool.map(begun.append, [1], progress=True)
        with pytest.raises(TypeError, match="progress must be"):
            pool.map(begun.append, [1], progress=5)
    assert begun == []
