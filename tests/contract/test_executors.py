"""The promises of ``concurrent.futures``, on every kind of executor: calls, futures, shutdown."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import threading
import traceback
import weakref
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, as_completed, wait

import jobs
import pytest
from helpers.executor_kinds import INSIDE, KINDS, OUTSIDE, SOON, held
from jobs import pool as pool_jobs

import parallax

pytestmark = pytest.mark.sampled(2)


@pytest.fixture
def executor(kind):
    """An executor with two workers."""
    with KINDS[kind](2) as executor:
        yield executor


@pytest.fixture
def busy(concurrent_kind, tmp_path):
    """An executor whose only worker is at work, that call, and what ends it."""
    with KINDS[concurrent_kind](1) as executor:
        go = tmp_path / "go"
        try:
            yield executor, held(executor, go), go.touch
        finally:
            go.touch()


# -- calls -----------------------------------------------------------------------------------------


def test_arguments_reach_the_callable(executor):
    """Whatever their names."""
    call = executor.submit(pool_jobs.keywords, 1, fn=2, self=3, timeout=4, args=5, kwargs=6)
    assert isinstance(executor, Executor)
    assert isinstance(call, Future)
    names = {"fn": 2, "self": 3, "timeout": 4, "args": 5, "kwargs": 6}
    assert call.result(SOON) == ((1,), names)
    assert executor.submit(pool_jobs.keywords).result(SOON) == ((), {})
    with pytest.raises(TypeError):
        executor.submit()


def test_exceptions_come_with_type_message_and_traceback(executor):
    """The frame that raised is to be read somewhere."""
    future = executor.submit(jobs.oops_at, {3}, 3)
    error = future.exception(SOON)
    assert type(error) is jobs.Oops
    assert error.number == 3
    assert "raise Oops(x)" in "".join(traceback.format_exception(error))
    with pytest.raises(jobs.Oops) as info:
        future.result()
    assert info.value is error
    assert executor.submit(jobs.square, 3).exception(SOON) is None
    assert type(executor.submit(5).exception(SOON)) is TypeError


def test_callables_of_every_sort(executor):
    """Lambdas, closures, partials, methods, callable objects, builtins and classes."""
    import functools

    factor, adder = 3, jobs.Adder(5)
    work = [lambda x: x * factor, functools.partial(jobs.add, 4), functools.partial(jobs.add, b=4)]
    work += [adder, adder.method, jobs.Adder.static, abs, str, jobs.cached_square, (2).__add__]
    for _ in range(3):
        assert [executor.submit(fn, 2).result(SOON) for fn in work] == [
            *(6, 6, 6, 7, 7, 3, 2, "2", 4, 4)
        ]


def test_wait_and_as_completed(executor):
    """The standard library's functions see the futures end."""
    futures = [executor.submit(jobs.square, n) for n in range(50)]
    done, _ = wait(futures, timeout=SOON, return_when=FIRST_COMPLETED)
    assert done
    assert {f.result() for f in as_completed(futures, timeout=SOON)} == {n * n for n in range(50)}
    assert wait(futures, timeout=SOON).not_done == set()


def test_first_completed_comes_before_the_others(busy):
    """While one call goes on, another that has ended is told."""
    executor, running, end = busy
    waiting = executor.submit(jobs.square, 3)
    assert wait([running, waiting], timeout=0.01).done == set()
    end()
    assert running in wait([running], timeout=SOON, return_when=FIRST_COMPLETED).done
    assert waiting.result(SOON) == 9


def test_callbacks(executor):
    """Each runs once with its future, whether it was added before or after the end."""
    seen, both = [], threading.Semaphore(0)

    def note(future):
        seen.append(future)
        both.release()
        raise KeyError  # logged, and nothing else

    future = executor.submit(jobs.square, 3)
    future.add_done_callback(note)
    future.add_done_callback(note)
    assert both.acquire(timeout=SOON)
    assert both.acquire(timeout=SOON)
    future.add_done_callback(note)
    assert seen == [future] * 3


def test_cancel(busy):
    """What has begun cannot be cancelled, what waits can; it never runs and callbacks are told."""
    executor, running, end = busy
    log = []
    waiting = [executor.submit(jobs.square, n) for n in range(20)]
    last = executor.submit(jobs.square, 5)
    for future in waiting:
        future.add_done_callback(log.append)
    assert running.running()
    assert running.cancel() is False
    assert all(f.cancel() for f in waiting)
    assert all(f.cancel() for f in waiting)
    assert log == waiting
    with pytest.raises(CancelledError):
        waiting[0].result(SOON)
    assert set(wait(waiting, timeout=SOON).done) == set(waiting)
    end()
    assert last.result(SOON) == 25
    assert last.cancel() is False
    assert running.done()


def test_timeouts_of_a_future(busy):
    """They end the wait and not the call."""
    _, running, end = busy
    for timeout in (0, 0.01):
        with pytest.raises(concurrent.futures.TimeoutError):
            running.result(timeout)
        with pytest.raises(concurrent.futures.TimeoutError):
            running.exception(timeout)
    end()
    assert running.result(SOON) > 0


def test_one_worker_keeps_the_order(kind, tmp_path):
    """Calls begin in the order in which they were submitted, of several functions too."""
    log = str(tmp_path / "log")
    with KINDS[kind](1) as executor:
        for n in range(40):
            fn = (pool_jobs.note, lambda path, x: pool_jobs.note(path, x))[n % 2]
            executor.submit(fn, log, n)
    assert pool_jobs.noted(log) == list(range(40))


@pytest.mark.parametrize("name", [k for k in INSIDE if k != "serial"] + ["auto"])
def test_calls_that_wait_for_calls_of_their_own_executor(name):
    """Deeper than there are workers."""

    def deep(n):
        return n if n == 0 else executor.submit(deep, n - 1).result() + 1

    with KINDS[name](2) as executor:
        assert [f.result(SOON) for f in [executor.submit(deep, 12) for _ in range(4)]] == [12] * 4


def test_results_and_arguments_are_not_kept(executor):
    """They die with the last reference that the program has."""
    thing = jobs.Thing(1)
    argument = weakref.ref(thing)
    future = executor.submit(jobs.Thing, 2)
    result = weakref.ref(future.result(SOON))
    other = executor.submit(pool_jobs.keywords, thing)
    other.result(SOON)
    # What workers say last may be what the executor has at hand.
    assert [executor.submit(jobs.square, n).result(SOON) for n in range(3)] == [0, 1, 4]
    del future, other, thing
    gc.collect()
    assert (argument(), result()) == (None, None)


# -- shutdown --------------------------------------------------------------------------------------


def test_use_after_shutdown(kind):
    """Refused, however often it was shut down."""
    executor = KINDS[kind](2)
    future = executor.submit(jobs.square, 3)
    executor.shutdown()
    executor.shutdown(wait=False)
    executor.shutdown(cancel_futures=True)
    assert future.result(0) == 9
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(jobs.square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(jobs.square, [1])


def test_shutdown_without_waiting(busy):
    """What was submitted is finished."""
    executor, running, end = busy
    waiting = [executor.submit(jobs.square, n) for n in range(30)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(jobs.square, 1)
    assert not running.done()
    end()
    assert [f.result(SOON) for f in waiting] == [n * n for n in range(30)]


@pytest.mark.parametrize("patient", [False, True])
def test_shutdown_cancels_what_waits(busy, patient):
    """And finishes what runs."""
    executor, running, end = busy
    waiting = [executor.submit(jobs.square, n) for n in range(30)]
    if patient:
        # From the callback of what is cancelled: shutdown waits for the rest.
        waiting[-1].add_done_callback(lambda _: end())
    executor.shutdown(wait=patient, cancel_futures=True)
    assert [f.cancelled() for f in waiting] == [True] * 30
    assert patient is False or running.done()
    end()
    assert running.result(SOON) > 0


def test_shutdown_from_a_callback(concurrent_kind):
    """A thread of the executor does not wait for itself."""
    executor = KINDS[concurrent_kind](2)
    ended = threading.Event()

    def end(_):
        executor.shutdown()
        ended.set()

    executor.submit(jobs.nap_square, 3).add_done_callback(end)
    assert ended.wait(SOON)
    executor.shutdown()


@pytest.mark.parametrize("name", ["ThreadPoolExecutor", "threads", "auto"])
def test_two_calls_shut_their_executor_down(name):
    """Neither waits for the other."""
    both = threading.Barrier(2, timeout=SOON)

    def end(_):
        both.wait()
        executor.shutdown()
        return True

    executor = KINDS[name](2)
    futures = [executor.submit(end, n) for n in range(2)]
    assert [f.result(SOON) for f in futures] == [True, True]
    executor.shutdown()


def test_shutdown_from_many_threads(concurrent_kind):
    """All return when it is over."""
    executor = KINDS[concurrent_kind](2)
    future = executor.submit(jobs.nap_square, 3)
    threads = [threading.Thread(target=executor.shutdown) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert future.done()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("cycle", [False, True])
def test_an_executor_that_nobody_has(concurrent_kind, cycle):
    """Finishes its calls; nothing is left, as every test checks."""
    executor = KINDS[concurrent_kind](2)
    futures = [executor.submit(jobs.nap_square, n) for n in range(20)]
    gone = weakref.ref(executor)
    if cycle:
        executor.me = executor
    del executor
    gc.collect()
    assert gone() is None
    assert [f.result(SOON) for f in futures] == [n * n for n in range(20)]


def test_engines_are_forgotten(kind):
    """A program may make executors for ever."""
    executor = KINDS[kind](1)
    engine = weakref.ref(executor._engine)
    assert executor.submit(jobs.square, 3).result(SOON) == 9
    executor.shutdown()
    del executor
    gc.collect()
    assert engine() is None


def test_no_thread_can_be_had(monkeypatch):
    """The caller is told, and shutdown does not wait for what never ran."""

    def start(self):
        raise RuntimeError("can't start new thread")

    for name in ("ThreadPoolExecutor", "ProcessPoolExecutor", "auto"):
        with KINDS[name](2) as executor:
            with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="new thread"):
                patch.setattr(threading.Thread, "start", start)
                executor.submit(jobs.square, 2)
            assert executor.submit(jobs.square, 3).result(SOON) == 9


@pytest.mark.skipif(parallax.cpu_count() < 2, reason="processes bring nothing")
def test_no_thread_can_be_had_for_processes(monkeypatch):
    """What would be better off in processes runs in the threads that there are, and ends."""
    start, asked = threading.Thread.start, []

    def refuse(self):
        if self.name == "parallax-executor":
            asked.append(self)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with parallax.Executor(2) as executor:
        for _ in range(20):  # while other programs have the cores, nobody asks for processes
            assert len(list(executor.map(jobs.spin, [0.005] * 40))) == 40
            if asked:
                break
        assert {row.route for row in executor.report().functions} == {"threads"}


# -- asyncio ---------------------------------------------------------------------------------------


def test_asyncio(executor):
    """``wrap_future`` and ``run_in_executor``."""

    async def main():
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(executor.submit(jobs.square, 3))
        some = [loop.run_in_executor(executor, jobs.square, n) for n in range(20)]
        with pytest.raises(jobs.Oops):
            await loop.run_in_executor(executor, jobs.oops_at, {1}, 1)
        return await wrapped, await asyncio.gather(*some)

    assert asyncio.run(main()) == (9, [n * n for n in range(20)])


def test_default_executor_of_the_loop():
    """The loop takes the thread pool for the standard library's, and shuts it down."""

    async def main():
        loop = asyncio.get_running_loop()
        executor = parallax.ThreadPoolExecutor(2)
        loop.set_default_executor(executor)
        assert await asyncio.to_thread(jobs.square, 3) == 9
        return executor

    executor = asyncio.run(main())
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(jobs.square, 1)


def test_where_calls_run(kind):
    """As the name says."""
    with KINDS[kind](2) as executor:
        pids = {executor.submit(os.getpid).result(SOON) for _ in range(4)}
    assert (pids == {os.getpid()}) is (kind not in OUTSIDE)
