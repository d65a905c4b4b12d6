"""What an executor is asked for, long calls among short ones, and calls that are cancelled."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import BrokenExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import jobs
import pytest
from jobs import pool as pool_jobs

from parallax import ProcessPoolExecutor, SerializationError

pytestmark = pytest.mark.sampled(2)

# -- arguments of the executor ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "kind"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"initializer": threading.Lock().acquire}, SerializationError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1.5}, TypeError),
    ],
)
def test_the_constructor_refuses(kwargs, kind):
    """What makes no sense, before anything is started."""
    with pytest.raises(kind):
        ProcessPoolExecutor(**kwargs)


def test_initializer(make_pool):
    """It runs in each worker before its first call, and what it sets is there."""
    executor = make_pool(2, initializer=pool_jobs.set_state, initargs=("set",))
    futures = [executor.submit(pool_jobs.get_state) for _ in range(20)]
    assert {f.result() for f in futures} == {"set"}
    assert pool_jobs.STATE == "unset"


@pytest.mark.parametrize(
    ("initializer", "args", "words"),
    [
        (pool_jobs.fail, (ValueError, "not today"), "ValueError: not today"),
        (pool_jobs.fail, (RuntimeError, "not today"), "RuntimeError: not today"),
        (pool_jobs.fail, (SystemExit, 3), "SystemExit: 3"),
        (pool_jobs.raises_here, (), "wrong place"),
        (pool_jobs.leave, (3,), "exited with status 3"),
        (jobs.square, (pool_jobs.Here(),), "wrong place"),
    ],
    ids=["raises", "runtime", "exits", "unreadable", "dies", "unloadable"],
)
def test_initializer_that_fails(make_pool, initializer, args, words):
    """Every call fails with the reason, those before and those after."""
    executor = make_pool(2, initializer=initializer, initargs=args)
    try:
        futures = [executor.submit(jobs.square, n) for n in range(20)]
    except BrokenProcessPool:
        pytest.fail("it was not to know yet")
    for future in futures:
        error = future.exception(timeout=20)
        assert isinstance(error, BrokenProcessPool)
        assert words in str(error)
        assert error.__cause__ is not None
    with pytest.raises(BrokenProcessPool, match=words):
        executor.submit(jobs.square, 1)
    with pytest.raises(BrokenExecutor):
        executor.map(jobs.square, [1])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_max_tasks_per_child(make_pool, limit):
    """No worker runs more, and no call is lost."""
    executor = make_pool(2, max_tasks_per_child=limit)
    count = 4 * limit + 1 if "spawn" in str(executor._engine.pool.method) else 30 * limit + 1
    futures = [executor.submit(os.getpid) for _ in range(count)]
    pids = [f.result() for f in futures]
    # A number may be given to a second worker, in theory.
    assert max(pids.count(pid) for pid in pids) <= limit
    assert len(set(pids)) >= count // limit


# -- long calls among short ones -------------------------------------------------------------------


def test_a_long_call_delays_no_other(make_pool, tmp_path):
    """What was sent along with it runs elsewhere."""
    pool = make_pool(2)

    def work(path):
        if path:
            pool_jobs.wait_for(path)

    for _ in range(20):  # so that the callable is known to be short
        pool.submit(work, None).result()
    go = str(tmp_path / "go")
    futures = [pool.submit(work, go if n == 300 else None) for n in range(800)]
    others = futures[:300] + futures[301:]
    assert len(wait(others, timeout=30).done) == 799
    assert not futures[300].done()
    pool_jobs.touch(go)
    assert futures[300].result(30) is None


def test_a_call_that_waits_for_a_later_one(make_pool, tmp_path):
    """It is no deadlock as long as there is a second worker."""
    executor = make_pool(2)

    def work(path, wanted):
        if wanted:
            pool_jobs.wait_for(wanted)
        if path:
            pool_jobs.touch(path)

    for _ in range(20):
        executor.submit(work, None, None).result()
    names = [str(tmp_path / str(n)) for n in range(5)]
    for name in names:
        futures = [executor.submit(work, None, name)]
        futures.extend(executor.submit(work, None, None) for _ in range(50))
        futures.append(executor.submit(work, name, None))
        assert [future.result(30) for future in futures] == [None] * 52


def test_a_call_that_waits_behind_arguments_that_load_slowly(make_pool, tmp_path):
    """It is taken back from there, too: the worker is asked again if it did not hear."""
    executor = make_pool(2)
    go = str(tmp_path / "go")

    def work(_, wanted):
        if wanted:
            pool_jobs.wait_for(wanted)

    for _ in range(20):
        executor.submit(work, None, None).result()
    calls = [
        (pool_jobs.Slow(0.03) if n % 10 == 5 else n, go if n == 45 else None) for n in range(100)
    ]
    futures = [executor.submit(work, *call) for call in calls]
    others = futures[:45] + futures[46:]
    assert len(wait(others, timeout=30).done) == 99
    pool_jobs.touch(go)
    assert futures[45].result(30) is None


def test_a_call_that_prints_is_recalled(make_pool, tmp_path):
    """The streams are left alone while a call is writing to them."""
    executor = make_pool(1)

    def work(count):
        for n in range(count):
            sys.stdout.write(f"{n}\n" * 10)
            sys.stdout.flush()
        return count

    for _ in range(20):
        executor.submit(work, 0).result()
    futures = [executor.submit(work, 20_000 if n in {20, 60} else 0) for n in range(100)]
    assert sum(f.result(30) for f in futures) == 40_000


# -- cancelling ------------------------------------------------------------------------------------


def test_cancel(make_pool, tmp_path):
    """What waits can be cancelled and is never run; what runs cannot."""
    executor = make_pool(1)
    go, started, log = (str(tmp_path / name) for name in ("go", "started", "log"))
    running = executor.submit(pool_jobs.started_then_wait, started, go)
    pool_jobs.wait_for(started)
    waiting = [executor.submit(pool_jobs.note, log, n) for n in range(50)]
    assert not running.cancel()
    cancelled = [f for n, f in enumerate(waiting) if n % 2 and f.cancel()]
    assert len(cancelled) == 25
    pool_jobs.touch(go)
    wait([running, *waiting], timeout=30)
    assert all(f.cancelled() for f in cancelled)
    assert executor.submit(pool_jobs.noted, log).result(30) == list(range(0, 50, 2))


def test_cancel_all_that_waits(make_pool, tmp_path):
    """The executor goes on, and can be shut down."""
    executor = make_pool(1)
    go = str(tmp_path / "go")
    first = executor.submit(pool_jobs.wait_for, go)
    waiting = [executor.submit(jobs.square, n) for n in range(20)]
    assert all(f.cancel() for f in waiting)
    pool_jobs.touch(go)
    assert first.result(30) == go
    assert executor.submit(jobs.square, 2).result(30) == 4
    last = [executor.submit(jobs.square, n) for n in range(20)]
    for future in last:
        future.cancel()
