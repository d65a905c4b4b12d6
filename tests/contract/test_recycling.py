"""Workers that are replaced at a limit: each item still runs once, and what goes wrong is the same.

The product of limits and workers runs with thousands of items in each case as ``make test-full``,
and with fewer otherwise.
"""

from __future__ import annotations

import functools
import time
from collections import Counter

import jobs
import psutil
import pytest

from parallax import (
    ItemTimeoutError,
    SerializationError,
    WorkerDiedError,
    options,
    parallel_imap,
    parallel_map,
)
from parallax._backends.processes.worker.limits import WorkerLimits, private_memory

pytestmark = pytest.mark.sampled(2)

MEGABYTE = 1 << 20


def run_once(log, limit, count, workers, **kwargs):
    """Run numbered items with that limit; prove that each ran once, in a worker that was fresh."""
    log.write_bytes(b"")
    work = functools.partial(jobs.noted_worker, str(log))
    results = parallel_map(
        work,
        range(count),
        max_tasks_per_child=limit,
        max_workers=workers,
        backend="processes",
        **kwargs,
    )
    assert [x for x, _ in results] == list(range(count))
    ran = sorted(int(line) for line in log.read_bytes().split())
    assert ran == list(range(count))
    assert max(Counter(worker for _, worker in results).values()) <= limit
    return results.report


@pytest.mark.parametrize(
    ("limit", "workers"),
    [
        (1, 2),
        (3, 4),
        *(
            pytest.param(limit, workers, marks=pytest.mark.full)
            for limit in (1, 2, 3, 7)
            for workers in (1, 2, 4)
            if (limit, workers) not in {(1, 2), (3, 4)}
        ),
    ],
)
def test_each_item_runs_once(tmp_path, limit, workers):
    """No worker runs more than its limit, no item is lost or run twice."""
    count = 60 * limit
    report = run_once(tmp_path / "log", limit, count, workers)
    assert count // limit - workers <= report.workers_recycled <= count // limit + workers
    assert (report.workers_lost, report.retried) == (0, 0)
    assert f"workers recycled: {report.workers_recycled}" in str(report)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_each_of_5000_items_runs_once(tmp_path, limit, workers):
    """The same with 5000 items; with fewer where workers are replaced most often."""
    run_once(tmp_path / "log", limit, 5000 if limit == 7 else 1000 * limit, workers)


def test_each_item_runs_once_where_workers_are_executed(tmp_path):
    """So it is with the slow way of starting, and no one that left stays a zombie."""
    with options(start_method="spawn"):
        report = run_once(tmp_path / "log", 3, 12, 2)
        assert report.workers_recycled >= 3
        run_once(tmp_path / "log", 3, 3, 1)
    zombies = [c for c in psutil.Process().children() if c.status() == psutil.STATUS_ZOMBIE]
    deadline = time.monotonic() + 5
    while zombies and time.monotonic() < deadline:
        parallel_map(jobs.square, range(2), backend="processes", start_method="spawn")
        zombies = [c for c in zombies if c.is_running()]
    assert zombies == []


@pytest.mark.parametrize("chunksize", [1, 5, 50])
def test_chunks_that_are_larger_than_what_is_left(tmp_path, chunksize):
    """A chunk is cut where the worker's life ends."""
    run_once(tmp_path / "log", 7, 100, 2, chunksize=chunksize)


def test_without_a_limit_nobody_is_replaced():
    """The usual case: nothing is said of it."""
    report = parallel_map(jobs.square, range(50), backend="processes").report
    assert report.workers_recycled == 0
    assert "recycled" not in str(report)


@pytest.mark.cold_pool  # others may have run items already
def test_a_worker_is_used_up_over_several_calls():
    """The count is that of the worker's life: the next call gets one that has something left."""

    def workers(count, limit):
        return Counter(
            parallel_map(
                jobs.pid_of,
                range(count),
                max_workers=1,
                max_tasks_per_child=limit,
                backend="processes",
            )
        )

    (first,) = workers(3, 5)
    second = workers(4, 5)
    assert second[first] == 2
    assert sum(second.values()) == 4
    (third,) = workers(6, None)
    assert third not in workers(1, 6)


@pytest.mark.parametrize("start", ["zygote", "spawn"])
def test_memory(tmp_path, start):
    """A worker that has grown past the limit is replaced, and its items are all there."""
    work = functools.partial(jobs.hoards, str(tmp_path / "log"), 40)
    with options(start_method=start):
        base = parallel_map(jobs.memory, range(1), backend="processes")[0]
        results = parallel_map(
            work,
            range(8),
            max_memory_per_worker=base + 100 * MEGABYTE,
            max_workers=1,
            backend="processes",
        )
    assert [x for x, _ in results] == list(range(8))
    assert sorted((tmp_path / "log").read_bytes().split()) == [b"%d" % x for x in range(8)]
    assert results.report.workers_recycled >= 2
    assert max(Counter(worker for _, worker in results).values()) <= 4


def test_memory_that_no_worker_can_keep(tmp_path):
    """A limit below what a fresh worker has: one item each, and all are run."""
    work = functools.partial(jobs.noted_worker, str(tmp_path / "log"), nap=0.002)
    results = parallel_map(work, range(6), max_memory_per_worker=1, backend="processes")
    assert [x for x, _ in results] == list(range(6))
    assert len({worker for _, worker in results}) == 6
    assert len((tmp_path / "log").read_bytes().split()) == 6


def test_failures_and_retries(tmp_path):
    """Failed items are run again as often as asked, in fresh workers or not."""
    work = functools.partial(jobs.fails_first, tmp_path, 2)
    got = parallel_map(work, range(20), retries=2, max_tasks_per_child=3, backend="processes")
    assert got == list(range(20))
    assert jobs.calls(tmp_path) == {x: 3 if x % 2 else 1 for x in range(20)}


def test_failures_are_returned():
    """An error has its place among the results."""
    work = functools.partial(jobs.oops_at, {0, 3, 11})
    got = parallel_map(
        work, range(12), on_error="return", max_tasks_per_child=2, backend="processes"
    )
    assert [i for i, v in enumerate(got) if isinstance(v, jobs.Oops)] == [0, 3, 11]
    with pytest.raises(jobs.Oops):
        parallel_map(work, range(12), max_tasks_per_child=2, backend="processes")


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_deaths(tmp_path, limit):
    """An item that ends its worker is named; in chunks of one nothing else is run again."""

    def work(x):
        jobs.note_call(tmp_path, x)
        if x in {2, 9}:
            jobs.die("exit")
        return x

    results = parallel_map(
        work,
        range(14),
        on_error="return",
        chunksize=1,
        max_tasks_per_child=limit,
        backend="processes",
    )
    assert [type(v) for v in results if not isinstance(v, int)] == [WorkerDiedError] * 2
    assert (results[2].index, results[9].index) == (2, 9)
    assert jobs.calls(tmp_path) == dict.fromkeys(range(14), 1)
    assert results.report.workers_lost == 2


def test_item_timeout():
    """An item that overruns is ended, whatever its worker still had before it."""
    work = functools.partial(jobs.endless_at, 4)
    got = parallel_map(
        work,
        range(10),
        item_timeout=0.3,
        on_error="return",
        max_tasks_per_child=2,
        backend="processes",
    )
    assert type(got[4]) is ItemTimeoutError
    assert got[:4] + got[5:] == [x for x in range(10) if x != 4]


@pytest.mark.parametrize("limit", [1, 4])
def test_items_that_do_not_travel(limit):
    """They use a worker up without being run, and hold nobody up."""
    items = [0, lambda: None, 2, jobs.Trap(), 4, (x for x in "ab"), 6]
    got = parallel_map(
        jobs.described, items, on_error="return", max_tasks_per_child=limit, backend="processes"
    )
    assert [type(got[i]) for i in (3, 5)] == [SerializationError] * 2
    assert [got[i] for i in (0, 2, 4, 6)] == ["int:0", "int:2", "int:4", "int:6"]


@pytest.mark.parametrize("ordered", [True, False])
def test_stream(ordered):
    """A stream with a small window goes on across its workers' ends."""
    stream = parallel_imap(
        jobs.square,
        iter(range(40)),
        max_tasks_per_child=3,
        buffersize=4,
        ordered=ordered,
        backend="processes",
    )
    got = list(stream)
    assert (got if ordered else sorted(got)) == [x * x for x in range(40)]


def test_auto_is_not_forced_to_processes():
    """The limits are for processes if there are any; they do not ask for them."""
    got = parallel_map(abs, range(-5, 0), max_tasks_per_child=1, max_memory_per_worker=1)
    assert got == [5, 4, 3, 2, 1]
    assert got.report.route == "loop"
    assert got.report.workers_recycled == 0


# -- the worker's own count, without a process -----------------------------------------------------


def no_delay():
    return 0.0


def test_wear_stops_in_the_middle_of_a_chunk():
    """It runs what is left of its life, and knows that it is over."""
    limits = WorkerLimits()
    limits.limit({"items": 5})
    first = limits.run(abs, [-1, -2, -3], [], star=False, stop=True, delays=no_delay)
    assert (first.values, limits.reached) == ([1, 2, 3], False)
    second = limits.run(abs, [-4, -5, -6], [], star=False, stop=True, delays=no_delay)
    assert (second.values, limits.reached) == ([4, 5], True)
    # One that should not have been asked again makes progress all the same.
    assert limits.run(abs, [-7, -8], [], star=False, stop=True, delays=no_delay).values == [7]


def test_wear_counts_what_failed():
    """An item that raised was run; with ``stop`` the rest of its chunk was not."""
    limits = WorkerLimits()
    limits.limit({"items": 3, "memory": 1 << 60})
    got = limits.run(abs, [-1, "x", -3], [], star=False, stop=True, delays=no_delay)
    assert got.values == [1, None]
    assert [(f.offset, type(f.error)) for f in got.failures] == [(1, TypeError)]
    got = limits.run(divmod, [(7, 2), (1, 0)], [], star=True, stop=False, delays=no_delay)
    assert (got.values, limits.reached) == ([(3, 1)], True)


def test_wear_without_limits_is_endless():
    """Limits of an earlier run are gone with it."""
    limits = WorkerLimits()
    limits.limit({"items": 1, "memory": 1})
    limits.limit({})
    assert limits.run(abs, [-1, -2], [], star=False, stop=True, delays=no_delay).values == [1, 2]
    assert not limits.reached


def test_resident_is_what_the_system_says():
    """It agrees with psutil, and grows with what is held."""
    before = private_memory()
    assert 0.5 < before / psutil.Process().memory_info().rss < 2
    held = bytearray(b"x") * (64 * MEGABYTE)
    assert private_memory() >= before + 32 * MEGABYTE
    del held


@pytest.mark.cold_pool
@pytest.mark.parametrize("seconds", [0, 0.05])
def test_idle_workers_leave(seconds, eventually):
    """After ``idle_timeout``, at once if that is 0."""
    with options(idle_timeout=seconds):
        pids = set(parallel_map(jobs.pid_of, range(20), backend="processes"))
    assert eventually(lambda: not any(map(psutil.pid_exists, pids)))
