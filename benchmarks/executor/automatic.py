"""`Executor()` against the two pools of the standard library as they are made by default.

Each sample has a fresh interpreter: the first burst of calls pays for making the pool, starting
workers and, on the side of parallax, for finding out; the second one does not.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common.pools import PARALLAX, Facts, Measure
from benchmarks.executor.work import derive, long_nap, pure_python

Call = tuple[Callable[[int], Any], int]

THREADS = "ThreadPoolExecutor"
PROCESSES = "ProcessPoolExecutor"
SIDES = (THREADS, PROCESSES, PARALLAX)

QUICK = 4


def _construct(side: str) -> Callable[[], Any]:
    if side == PARALLAX:
        from parallax import Executor

        return Executor
    import concurrent.futures

    made: Callable[[], Any] = getattr(concurrent.futures, side)
    return made


def _measure(calls: Callable[[int], list[Call]]) -> Measure:
    def measure(side: str, quick: bool) -> Facts:
        wanted = calls(QUICK if quick else 1)
        construct = _construct(side)
        gc.collect()
        started = time.perf_counter()
        pool = construct()
        cold = _burst(pool, wanted)
        first = time.perf_counter() - started
        gc.collect()
        started = time.perf_counter()
        warm = _burst(pool, wanted)
        second = time.perf_counter() - started
        report = str(pool.report()) if side == PARALLAX else ""
        pool.shutdown()
        assert cold == warm == [fn(item) for fn, item in _some(wanted)], "wrong results"
        return {"first": first, "second": second, "report": report}

    return measure


def _burst(pool: Any, calls: list[Call]) -> list[Any]:
    futures = [pool.submit(fn, item) for fn, item in calls]
    return _some([future.result() for future in futures])


def _some(values: list[Any]) -> list[Any]:
    return values[::10]  # to check them all in a loop would take longer than to measure


def _pure_python(less: int) -> list[Call]:
    return [(pure_python, item) for item in range(240 // less)]


def _waiting(less: int) -> list[Call]:
    return [(long_nap, item) for item in range(400 // less)]


def _gil_free(less: int) -> list[Call]:
    return [(derive, item) for item in range(120 // less)]


def _mixed(less: int) -> list[Call]:
    """In turn, as a program that handles requests would submit them."""
    return [((pure_python, long_nap, derive)[item % 3], item) for item in range(360 // less)]


MEASURES = {
    "routed_python": _measure(_pure_python),
    "routed_waiting": _measure(_waiting),
    "routed_gil_free": _measure(_gil_free),
    "routed_mixed": _measure(_mixed),
}
