"""The two sides that most figures compare, their pools, and how a pool is warmed up.

Importing this costs little: samples that time a cold start import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.common.work import nap

Facts = dict[str, Any]
# Of a cell: takes a side and whether the run is a quick one, and returns values by name.
Measure = Callable[[str, bool], Facts]

PEER = "peer"
PARALLAX = "parallax"
# The pool as most programs make it, with the start method that is the system's default.
DEFAULT = "default"
# Parallax with workers that are forked from the caller, as it is the default on Linux up to 3.13.
FORKED = "forked"

# A pool that has not used all its workers by then is measured as it is; the table names the fault.
WARM_UP_LIMIT_S = 3.0


def executor(side: str, workers: int, **options: Any) -> Callable[[], Any]:
    """Constructs a pool of this side; the imports are done when this returns.

    Args:
        side: `PARALLAX`, `FORKED`, `PEER` for the forkserver, or `DEFAULT`.
        workers: its processes.
        options: further arguments of the pool.
    """
    import multiprocessing

    if side in {PARALLAX, FORKED}:
        from parallax import ProcessPoolExecutor as Ours

        if side == FORKED:
            options["mp_context"] = multiprocessing.get_context("fork")
        return lambda: Ours(workers, **options)
    from concurrent.futures import ProcessPoolExecutor

    options.setdefault("mp_context", None)
    if side == PEER and options["mp_context"] is None:
        options["mp_context"] = multiprocessing.get_context("forkserver")
    return lambda: ProcessPoolExecutor(workers, **options)


def warm_up(mapped: Callable[..., Any], workers: int, task: Callable[[float], int] = nap) -> int:
    """Maps naps until every worker has worked; returns how many have.

    Args:
        mapped: the pool's `map`.
        workers: how many there should be.
        task: sleeps for so many seconds and returns the process id.
    """
    seen: set[int] = set()
    until = time.perf_counter() + WARM_UP_LIMIT_S
    while len(seen) < workers and time.perf_counter() < until:
        seen.update(mapped(task, [0.01] * (2 * workers)))
    return len(seen)


def median(numbers: list[float]) -> float:
    import statistics

    return statistics.median(numbers)


def check_all_met(answers: Iterable[tuple[Any, ...]], workers: int) -> None:
    """Raises RuntimeError unless each of the workers has answered a `meet`, and all came."""
    pids, met = zip(*(answer[:2] for answer in answers), strict=True)
    if len(set(pids)) < workers or not all(met):
        raise RuntimeError(
            f"{workers} tasks that wait for each other ran on {len(set(pids))} workers"
        )
