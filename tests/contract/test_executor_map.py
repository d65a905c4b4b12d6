"""``Executor.map`` on every kind of executor: lazy at both ends, and nothing left out."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import gc
import itertools
import threading
import weakref

import jobs
import numpy as np
import psutil
import pytest
from helpers.executor_kinds import APART, CONCURRENT, INSIDE, KINDS, SOON, held
from jobs import pool as pool_jobs

from parallax._core.cores import gil_enabled

CHUNKS = [1, 2, 7, 1000]


@pytest.fixture
def executor(kind):
    """An executor with two workers."""
    with KINDS[kind](2) as executor:
        yield executor


class Counted:
    """An iterator that knows how many of its items were taken."""

    def __init__(self, items):
        self.items = iter(items)
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        self.taken += 1
        return item


def breaks_after(count, error):
    yield from range(count)
    raise error


def filled(n):
    return np.full(10 << 20, n % 256, dtype=np.uint8)


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("chunksize", CHUNKS)
@pytest.mark.parametrize("buffersize", [None, 1, 5])
def test_results_come_in_order(executor, chunksize, buffersize):
    """Of as many items as the shortest of the iterables has."""
    kwargs = {"chunksize": chunksize, "buffersize": buffersize}
    results = executor.map(jobs.add, range(300), itertools.count(1), **kwargs)
    assert iter(results) is results
    assert list(results) == [2 * n + 1 for n in range(300)]
    assert list(results) == []
    assert list(executor.map(jobs.square, [], **kwargs)) == []


@pytest.mark.parametrize("chunksize", CHUNKS)
def test_the_first_error_ends_it(executor, chunksize):
    """Where its item is; earlier results come first, and nothing comes after it."""
    results = executor.map(
        functools.partial(jobs.oops_at, {20, 30}), range(60), chunksize=chunksize
    )
    assert [next(results) for _ in range(20)] == [n * n for n in range(20)]
    with pytest.raises(jobs.Oops) as info:
        next(results)
    assert info.value.number == 20
    assert list(results) == []


@pytest.mark.parametrize("chunksize", [1, 3])
def test_a_callable_that_raises_stop_iteration(executor, chunksize):
    """Must not end the iteration as if there were no more items."""

    def stop(n):
        if n == 4:
            raise StopIteration(n)
        return n

    results = executor.map(stop, range(8), chunksize=chunksize)
    assert list(itertools.islice(results, 4)) == [0, 1, 2, 3]
    with pytest.raises(RuntimeError) as info:
        next(results)
    assert type(info.value.__cause__) is StopIteration


@pytest.mark.parametrize("count", [0, 1, 20, 200])
def test_an_input_that_raises(executor, count):
    """The results of the items before come first."""
    got = []
    with pytest.raises(KeyError, match="broken"):
        got.extend(executor.map(jobs.square, breaks_after(count, KeyError("broken"))))
    assert got == [n * n for n in range(count)]


def test_what_cannot_be_iterated(executor):
    """Is refused at once."""
    with pytest.raises(TypeError):
        executor.map(jobs.square, 5)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": -1}, ValueError),
        ({"buffersize": "1"}, TypeError),
        ({"buffersize": 1.0}, TypeError),
    ],
)
def test_wrong_wishes(executor, kind, kwargs, error):
    """As the standard library, whose threads do not mind the size of chunks."""
    if "chunksize" in kwargs and kind == "ThreadPoolExecutor":
        assert list(executor.map(jobs.square, [2], **kwargs)) == [4]
        return
    with pytest.raises(error):
        executor.map(jobs.square, [1], **kwargs)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CONCURRENT)
@pytest.mark.parametrize("kwargs", [{}, {"buffersize": 2}, {"chunksize": 2}])
def test_timeout(name, kwargs, tmp_path):
    """Counted from the call of ``map``; what nobody will read is cancelled."""
    go = tmp_path / "go"
    with KINDS[name](1) as executor:
        results = executor.map(pool_jobs.wait_for, [str(go)] * 6, timeout=0.05, **kwargs)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        assert list(results) == []
        go.touch()
        assert list(executor.map(jobs.square, range(5), timeout=SOON)) == [0, 1, 4, 9, 16]


# -- laziness --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5])
def test_buffersize(executor, size):
    """As in CPython 3.14: so many items are taken at the call, one more for each result."""
    items = Counted(itertools.count())
    results = executor.map(jobs.square, items, buffersize=size)
    for read in range(30):
        assert items.taken == size + read
        assert next(results) == read * read
    results.close()
    assert items.taken == size + 30


def test_an_endless_input(executor):
    """Is read only as far as the workers need it."""
    items = Counted(itertools.count())
    results = executor.map(jobs.square, items)
    assert list(itertools.islice(results, 500)) == [n * n for n in range(500)]
    assert items.taken < 500 + 2 * 4096
    taken = items.taken
    del results
    gc.collect()
    assert executor.submit(jobs.square, 3).result(SOON) == 9
    assert items.taken == taken


@pytest.mark.parametrize("name", CONCURRENT)
def test_work_begins_without_a_reader(name, tmp_path, eventually):
    """As the standard library's does."""
    with KINDS[name](2) as executor:
        results = executor.map(pool_jobs.touch, [tmp_path / str(n) for n in range(3)])
        assert eventually(lambda: len(list(tmp_path.iterdir())) == 3, SOON)
        assert len(list(results)) == 3


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CONCURRENT)
@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_begun_iterator_cancels_what_has_not_begun(name, end, tmp_path):
    """When it is closed or dropped."""
    log, go = str(tmp_path / "log"), tmp_path / "go"

    def work(n):
        if n:
            pool_jobs.wait_for(go)
            pool_jobs.note(log, n)
        return n

    with KINDS[name](1) as executor:
        try:
            results = executor.map(work, range(200))
            assert next(results) == 0
            if end == "close":
                results.close()
                assert list(results) == []
            del results
            gc.collect()
        finally:
            go.touch()
    # A worker process may have been sent one more, as the standard library's.
    assert pool_jobs.noted(log) == list(range(1, 3))[: len(pool_jobs.noted(log))]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("count", [10, 5_000])
def test_an_iterator_that_nobody_keeps(kind, count):
    """Every item is run all the same, far beyond the window."""
    if kind in INSIDE:
        seen = []
        with KINDS[kind](2) as executor:
            executor.map(seen.append, range(count))
        assert sorted(seen) == list(range(count))
        return
    from parallax import shared_empty

    seen = shared_empty(count, dtype=np.uint8)
    seen[:] = 0

    def mark(n):
        seen[n] = 1

    with KINDS[kind](2) as executor:
        executor.map(mark, range(count))
    assert seen.all()


@pytest.mark.full
@pytest.mark.parametrize("name", CONCURRENT)
def test_hundreds_of_thousands_that_nobody_keeps(name):
    """None is left out."""
    test_an_iterator_that_nobody_keeps(name, 300_000)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("begun", [False, True])
def test_results_read_after_the_end_of_the_block(kind, begun):
    """They are all there, however many."""
    with KINDS[kind](2) as executor:
        results = executor.map(jobs.square, range(6000))
        expected = iter([n * n for n in range(6000)])
        if begun:
            assert next(results) == next(expected)
    assert list(results) == list(expected)


@pytest.mark.parametrize("name", CONCURRENT)
def test_shutdown_cancels_a_map(name, tmp_path):
    """Its reader is told, and what has not begun does not begin."""
    go = tmp_path / "go"
    executor = KINDS[name](1)
    try:
        held(executor, go)
        results = executor.map(pool_jobs.touch, [tmp_path / str(n) for n in range(50)])
        executor.shutdown(wait=False, cancel_futures=True)
    finally:
        go.touch()
    executor.shutdown()
    with pytest.raises((StopIteration, concurrent.futures.CancelledError, RuntimeError)):
        next(results)
    assert not any((tmp_path / str(n)).exists() for n in range(50))


# -- memory ----------------------------------------------------------------------------------------


def test_results_die_with_the_reader(executor, eventually):
    """What was read is not kept by the iterator or the executor."""
    results = executor.map(jobs.Thing, range(100))
    refs = []
    for result in results:
        refs.append(weakref.ref(result))
    del result

    def gone():
        if not gil_enabled():
            gc.collect()  # else a thread that idles keeps what it made until it has work again
        return [ref() for ref in refs[:-1]] == [None] * 99

    assert gone() if gil_enabled() else eventually(gone, 5.0)
    del results
    gc.collect()
    assert refs[-1]() is None


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", KINDS)
def test_ten_gigabytes_of_results(name):
    """1000 results of 10 MB stream in under 500 MB, the workers' memory included."""
    me = psutil.Process()

    def used():
        total = 0
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended between the two looks
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
        return total

    before, most = used(), 0
    with KINDS[name](2) as executor:
        for n, array in enumerate(executor.map(filled, range(1000))):
            assert array[0] == array[-1] == n % 256
            if n % 50 == 0:
                most = max(most, used())
    assert most - before < 500 << 20


@pytest.mark.sampled(2)
def test_several_maps_at_a_time(executor):
    """Each in its own order, read from threads."""
    wrong = []

    def read(base):
        if list(executor.map(jobs.square, range(base, base + 500))) != [
            n * n for n in range(base, base + 500)
        ]:
            wrong.append(base)

    threads = [threading.Thread(target=read, args=(1000 * t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert wrong == []


def test_a_map_inside_a_map(kind):
    """Items may use the executor that runs them, in this process."""
    if kind in APART:
        pytest.skip("an executor does not travel")

    def outer(n):
        return list(executor.map(jobs.square, range(n)))

    with KINDS[kind](2) as executor:
        assert list(executor.map(outer, range(8))) == [[k * k for k in range(n)] for n in range(8)]
