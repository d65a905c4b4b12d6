"""What a sample of the data benchmark does and times, where one object goes to a worker or back.

As in `engine.measures`: a function for each cell takes the side and whether the run is a quick
one, and returns seconds, bytes or multiples by name. Pools are warm, workers have imported NumPy.
Before each call the parent writes one element, so that no library can pass the array of an earlier
call for this one; results are checked outside the timed part, and dropped there.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common.pools import PARALLAX, Facts, executor, median, warm_up
from benchmarks.data import work
from benchmarks.data.many import captured, four, frames, stream, stream_memory
from benchmarks.data.memory import Peak
from benchmarks.data.sides import ramp, wrong_unless

# float64 elements: 40 MB, 64 KB, and 1 GB.
LARGE_ELEMENTS = 5_000_000
SMALL_ELEMENTS = 8192
HUGE_ELEMENTS = 125_000_000
CALLS, QUICK_CALLS = 9, 3
ROUND_TRIPS, QUICK_ROUND_TRIPS = 2000, 200
HUGE_CALLS = 4
# Times the array: what both sides find already touched. The first touch of a page is the machine's
# own affair, and a virtual one may have to ask its host.
TOUCHED_ARRAYS = 2.5


def _timed(
    array: work.Array,
    calls: int,
    call: Callable[[], Any],
    check: Callable[[work.Array, Any], bool],
) -> list[float]:
    times = []
    for number in range(1, calls + 1):
        array[0] = number
        started = time.perf_counter()
        answer = call()
        times.append(time.perf_counter() - started)
        wrong_unless(check(array, answer))
        del answer
    return times


def _is_peeked(array: work.Array, answer: tuple[int, float, float]) -> bool:
    pid, first, last = answer
    return pid != os.getpid() and (first, last) == (array[0], array[-1])


def _is_summed(array: work.Array, answer: tuple[int, float]) -> bool:
    pid, found = answer
    return pid != os.getpid() and found == array.sum()


def _is_same(array: work.Array, answer: work.Array) -> bool:
    """As after normal pickling: equal, not the same memory, and to be written."""
    return (
        answer.flags.writeable
        and not np.shares_memory(array, answer)
        and np.array_equal(array, answer)
    )


def argument(side: str, quick: bool) -> Facts:
    """40 MB to a worker that looks at the ends, or reads everything; by submit and by map."""
    calls = QUICK_CALLS if quick else CALLS
    array = ramp(LARGE_ELEMENTS)
    with executor(side, 2)() as pool:
        seen = warm_up(pool.map, 2, work.rest)
        gc.collect()
        sent = _timed(array, calls, lambda: pool.submit(work.peek, array).result(), _is_peeked)
        read = _timed(array, calls, lambda: pool.submit(work.total, array).result(), _is_summed)
        if side != PARALLAX:
            mapped = _timed(array, calls, lambda: next(pool.map(work.peek, [array])), _is_peeked)
    if side == PARALLAX:
        from parallax import parallel_map

        in_processes = partial(parallel_map, backend="processes", max_workers=2)
        warm_up(in_processes, 2, work.rest)
        gc.collect()
        mapped = _timed(array, calls, lambda: in_processes(work.peek, [array])[0], _is_peeked)
    return {
        "call": median(sent),
        "first": sent[0],
        "read": median(read),
        "map": median(mapped),
        "workers_seen": seen,
    }


def result(side: str, quick: bool) -> Facts:
    """40 MB from a worker that has them; taken, or taken and summed."""
    calls = QUICK_CALLS if quick else CALLS
    with executor(side, 2)() as pool:
        seen = warm_up(pool.map, 2, partial(work.prepare, LARGE_ELEMENTS))
        gc.collect()
        taken, summed = [], []
        for number in range(calls):
            expected = ramp(LARGE_ELEMENTS, number)
            started = time.perf_counter()
            answer = pool.submit(work.make, LARGE_ELEMENTS, number).result()
            taken.append(time.perf_counter() - started)
            wrong_unless(_is_same(expected, answer))
            del answer
            started = time.perf_counter()
            answer = pool.submit(work.make, LARGE_ELEMENTS, number).result()
            found = answer.sum()
            summed.append(time.perf_counter() - started)
            wrong_unless(found == expected.sum())
            del answer
    return {
        "call": median(taken),
        "first": taken[0],
        "summed": median(summed),
        "workers_seen": seen,
    }


def both(side: str, quick: bool) -> Facts:
    """40 MB to a worker and back."""
    calls = QUICK_CALLS if quick else CALLS
    array = ramp(LARGE_ELEMENTS)
    with executor(side, 2)() as pool:
        seen = warm_up(pool.map, 2, work.rest)
        gc.collect()
        times = _timed(array, calls, lambda: pool.submit(work.echo, array).result(), _is_same)
    return {"call": median(times), "first": times[0], "workers_seen": seen}


def small(side: str, quick: bool) -> Facts:
    """64 KB to a worker and back, many times."""
    trips = QUICK_ROUND_TRIPS if quick else ROUND_TRIPS
    array = ramp(SMALL_ELEMENTS)
    with executor(side, 2)() as pool:
        seen = warm_up(pool.map, 2, work.rest)
        for _ in range(20):
            pool.submit(work.echo, array).result()
        gc.collect()
        times = _timed(array, trips, lambda: pool.submit(work.echo, array).result(), _is_same)
    return {
        "call": median(times),
        "p95": sorted(times)[trips * 95 // 100],
        "workers_seen": seen,
    }


def huge(side: str, quick: bool) -> Facts:
    """1 GB to a worker, or just copied: the first call, the second, and later ones."""
    array = ramp(HUGE_ELEMENTS // 10 if quick else HUGE_ELEMENTS)
    np.ones(int(array.size * TOUCHED_ARRAYS))
    if side != PARALLAX:
        gc.collect()
        times = _timed(array, HUGE_CALLS, array.copy, _has_same_ends)
        return _huge_facts(times)
    with executor(side, 2)() as pool:
        seen = _warm_with_tiny(pool)
        times = _timed(
            array, HUGE_CALLS, lambda: pool.submit(work.peek, array).result(), _is_peeked
        )
    return {**_huge_facts(times), "workers_seen": seen}


def _huge_facts(times: list[float]) -> Facts:
    return {"first": times[0], "second": times[1], "later": median(times[2:])}


def _has_same_ends(array: work.Array, answer: work.Array) -> bool:
    return bool(answer[0] == array[0] and answer[-1] == array[-1])


def _warm_with_tiny(pool: Any) -> int:
    seen = warm_up(pool.map, 2, work.rest)
    pool.submit(work.peek, np.zeros(8)).result()
    gc.collect()
    return seen


def huge_memory(side: str, quick: bool) -> Facts:
    """How much more memory two such calls take at a time, in arrays."""
    array = ramp(HUGE_ELEMENTS // 10 if quick else HUGE_ELEMENTS)
    if side != PARALLAX:
        with Peak() as peak:
            _timed(array, 2, array.copy, _has_same_ends)
        return {"peak": peak.bytes / array.nbytes}
    with executor(side, 2)() as pool:
        seen = _warm_with_tiny(pool)
        with Peak() as peak:
            _timed(array, 2, lambda: pool.submit(work.peek, array).result(), _is_peeked)
    return {"peak": peak.bytes / array.nbytes, "workers_seen": seen}


MEASURES = {
    "argument": argument,
    "result": result,
    "both": both,
    "small": small,
    "huge": huge,
    "huge_memory": huge_memory,
    "captured": captured,
    "stream": stream,
    "stream_memory": stream_memory,
    "frames": frames,
    "four": four,
}
