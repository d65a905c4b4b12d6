"""What a program does with a pool of processes, and how long it takes: a function for each cell.

As in `threads`. The sides are the peer with forkserver, the peer with the system's
default start method, and parallax; all have two workers.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.common.pools import Facts, Measure, executor, median, warm_up
from benchmarks.common.work import noop
from benchmarks.engine.measures import burst, cold_first, latency
from benchmarks.executor.calls import (
    await_as_completed,
    in_order,
    map_noops,
    on_warm_pool,
    use_briefly,
)
from benchmarks.executor.work import array, look_up, megabyte, pure_python, set_up

MANY = 20_000
SOME = 10_000
LONG = 200
MEGABYTES = 200
ARRAYS = 10
LOOKED_UP = 1_000
LIFE = 10  # tasks of a worker
LIVES = 60  # tasks in all
MADE = 10


@contextlib.contextmanager
def _warm_pool(side: str) -> Iterator[tuple[Any, int]]:
    with executor(side, 2)() as pool:
        yield pool, warm_up(pool.map, 2)


def _measure(
    work: Callable[[Any, int], Any],
    full: int,
    right: Callable[[Any, int], bool] = in_order,
    passes: int = 1,
) -> Measure:
    return on_warm_pool(_warm_pool, work, full, right, passes)


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
    return _measure(_arrays, ARRAYS, passes=3)(side, quick)


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
        results = use_briefly(construct)
        times.append(time.perf_counter() - started)
        assert in_order(results, 10), "wrong results"
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
    assert in_order(results, number), "wrong results"
    return {"seconds": seconds}


def _long_expected(results: Any, number: int) -> bool:
    return len(results) == number and results[-1] == pure_python(number - 1)


MEASURES = {
    "processes_submit": burst,
    "processes_latency": latency,
    "processes_map": _measure(map_noops, MANY),
    "processes_chunks": _measure(_map_chunks, MANY, passes=5),
    "processes_long": _measure(_map_long, LONG, _long_expected),
    "processes_bytes": _measure(
        _bytes, MEGABYTES, lambda sizes, number: bool(sizes == [1_000_000] * number), passes=3
    ),
    "processes_arrays": _arrays_measure,
    "processes_as_completed": _measure(await_as_completed, SOME),
    "processes_cold": cold_first,
    "processes_initializer": initializer,
    "processes_create": create,
    "processes_lives": short_lives,
}
