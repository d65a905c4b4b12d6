"""What programs do with a pool of threads or of processes, and how a cell times it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common.pools import Facts, Measure, median
from benchmarks.common.work import noop

QUICK = 10  # a quick run does this many times less


def timed(call: Callable[[], Any], right: Callable[[Any], bool], passes: int) -> float:
    """Median seconds of some calls, whose results are checked."""
    times = []
    for _ in range(passes):
        gc.collect()
        started = time.perf_counter()
        results = call()
        times.append(time.perf_counter() - started)
        assert right(results), "wrong results"
        del results
    return median(times)


def on_warm_pool(
    warm_pool: Callable[[str], Any],
    work: Callable[[Any, int], Any],
    full: int,
    right: Callable[[Any, int], bool],
    passes: int,
) -> Measure:
    """A cell that times `work(pool, number)` on a warm pool, and tells seconds for each task.

    Args:
        warm_pool: makes the pool of a side and uses it, as a context manager that gives the pool
            and the number of workers that have worked.
        work: what is timed.
        full: the number of tasks; a quick run has fewer.
        right: whether results of so many tasks are.
        passes: the median of these counts.
    """

    def measure(side: str, quick: bool) -> Facts:
        number = full // QUICK if quick else full
        with warm_pool(side) as (pool, seen):
            seconds = timed(lambda: work(pool, number), lambda r: right(r, number), passes)
        return {"seconds": seconds, "per_task": seconds / number, "workers_seen": seen}

    return measure


def in_order(results: Any, number: int) -> bool:
    return bool(results == list(range(number)))


def submit_noops(pool: Any, number: int) -> list[int]:
    futures = [pool.submit(noop, item) for item in range(number)]
    return [future.result() for future in futures]


def map_noops(pool: Any, number: int) -> list[int]:
    return list(pool.map(noop, range(number)))


def await_as_completed(pool: Any, number: int) -> list[int]:
    from concurrent.futures import as_completed

    futures = [pool.submit(noop, item) for item in range(number)]
    return sorted(future.result() for future in as_completed(futures))


def use_briefly(construct: Callable[[], Any]) -> list[int]:
    """Makes a pool, submits ten tasks, shuts it down."""
    with construct() as pool:
        return submit_noops(pool, 10)
