"""Control of an executor: cancelling what runs, its state, idle workers, on every kind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import BrokenExecutor, CancelledError, as_completed, wait
from concurrent.futures.process import BrokenProcessPool

import jobs
import psutil
import pytest
from helpers.executor_kinds import CONCURRENT, KINDS, OUTSIDE, SOON, held
from helpers.process_ends import living
from jobs import pool as pool_jobs

import parallax
from tests.helpers.leaks import close_default_executors

pytestmark = pytest.mark.sampled(2)


@pytest.fixture
def no_default_executors():
    """The executors that are made for calls without one end with the test."""
    yield
    close_default_executors()


@pytest.fixture
def busy(concurrent_kind, tmp_path):
    """An executor whose only worker is at work, that call, and the file that ends it."""
    with KINDS[concurrent_kind](1) as executor:
        go = tmp_path / "go"
        try:
            yield executor, held(executor, go), go
        finally:
            go.touch()


# -- cancelling ------------------------------------------------------------------------------------


def test_a_running_call_is_cancelled(busy, concurrent_kind):
    """Whoever waits for it is told; a process is ended for it, and others get their results."""
    executor, running, go = busy
    worker = int((go.parent / "go.started").read_text())
    others = [executor.submit(jobs.square, n) for n in range(20)]
    told, waiting = [], threading.Thread(target=wait, args=([running], SOON))
    running.add_done_callback(told.append)
    waiting.start()
    assert not running.cancel()  # as in the standard library
    assert executor.cancel(running)
    assert running.cancelled()
    assert running.done()
    assert not running.running()
    with pytest.raises(CancelledError):
        running.result(SOON)
    with pytest.raises(CancelledError):
        running.exception(SOON)
    waiting.join(SOON)
    assert not waiting.is_alive()
    assert told == [running]
    assert list(as_completed([running], SOON)) == [running]
    if concurrent_kind in OUTSIDE:
        assert not living([worker], SOON)
    else:
        go.touch()  # a thread cannot be ended
    assert [other.result(SOON) for other in others] == [n * n for n in range(20)]
    assert executor.cancel(running)  # it is, still
    assert told == [running]


def test_what_waits_and_what_has_ended(busy):
    """The first is cancelled as by its own ``cancel``, the second stays as it is."""
    executor, running, go = busy
    waiting = executor.submit(jobs.square, 3)
    assert executor.cancel(waiting)
    assert waiting.cancelled()
    go.touch()
    assert running.result(SOON)
    assert not executor.cancel(running)
    assert not running.cancelled()
    assert executor.submit(jobs.square, 4).result(SOON) == 16


def test_a_thread_that_waits_for_the_cancelled_call_goes_on(busy):
    """It may be reading the answer of the worker itself."""
    executor, running, _ = busy
    seen = []

    def wait_for_it():
        begun.set()
        seen.append(type(running.exception(SOON)))

    def waits():
        try:
            wait_for_it()
        except CancelledError as error:
            seen.append(type(error))

    begun = threading.Event()
    waiting = threading.Thread(target=waits)
    waiting.start()
    begun.wait(SOON)
    assert executor.cancel(running)
    waiting.join(SOON)
    assert seen == [CancelledError]


def test_calls_that_are_cancelled_as_they_end(concurrent_kind):
    """Each future ends once, in one of two ways, and says so to its callbacks once."""
    told = []
    with KINDS[concurrent_kind](2) as executor:
        executor.submit(jobs.square, 1).result(SOON)
        futures = []
        for n in range(150):
            future = executor.submit(jobs.square, n)
            future.add_done_callback(told.append)
            if n % 3 == 0:
                (futures or [future])[-n % 2].running()
                executor.cancel(future)
            futures.append(future)
        assert wait(futures, SOON).not_done == set()
        for n, future in enumerate(futures):
            if not future.cancelled():
                assert future.result() == n * n
        assert executor.submit(jobs.square, 7).result(SOON) == 49
    assert len(told) == len(set(told)) == 150


def test_cancelling_a_call_of_an_executor_of_others(tmp_path):
    """Only what waits can be; the answer says so."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as standard:
        executor = parallax.Executor(backend=standard)
        running = held(executor, tmp_path / "go")
        waiting = executor.submit(jobs.square, 3)
        assert executor.cancel(waiting)
        assert not executor.cancel(running)
        (tmp_path / "go").touch()
        assert running.result(SOON) == os.getpid()


# -- state -----------------------------------------------------------------------------------------


def test_an_executor_is_open_until_it_is_shut_down(kind):
    """Calls that go on do not matter."""
    executor = KINDS[kind](1)
    assert (executor.closed, executor.broken) == (False, None)
    executor.submit(jobs.square, 1)
    executor.shutdown(wait=False)
    assert (executor.closed, executor.broken) == (True, None)
    executor.shutdown()


@pytest.mark.parametrize("kind", [kind for kind in CONCURRENT if kind != "serial"])
def test_a_failed_initializer_breaks_an_executor(kind):
    """It is the cause of the errors of all calls."""
    with KINDS[kind](1, initializer=jobs.oops_at, initargs=({1}, 1)) as executor:
        with pytest.raises(BrokenExecutor):
            executor.submit(jobs.square, 1).result(SOON)
        assert type(executor.broken) is jobs.Oops
        assert not executor.closed
        with pytest.raises(BrokenExecutor) as raised:
            executor.submit(jobs.square, 1)
        assert raised.value.__cause__ is executor.broken


# -- idle workers ----------------------------------------------------------------------------------


def test_idle_threads_end():
    """And a later call starts a new one."""
    with parallax.ThreadPoolExecutor(2, idle_timeout=0.01) as executor:
        for _ in range(3):
            executor.submit(jobs.square, 2).result(SOON)
            for thread in list(executor._threads):
                thread.join(SOON)
                assert not thread.is_alive()
            assert not executor._threads
        assert list(executor.map(jobs.square, range(50))) == [n * n for n in range(50)]


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "auto", "threads"])
def test_no_call_is_lost_to_threads_that_are_about_to_end(kind):
    """The limit is as short as can be: each call may meet a thread that leaves."""
    with KINDS[kind](3, idle_timeout=0) as executor:
        for _ in range(150):
            futures = [executor.submit(jobs.square, n) for n in range(3)]
            assert [future.result(SOON) for future in futures] == [0, 1, 4]
        barrier = threading.Barrier(3)
        both = [executor.submit(barrier.wait, SOON) for _ in range(3)]
        assert wait(both, SOON).not_done == set()


@pytest.mark.parametrize("kind", OUTSIDE)
def test_idle_processes_end(kind):
    """And a later call starts a new one."""
    with KINDS[kind](2, idle_timeout=0.01) as executor:
        first = executor.submit(os.getpid).result(SOON)
        for process in executor._engine.processes().values():
            process.join(SOON)
        assert executor.submit(os.getpid).result(SOON) != first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("limit", "error"), [(-1, ValueError), ("1", TypeError)])
def test_a_wrong_idle_timeout(kind, limit, error):
    """It is refused before anything starts."""
    with pytest.raises(error, match="idle_timeout"):
        KINDS[kind](2, idle_timeout=limit)


# -- nested code -----------------------------------------------------------------------------------


def depth_below(*_):
    return parallax.nesting_depth(), parallax.available_cores()


def test_calls_know_how_deep_they_are(kind):
    """On every route alike; the program itself is at depth 0."""
    here, cores = depth_below()
    assert (here, cores) == (0, parallax.cpu_count())
    with KINDS[kind](2) as executor:
        assert {executor.submit(depth_below).result(SOON)[0] for _ in range(5)} == {1}
        assert {depth for depth, _ in executor.map(depth_below, range(20))} == {1}
    assert parallax.nesting_depth() == 0


def test_items_know_how_deep_they_are(backend):
    """And how many cores are theirs."""
    found = parallax.parallel_map(depth_below, range(10), backend=backend, max_workers=2)
    assert {depth for depth, _ in found} == {1}
    if backend in {"threads", "processes"}:
        assert {cores for _, cores in found} == {max(1, parallax.cpu_count() // 2)}
    inner = parallax.parallel_map(
        lambda _: parallax.parallel_map(depth_below, range(3))[0][0], range(2), backend=backend
    )
    assert inner == [2, 2]


def test_a_process_of_an_executor_has_its_part_of_the_cores():
    """Its siblings have the rest."""
    with parallax.ProcessPoolExecutor(2) as executor:
        _, cores = executor.submit(depth_below).result(SOON)
    assert cores == max(1, parallax.cpu_count() // 2)


# -- options of single calls -----------------------------------------------------------------------


def fails(log, times, x=7):
    """Raise so many times, then return."""
    jobs.note(log, x)
    if len(pool_jobs.noted(log)) <= times:
        raise jobs.Oops(x)
    return x


def dies(log, times, x=7):
    """End the worker so many times, then return."""
    jobs.note(log, x)
    if len(pool_jobs.noted(log)) <= times:
        os._exit(3)
    return x


def test_retries(kind, tmp_path):
    """A call that fails is run again so many times; its last error is its result."""
    log, other, plain = (str(tmp_path / name) for name in ("log", "other", "plain"))
    with KINDS[kind](2) as executor:
        view = executor.options(retries=2)
        assert view.submit(fails, log, 2).result(SOON) == 7
        failed = view.submit(fails, other, 5)
        assert type(failed.exception(SOON)) is jobs.Oops
        assert type(executor.submit(fails, plain, 1).exception(SOON)) is jobs.Oops
    assert [len(pool_jobs.noted(each)) for each in (log, other, plain)] == [3, 3, 1]


def test_retries_of_what_ends_programs(kind):
    """It is no failure to try again after."""
    with KINDS[kind](1) as executor:
        view = executor.options(retries=5)
        if kind == "serial":
            with pytest.raises(SystemExit):
                view.submit(leave, []).result(SOON)
        else:
            assert type(view.submit(leave, []).exception(SOON)) is SystemExit


def leave(seen):
    seen.append(1)
    raise SystemExit(len(seen))


@pytest.mark.parametrize("kind", OUTSIDE)
def test_retries_of_a_call_whose_worker_dies(kind, tmp_path):
    """And of none that could not travel."""
    log, other = str(tmp_path / "log"), str(tmp_path / "other")
    with KINDS[kind](2) as executor:
        view = executor.options(retries=1)
        assert view.submit(dies, log, 1).result(SOON) == 7
        assert isinstance(view.submit(dies, other, 5).exception(SOON), parallax.WorkerDiedError)
        with pytest.raises(parallax.SerializationError):
            view.submit(threading.Lock).result(SOON)
        others = [view.submit(jobs.square, n) for n in range(30)]
        assert [each.result(SOON) for each in others] == [n * n for n in range(30)]
    assert [len(pool_jobs.noted(each)) for each in (log, other)] == [2, 2]


def test_a_cancelled_call_is_not_run_again(busy, eventually):
    """Whatever its retries."""
    executor, running, go = busy
    executor.cancel(running)
    go.touch()
    executor.submit(jobs.square, 1).result(SOON)
    log, gate = str(go.parent / "log"), go.parent / "gate"
    view = executor.options(retries=50)
    call = view.submit(note_and_fail, log, str(gate))
    assert eventually(lambda: pool_jobs.noted(log), SOON)
    assert executor.cancel(call)
    gate.touch()
    assert executor.submit(jobs.square, 2).result(SOON) == 4
    assert pool_jobs.noted(log) == [1]


def note_and_fail(log, gate):
    jobs.note(log, 1)
    pool_jobs.wait_for(gate)
    raise jobs.Oops(1)


LIMITED = (*OUTSIDE, "auto")


@pytest.mark.parametrize("kind", LIMITED)
def test_a_call_that_takes_too_long_is_ended_with_its_worker(kind, tmp_path):
    """It alone; the one before and those behind it get their results, from new workers."""
    with KINDS[kind](1) as executor:
        limited = executor.options(item_timeout=0.3, retries=3)
        told = []
        before = limited.submit(jobs.square, 3)
        endless = limited.submit(
            pool_jobs.started_then_wait, str(tmp_path / "begun"), str(tmp_path / "never")
        )
        endless.add_done_callback(told.append)
        behind = [executor.submit(jobs.square, n) for n in range(20)]
        behind += [limited.submit(jobs.square, n) for n in range(20)]
        assert before.result(SOON) == 9
        error = endless.exception(SOON)
        assert type(error) is parallax.ItemTimeoutError
        assert (error.index, error.seconds) == (None, 0.3)
        assert "this call ran longer than item_timeout=0.3 s" in str(error)
        assert error.pid == int((tmp_path / "begun").read_text())  # once, for all its retries
        assert [each.result(SOON) for each in behind] == [n * n for n in (*range(20), *range(20))]
        assert not psutil.pid_exists(error.pid)
        with pytest.raises(parallax.ItemTimeoutError):
            list(limited.map(pool_jobs.wait_for, [str(tmp_path / "never"), __file__]))
        assert list(limited.map(jobs.square, range(9))) == [n * n for n in range(9)]
    assert told == [endless]


@pytest.mark.parametrize("kind", LIMITED)
def test_the_time_of_a_call_begins_with_the_call(kind, tmp_path):
    """Not with its wait for a worker, nor while that worker calls an initializer."""
    gate = tmp_path / "gate"
    with KINDS[kind](1, initializer=pool_jobs.wait_for, initargs=(str(gate),)) as executor:
        waiting = executor.options(item_timeout=0.2).submit(jobs.square, 3)
        assert wait([waiting], 0.5).not_done
        gate.touch()
        assert waiting.result(SOON) == 9


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LIMITED])
def test_a_time_limit_is_refused_where_nothing_can_be_ended(kind):
    """With the reason."""
    executor = KINDS[kind](1)
    with pytest.raises(ValueError, match="a thread cannot"):
        executor.options(item_timeout=1)
    executor.shutdown()


def test_options_of_options(kind):
    """They add up; None takes one back; the executor itself stays as it is."""
    with KINDS[kind](1) as executor:
        view = executor.options(retries=1)
        assert type(view) is type(executor)
        limit = {"item_timeout": 5.0} if kind in LIMITED else {}
        assert view.options(**limit)._call_options == {"retries": 1, **limit}
        assert view.options(**limit).options(retries=None)._call_options == limit
        assert view.options(retries=3)._call_options == {"retries": 3}
        assert executor._call_options is None
        for wrong, error in (
            ({"timeout": 1}, TypeError),
            ({"chunksize": 1}, TypeError),
            ({"retries": -1}, ValueError),
            ({"retries": "1"}, TypeError),
            ({"item_timeout": 0}, ValueError),
        ):
            with pytest.raises(error):
                view.options(**wrong)
    if kind in LIMITED:
        with KINDS[kind](1) as executor, pytest.raises(ValueError, match="item by item"):
            executor.options(item_timeout=1).map(abs, [1], chunksize=2)


def test_a_view_is_the_executor(kind):
    """It keeps the executor alive, and ends it."""
    view = KINDS[kind](1).options(retries=1)
    gc.collect()
    assert view.submit(jobs.square, 3).result(SOON) == 9
    owner = view._owner
    with view:
        assert list(view.map(jobs.square, range(5))) == [n * n for n in range(5)]
    assert view.closed
    assert owner.closed
    with pytest.raises(RuntimeError):
        owner.submit(jobs.square, 1)
    with pytest.raises(RuntimeError):
        view.submit(jobs.square, 1)


def test_every_call_takes_the_options_around_it(tmp_path, no_default_executors):
    """Those of coroutines, and of decorated functions."""

    async def main():
        with parallax.options(retries=2):
            first = await parallax.arun(fails, str(tmp_path / "1"), 2)
            several = [x async for x in parallax.amap(fails, [str(tmp_path / "2")], [1])]
        with parallax.options(item_timeout=0.2), pytest.raises(parallax.ItemTimeoutError):
            await parallax.arun(pool_jobs.wait_for, str(tmp_path / "never"))
        return first, several

    assert asyncio.run(main()) == (7, [7])
    decorated = parallax.parallel(retries=1)(fails)
    assert decorated.submit(str(tmp_path / "3"), 1).result(SOON) == 7
    assert decorated.options(backend="threads").submit(str(tmp_path / "4"), 1).result(SOON) == 7
    with parallax.ThreadPoolExecutor(1) as pool:
        assert decorated.options(backend=pool).submit(str(tmp_path / "5"), 1).result(SOON) == 7
    endless = parallax.parallel(item_timeout=0.2)(pool_jobs.wait_for)
    error = endless.submit(str(tmp_path / "never")).exception(SOON)
    assert type(error) is parallax.ItemTimeoutError


# -- ending all workers ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
@pytest.mark.parametrize("kind", ["auto", "threads", "processes", "serial"])
def test_an_executor_whose_workers_are_ended_stays_usable(kind, how, tmp_path):
    """Running calls of processes fail, waiting ones are cancelled, threads go on."""
    gate = tmp_path / "gate"
    with KINDS[kind](1) as executor:
        calls = []
        if kind != "serial":
            calls = [held(executor, gate), *(executor.submit(jobs.square, n) for n in range(5))]
        getattr(executor, how)()
        if kind != "processes":
            gate.touch()
        for number, call in enumerate(calls):
            if number:
                with pytest.raises(CancelledError):
                    call.result(SOON)
            elif kind == "processes":
                assert isinstance(call.exception(SOON), BrokenProcessPool)
                assert not psutil.pid_exists(int((tmp_path / "gate.started").read_text()))
            else:
                assert call.result(SOON) == os.getpid()
        assert (executor.closed, executor.broken) == (False, None)
        assert executor.submit(jobs.square, 3).result(SOON) == 9
        assert list(executor.map(jobs.square, range(30))) == [n * n for n in range(30)]
        getattr(executor, how)()  # with idle workers, too
        assert executor.submit(jobs.square, 4).result(SOON) == 16
    getattr(executor, how)()
    assert executor.closed
