"""What the measures of the data benchmark have in common: sides, data, and maps on each side."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common.pools import PARALLAX, executor, warm_up
from benchmarks.data.work import Array

# Beside the peer, which is ProcessPoolExecutor or ndarray.copy().
JOBLIB = "joblib"
CHUNKED = "chunked"  # ProcessPoolExecutor.map with a chunksize

Map = Callable[..., Iterable[Any]]


def ramp(size: int, start: int = 0) -> Array:
    """`start`, `start + 1`, ...: what `work.make` gives, and sums without rounding."""
    return np.arange(start, start + size, dtype=np.float64)


def wrong_unless(right: bool) -> None:
    if not right:
        raise RuntimeError("wrong results")


@contextlib.contextmanager
def warm_map(
    side: str,
    workers: int,
    rest: Callable[[float], int],
    *,
    lazy: bool = False,
    chunksize: int = 1,
) -> Iterator[tuple[Map, int]]:
    """A map on warm workers of this side, and how many of them have worked.

    Args:
        side: one of the four.
        workers: how many.
        rest: sleeps in a worker and returns its process id, and leaves it as the map needs it.
        lazy: results are given as they come and not kept, where the side can; else it may be a
            list.
        chunksize: for CHUNKED.
    """
    with contextlib.ExitStack() as stack:
        run: Map
        if side == PARALLAX:
            run = _parallax(workers, lazy)
        elif side == JOBLIB:
            run = _joblib(workers, lazy)
        else:
            run = stack.enter_context(executor(side, workers)()).map
        seen = warm_up(run, workers, rest)
        gc.collect()
        yield partial(run, chunksize=chunksize) if side == CHUNKED else run, seen


def _parallax(workers: int, lazy: bool) -> Map:
    from parallax import parallel_imap, parallel_map

    call = parallel_imap if lazy else parallel_map
    return partial(call, backend="processes", max_workers=workers)


def _joblib(workers: int, lazy: bool) -> Map:
    from joblib import Parallel, delayed

    kind = "generator" if lazy else "list"

    def run(task: Callable[..., Any], items: Iterable[Any]) -> Iterable[Any]:
        results: Iterable[Any] = Parallel(n_jobs=workers, return_as=kind)(
            delayed(task)(item) for item in items
        )
        return results

    return run
