"""``ProcessPoolExecutor`` keeps the standard library's promises, on each start method."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import itertools
import multiprocessing
import os
import selectors
import sys
import threading
import weakref
from concurrent.futures import Executor, Future, as_completed, wait

import jobs
import numpy as np
import pytest
from jobs import pool as pool_jobs

from parallax import ProcessPoolExecutor, SerializationError


@pytest.fixture(scope="module")
def _shared():
    with ProcessPoolExecutor(2) as auto:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context) as spawn:
            # Here, so that each test starts with all that they hold.
            for executor in (auto, spawn):
                gate = [executor.submit(jobs.nap_square, n) for n in range(8)]
                wait(gate)
            yield {"auto": auto, "spawn": spawn}


@pytest.fixture(params=["auto", "spawn"])
def pool(request, _shared):
    """An executor with two workers that other tests have used."""
    return _shared[request.param]


# -- calls and their results -----------------------------------------------------------------------


def test_types(pool):
    """It is an executor whose futures are the standard library's."""
    future = pool.submit(jobs.square, 3)
    assert isinstance(pool, Executor)
    assert isinstance(future, Future)
    assert future.result() == 9


def test_arguments(pool):
    """Positional and keyword ones, whatever their names."""
    call = pool.submit(pool_jobs.keywords, 1, 2, fn=3, self=4, args=5, timeout=6)
    assert call.result() == ((1, 2), {"fn": 3, "self": 4, "args": 5, "timeout": 6})
    assert pool.submit(dict).result() == {}


@pytest.mark.parametrize("count", [0, 1, 7, 3000])
def test_many_calls(pool, count):
    """Each future has the result of its own call."""
    futures = [pool.submit(jobs.square, n) for n in range(count)]
    assert [f.result() for f in futures] == [n * n for n in range(count)]


def test_callables(pool):
    """Everything that can be called and sent, also what the standard library cannot send."""
    factor = 3
    adder = jobs.Adder(5)

    def closure(x):
        return x * factor

    work = [closure, lambda x: x - 1, adder, adder.method, jobs.Adder.static, abs, str]
    work += [functools.partial(jobs.add, 4), jobs.cached_square]
    assert [pool.submit(fn, 2).result() for fn in work] == [6, 1, 7, 7, 3, 2, "2", 6, 4]


def test_what_a_callable_refers_to_is_sent_anew_when_it_changes(pool):
    """A closure's variable, a default or an object's state: calls see what it is when submitted."""
    count = 0
    adder = jobs.Adder(0)

    def work(x=0, *, y=0):
        return count, x, y

    seen = []
    for count in range(4):
        work.__defaults__ = (count * 2,)
        work.__kwdefaults__ = {"y": count * 3}
        adder.by = count * 4
        seen.append((pool.submit(work), pool.submit(adder, 0)))
    assert [(a.result(), b.result()) for a, b in seen] == [
        ((n, n * 2, n * 3), n * 4) for n in range(4)
    ]


def test_exceptions(pool):
    """They come with their type and fields, and with what the worker saw as their cause."""
    error = pool.submit(jobs.oops_at, {3}, 3).exception()
    assert type(error) is jobs.Oops
    assert error.number == 3
    assert type(error.__cause__).__name__ == "_RemoteTraceback"
    text = str(error.__cause__)
    assert "in oops_at" in text
    assert "raise Oops(x)" in text
    assert f"{os.sep}parallax{os.sep}_backends" not in text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_exceptions_that_end_programs(pool, kind):
    """They end the call, and nothing else."""
    pids = {pool.submit(os.getpid).result() for _ in range(10)}
    with pytest.raises(kind):
        pool.submit(pool_jobs.fail, kind, 3).result()
    assert pool.submit(os.getpid).result() in pids


def test_what_cannot_travel_fails_its_own_call_only(pool):
    """Arguments, callables, results and exceptions, in one direction or the other."""
    lock = threading.Lock()
    bad = [
        (jobs.square, lock),
        (lambda x: (lock, x), 1),
        (jobs.square, jobs.Trap()),
        (jobs.square, pool_jobs.Here()),
        (functools.partial(jobs.lock_at, 1), 1),
        (lambda x: pool_jobs.stays(), 1),
        (lambda x: pool_jobs.raises_here(), 1),
        (functools.partial(jobs.awkward_at, 1), 1),
    ]
    calls = [(fn, arg) for pair in bad for fn, arg in ((jobs.square, 2), pair, (jobs.square, 3))]
    futures = [pool.submit(fn, arg) for fn, arg in calls]
    for good, wrong, right in zip(*[iter(futures)] * 3, strict=True):
        assert (good.result(), right.result()) == (4, 9)
        assert isinstance(wrong.exception(), SerializationError)
    places = [f.exception().what for f in futures[1::3]]
    assert places == ["item", "callable", "item", "item", "result", "result", *places[6:]]
    assert futures[1].exception().path == "argument 0"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("ballast", [0, 1 << 18], ids=["small", "large"])
def test_results_that_do_not_travel_among_many(pool, ballast):
    """Short calls are answered many at a time: each still has its own outcome."""
    names = ["fine", "list", "stays", "lock", "raises", "plain error"]

    def work(n):
        what = names[n % len(names)]
        if what == "list":
            return [n]
        if what == "stays":
            return pool_jobs.stays(bytearray(ballast))
        if what == "lock":
            return threading.Lock()
        if what == "raises":
            raise pool_jobs.HereError
        if what == "plain error":
            raise KeyError(n)
        return bytearray(ballast) if n % 4 else n

    for n in range(20):  # until it is known to be short
        pool.submit(work, 0).result()
        if n > 10:
            break
    futures = [pool.submit(work, n) for n in range(120)]
    for n, future in enumerate(futures):
        what = names[n % len(names)]
        error = future.exception()
        if what == "fine":
            assert future.result() == (bytearray(ballast) if n % 4 else n)
        elif what == "list":
            assert future.result() == [n]
        elif what == "plain error":
            assert (type(error), error.args) == (KeyError, (n,))
        else:
            assert isinstance(error, SerializationError)


def test_large_arguments_and_results(pool):
    """Several megabytes both ways at once, from several threads."""
    arrays = [np.random.default_rng(n).random(1 << 19) for n in range(4)]
    wrong = []

    def talk(array):
        futures = [pool.submit(np.negative, array) for _ in range(3)]
        wrong.extend(f for f in futures if not np.array_equal(f.result(), -array))

    threads = [threading.Thread(target=talk, args=(array,)) for array in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    result = pool.submit(np.negative, arrays[0]).result()
    result[0] = 1.0  # it can be written to


def test_nothing_is_kept(pool):
    """Arguments and results die with the last reference that the program has."""
    data = pool_jobs.Payload(1 << 20)
    argument = weakref.ref(data)
    future = pool.submit(pool_jobs.turned, data)
    other = pool.submit(jobs.Thing, 2)
    failed = pool.submit(pool_jobs.fail, jobs.Oops, 1)
    results = [weakref.ref(future.result()), weakref.ref(other.result())]
    error = weakref.ref(failed.exception())
    # The workers' answers to these are the last thing that the executor has read.
    assert [pool.submit(jobs.square, n).result() for n in range(3)] == [0, 1, 4]
    del data
    assert argument() is None
    del future, other, failed
    gc.collect()
    assert [r() for r in (*results, error)] == [None] * 3


def test_a_worker_does_not_keep_a_large_argument(make_pool):
    """Nor does the worker that had it."""
    executor = make_pool(1)

    def remember(array):

        sys.kept = weakref.ref(array.base if array.base is not None else array)

    def kept():

        return sys.kept() is not None

    executor.submit(remember, np.zeros(1 << 18)).result()
    assert executor.submit(kept).result() is False


# -- threads, callbacks, timeouts ------------------------------------------------------------------


def test_eight_threads_submit(pool):
    """Each gets its own results."""
    wrong = []

    def check(n, value):
        if value != n * n:
            wrong.append(n)

    def talk(base):
        for n in range(base, base + 60):
            check(n, pool.submit(jobs.square, n).result())
        futures = [pool.submit(jobs.square, n) for n in range(base, base + 200)]
        wrong.extend(n for n, f in enumerate(futures, base) if f.result() != n * n)

    threads = [threading.Thread(target=talk, args=(t * 1000,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_several_threads_wait_for_one_call(pool, tmp_path):
    """All are answered, though one of them reads the answer."""
    go = tmp_path / "go"
    future = pool.submit(pool_jobs.wait_for, str(go))
    got = []
    threads = [threading.Thread(target=lambda: got.append(future.result(30))) for _ in range(5)]
    for thread in threads:
        thread.start()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    go.touch()
    for thread in threads:
        thread.join()
    assert got == [str(go)] * 5


def test_a_thread_that_gave_up_waiting_leaves_all_in_order(pool, tmp_path):
    """A timeout ends the wait, not the call; other calls go on meanwhile."""
    go = tmp_path / "go"
    future = pool.submit(pool_jobs.wait_for, str(go))
    for timeout in (0, -1, 0.001, 0.01):
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout)
        assert pool.submit(jobs.square, 3).result(30) == 9
    assert future.running()
    go.touch()
    assert future.result(timeout=1e8) == str(go)


def test_callbacks_submit_and_ask(pool):
    """A callback may use the executor and its own future."""
    seen, done = [], threading.Event()

    def again(future):
        seen.append(future.result())
        if len(seen) < 20:
            pool.submit(jobs.square, len(seen)).add_done_callback(again)
        else:
            done.set()

    pool.submit(jobs.square, 0).add_done_callback(again)
    assert done.wait(30)
    assert seen == [n * n for n in range(20)]


def test_as_completed(pool):
    """Each future once."""
    futures = {pool.submit(jobs.square, n): n for n in range(300)}
    assert sorted(futures[f] for f in as_completed(futures, timeout=30)) == list(range(300))


# -- map -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 3, 100])
@pytest.mark.parametrize("buffersize", [None, 1, 4])
def test_map(pool, chunksize, buffersize):
    """Results in order; the shortest of the iterables ends it."""
    results = pool.map(
        jobs.add, range(50), itertools.count(), chunksize=chunksize, buffersize=buffersize
    )
    assert list(results) == [2 * n for n in range(50)]
    assert list(pool.map(jobs.add, [], [], chunksize=chunksize, buffersize=buffersize)) == []


def test_map_reads_ahead_only_so_far(pool):
    """With ``buffersize`` an endless input is fine, without it all is read at once."""
    taken = []

    def items(count):
        for n in range(count):
            taken.append(n)
            yield n

    results = pool.map(jobs.square, items(1000), buffersize=3)
    assert taken == [0, 1, 2]
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) == 8
    results.close()
    taken.clear()
    pool.map(jobs.square, items(10), chunksize=3)
    assert len(taken) == 10


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_raises_where_the_item_is(pool, chunksize):
    """What comes before it comes out first."""
    results = pool.map(functools.partial(jobs.oops_at, {4}), range(8), chunksize=chunksize)
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(jobs.Oops) as info:
        next(results)
    text = str(info.value.__cause__)
    assert "in oops_at" in text
    assert f"{os.sep}parallax{os.sep}" not in text
    assert list(results) == []


@pytest.mark.parametrize("kwargs", [{}, {"buffersize": 2}, {"chunksize": 2}])
def test_map_times_out(pool, tmp_path, kwargs):
    """And what nobody will read is cancelled."""
    go = tmp_path / "go"
    results = pool.map(pool_jobs.wait_for, [str(go)] * 6, timeout=0.02, **kwargs)
    try:
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
    finally:
        go.touch()


@pytest.mark.parametrize(
    ("kwargs", "kind"),
    [
        ({"chunksize": 0}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": 1.5}, TypeError),
    ],
)
def test_map_refuses(pool, kwargs, kind):
    """What makes no sense."""
    with pytest.raises(kind):
        pool.map(jobs.square, [1], **kwargs)


@pytest.mark.cold_pool
def test_a_selector_that_does_not_heed_changes_during_a_wait(monkeypatch):
    """As those of Windows and gevent: a worker that a thread has read from is listened to again."""
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.PollSelector)
    with ProcessPoolExecutor(1) as executor:
        for turn in range(100):
            assert executor.submit(abs, -turn).result() == turn  # read by this very thread
            ended = threading.Event()
            executor.submit(abs, 1).add_done_callback(lambda _, ended=ended: ended.set())
            assert ended.wait(20)
