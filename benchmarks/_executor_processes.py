"""What a program does with a pool of processes, and how long it takes: a function for each cell.

As in `_executor_threads`. The sides are the peer with forkserver, the peer with the system's
default start method, and parallax; all have two workers.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from ._engine_measure import burst, cold_first, latency
from ._engine_work import noop
from ._executor_threads import timed
from ._executor_work import array, look_up, megabyte, pure_python, set_up
from ._pools import executor, median, warm_up

Facts = dict[str, Any]

MANY = 20_000
SOME = 10_000
LONG = 200
MEGABYTES = 200
ARRAYS = 10
LOOKED_UP = 1_000
LIFE = 10  # tasks of a worker
LIVES = 60  # tasks in all
MADE = 10
QUICK = 10


def _measure(
    work: Callable[[Any, int], Any],
    full: int,
    right: Callable[[Any, int], bool],
    passes: int = 1,
) -> Callable[[str, bool], Facts]:
    """A cell that times `work(pool, number)` on a warm pool, and tells seconds for each task."""

    def measure(side: str, quick: bool) -> Facts:
        number = full // QUICK if quick else full
        with executor(side, 2)() as pool:
            seen = warm_up(pool.map, 2)
            seconds = timed(lambda: work(pool, number), lambda r: right(r, number), passes)
        return {"seconds": seconds, "per_task": seconds / number, "workers_seen": seen}

    return measure


def _in_order(results: Any, number: int) -> bool:
    return bool(results == list(range(number)))


def _map(pool: Any, number: int) -> list[int]:
    return list(pool.map(noop, range(number)))


def _map_chunks(pool: Any, number: int) -> list[int]:
    return list(pool.map(noop, range(number), chunksize=100))


def _map_long(pool: Any, number: int) -> list[int]:
    return list(pool.map(pure_python, range(number)))


def _bytes(pool: Any, number: int) -> list[int]:
    return [len(result) for result in pool.map(megabyte, range(number))]


def _arrays(pool: Any, number: int) -> list[int]:
    return [int(result[-1]) for result in pool.map(array, range(number))]


def _arrays_measure(side: str, quick: bool) -> Facts:
    import numpy as np

    np.full(1, 0.0)  # what workers need is imported by the parent before they start
    return _measure(_arrays, ARRAYS, _in_order, passes=3)(side, quick)


def _as_completed(pool: Any, number: int) -> list[int]:
    from concurrent.futures import as_completed

    futures = [pool.submit(noop, item) for item in range(number)]
    return sorted(future.result() for future in as_completed(futures))


def initializer(side: str, quick: bool) -> Facts:
    """A pool whose workers prepare themselves, 1,000 tasks that need it, its shutdown."""
    construct = executor(side, 2, initializer=set_up, initargs=(LOOKED_UP,))
    gc.collect()
    started = time.perf_counter()
    with construct() as pool:
        results = list(pool.map(look_up, range(LOOKED_UP)))
    seconds = time.perf_counter() - started
    assert results == [item * item for item in range(LOOKED_UP)], "wrong results"
    return {"seconds": seconds}


def create(side: str, quick: bool) -> Facts:
    """Making a pool, ten tasks, its shutdown: the first time, and later ones."""
    construct = executor(side, 2)
    times = []
    for _ in range(2 if quick else MADE):
        gc.collect()
        started = time.perf_counter()
        with construct() as pool:
            results = [f.result() for f in [pool.submit(noop, item) for item in range(10)]]
        times.append(time.perf_counter() - started)
        assert _in_order(results, 10), "wrong results"
    return {"first": times[0], "later": median(times[1:])}


def short_lives(side: str, quick: bool) -> Facts:
    """Workers that are executed anew after ten tasks each: 60 tasks, no more than two at a time.

    With more of them waiting, the peer may stop for ever when a worker leaves (Python 3.11.7).
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    number = LIVES // 3 if quick else LIVES
    construct = executor(side, 2, mp_context=context, max_tasks_per_child=LIFE)
    gc.collect()
    started = time.perf_counter()
    results: list[int] = []
    with construct() as pool:
        for item in range(0, number, 2):
            pair = [pool.submit(noop, item), pool.submit(noop, item + 1)]
            results += [future.result() for future in pair]
    seconds = time.perf_counter() - started
    assert _in_order(results, number), "wrong results"
    return {"seconds": seconds}


def _long_expected(results: Any, number: int) -> bool:
    return len(results) == number and results[-1] == pure_python(number - 1)


MEASURES: dict[str, Callable[[str, bool], Facts]] = {
    "processes_submit": burst,
    "processes_latency": latency,
    "processes_map": _measure(_map, MANY, _in_order),
    "processes_chunks": _measure(_map_chunks, MANY, _in_order, passes=5),
    "processes_long": _measure(_map_long, LONG, _long_expected),
    "processes_bytes": _measure(
        _bytes, MEGABYTES, lambda sizes, number: bool(sizes == [1_000_000] * number), passes=3
    ),
    "processes_arrays": _arrays_measure,
    "processes_as_completed": _measure(_as_completed, SOME, _in_order),
    "processes_cold": cold_first,
    "processes_initializer": initializer,
    "processes_create": create,
    "processes_lives": short_lives,
}
