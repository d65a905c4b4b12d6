"""Samples of the data benchmark in which many objects travel, or one goes to many items.

Pools are warm, and results are checked outside the timed part; see `measures`.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.pools import PARALLAX, PEER, Facts, check_all_met, median
from benchmarks.common.work import meet, open_gate
from benchmarks.data import work
from benchmarks.data.memory import Peak, check, family, held, proportional
from benchmarks.data.sides import CHUNKED, JOBLIB, Map, ramp, warm_map, wrong_unless

# Elements of 40 MB and 8 MB.
CAPTURED_ELEMENTS, STREAMED_ELEMENTS = 5_000_000, 1_000_000
# As often as a sample's time allows: the peer takes seconds for one call.
CAPTURED_CALLS = {PARALLAX: 7, JOBLIB: 7, CHUNKED: 5, PEER: 1}
STREAM_CALLS = 3
FRAME_CALLS = 2
# A frame: 15,625 rows of four columns of float64 and four of int64 are 1 MB.
FRAME_ROWS, FRAME_COLUMNS = 15_625, 4
# Of so many frames one is compared value by value, the others by their index.
COMPARED_EVERY = 50
READERS = 4
READ_ELEMENTS = 125_000_000  # elements of 1 GB


def captured(side: str, quick: bool) -> Facts:
    """A function with 40 MB of its own on 100 items."""
    items = range(20 if quick else 100)
    array = ramp(CAPTURED_ELEMENTS)
    times = []
    with warm_map(side, 2, work.rest, chunksize=len(items) // 2) as (run, seen):
        call = _capturing(side, run, items)
        list(call(np.zeros(8)))
        for number in range(1, 2 if quick else 1 + CAPTURED_CALLS[side]):
            array[0] = number
            started = time.perf_counter()
            answers = list(call(array))
            times.append(time.perf_counter() - started)
            wrong_unless(answers == [work.look(array, item) for item in items])
    return {"call": median(times), "first": times[0], "workers_seen": seen}


def _capturing(
    side: str, run: Map, items: range
) -> Callable[[work.Array], Iterable[tuple[float, float]]]:
    """As each library is used: a closure, an argument of each task, or a partial."""
    if side == PARALLAX:
        return lambda array: run(work.looker(array), items)
    if side == JOBLIB:
        from joblib import Parallel, delayed

        return lambda array: Parallel(n_jobs=2)(delayed(work.look)(array, item) for item in items)
    return lambda array: run(partial(work.look, array), items)


def stream(side: str, quick: bool) -> Facts:
    """200 results of 8 MB, each dropped before the next is taken, or summed and dropped."""
    number = 40 if quick else 200
    taken, summed = [], []
    with _streaming(side) as (run, seen):
        for _ in range(1 if quick else STREAM_CALLS):
            started = time.perf_counter()
            ends = _take(run, number)
            taken.append(time.perf_counter() - started)
            wrong_unless(ends == _ends(number))
        started = time.perf_counter()
        sums = [array.sum() for array in run(partial(work.make, STREAMED_ELEMENTS), range(number))]
        summed.append(time.perf_counter() - started)
        wrong_unless(sums == [ramp(STREAMED_ELEMENTS, item).sum() for item in range(number)])
    return {
        "call": median(taken),
        "first": taken[0],
        "summed": median(summed),
        "workers_seen": seen,
    }


def stream_memory(side: str, quick: bool) -> Facts:
    """The highest memory over the start meanwhile, in bytes."""
    number = 40 if quick else 200
    with _streaming(side) as (run, seen):
        with Peak() as peak:
            ends = _take(run, number)
        wrong_unless(ends == _ends(number))
    return {"peak": peak.bytes, "workers_seen": seen}


def _streaming(side: str) -> Any:
    return warm_map(side, 2, partial(work.prepare, STREAMED_ELEMENTS), lazy=True)


def _take(run: Map, number: int) -> list[tuple[float, float]]:
    return [
        (array[0], array[-1]) for array in run(partial(work.make, STREAMED_ELEMENTS), range(number))
    ]


def _ends(number: int) -> list[tuple[float, float]]:
    return [(item, item + STREAMED_ELEMENTS - 1) for item in range(number)]


def frames(side: str, quick: bool) -> Facts:
    """1,000 frames of 1 MB in and out."""
    items = _frames(100 if quick else 1000)
    times = []
    with warm_map(side, 2, work.rest_with_pandas, lazy=True, chunksize=10) as (run, seen):
        for _ in range(1 if quick else FRAME_CALLS):
            started = time.perf_counter()
            marks, compared = [], []
            for number, frame in enumerate(run(work.same_frame, items)):
                marks.append(frame.index[0])
                if number % COMPARED_EVERY == 0:
                    compared.append(frame)
            times.append(time.perf_counter() - started)
            wrong_unless(marks == [number * FRAME_ROWS for number in range(len(items))])
            pairs = zip(items[::COMPARED_EVERY], compared, strict=True)
            wrong_unless(all(one.equals(other) for one, other in pairs))
    return {"call": median(times), "first": times[0], "workers_seen": seen}


def _frames(number: int) -> list[Any]:
    """No two have a value in common; the index says which one it is."""
    import pandas as pd

    found = []
    for item in range(number):
        start = item * FRAME_ROWS
        index = pd.RangeIndex(start, start + FRAME_ROWS)
        columns: dict[str, Any] = {
            f"x{n}": ramp(FRAME_ROWS, start) / (n + 1) for n in range(FRAME_COLUMNS)
        }
        columns |= {f"n{n}": np.arange(start, start + FRAME_ROWS) for n in range(FRAME_COLUMNS)}
        found.append(pd.DataFrame(columns, index=index))
    return found


def four(side: str, quick: bool) -> Facts:
    """Memory, in arrays, while four workers have one array of 1 GB, which each has read."""
    check()
    array = ramp(READ_ELEMENTS // 10 if quick else READ_ELEMENTS)
    with (
        warm_map(side, READERS, work.rest) as (run, _),
        tempfile.TemporaryDirectory() as folder,
    ):
        open_gate(folder)
        watcher = _Watcher(folder)
        answers = list(_holding(side, run, array, folder))
        watcher.join()
    wrong_unless(all(found == array.sum() for _, _, found in answers))
    check_all_met(answers, READERS)
    return {
        "proportional": watcher.proportional / array.nbytes,
        "held": watcher.held / array.nbytes,
    }


def _holding(
    side: str, run: Map, array: work.Array, folder: str
) -> Iterable[tuple[int, bool, float]]:
    visitors = READERS + 1  # with the watcher
    if side == PARALLAX:
        return run(work.holder(array, folder, visitors), range(READERS))
    if side == JOBLIB:
        from joblib import Parallel, delayed

        calls = (delayed(work.hold)(array, folder, visitors, item) for item in range(READERS))
        found: list[tuple[int, bool, float]] = Parallel(n_jobs=READERS)(calls)
        return found
    return run(partial(work.hold, array, folder, visitors), range(READERS))


class _Watcher:
    """Waits in a thread for all readers, notes how memory has grown meanwhile, lets them go.

    The main thread waits for its results then, and the readers for the gate: nothing moves.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        pids = family(os.getpid())
        self.proportional, self.held = -proportional(pids), -held(pids)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _watch(self) -> None:
        arrived = Path(self._folder, "arrived")
        until = time.perf_counter() + work.MEETING_LIMIT_S
        while time.perf_counter() < until:
            if arrived.exists() and arrived.stat().st_size >= READERS:
                break
            time.sleep(0.005)
        pids = family(os.getpid())
        self.proportional += proportional(pids)
        self.held += held(pids)
        meet(self._folder, READERS + 1, 0.0)
