"""The two sides that most figures compare, their pools, and how a pool is warmed up.

Importing this costs little: samples that time a cold start import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ._engine_work import nap

PEER = "peer"
PARALLAX = "parallax"

# A pool that has not used all its workers by then is measured as it is, and says so.
WARM_UP = 3.0


def executor(side: str, workers: int) -> Callable[[], Any]:
    """Constructs a pool of this side; the imports are done when this returns."""
    if side == PARALLAX:
        from parallax import ProcessPoolExecutor as Ours

        return lambda: Ours(workers)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("forkserver")
    return lambda: ProcessPoolExecutor(workers, mp_context=context)


def warm_up(mapped: Callable[..., Any], workers: int, task: Callable[[float], int] = nap) -> int:
    """Maps naps until every worker has worked; returns how many have.

    Args:
        mapped: the pool's `map`.
        workers: how many there should be.
        task: sleeps for so many seconds and returns the process id.
    """
    seen: set[int] = set()
    until = time.perf_counter() + WARM_UP
    while len(seen) < workers and time.perf_counter() < until:
        seen.update(mapped(task, [0.01] * (2 * workers)))
    return len(seen)


def median(numbers: list[float]) -> float:
    import statistics

    return statistics.median(numbers)
