"""What a program does with a pool of threads, and how long it takes: a function for each cell.

Each takes the side and whether the run is a quick one, and returns seconds by name. Pools are
warm unless making them is what is timed; results are checked outside the timed part.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from functools import partial
from typing import Any

from benchmarks.common.pools import PARALLAX, Facts, Measure
from benchmarks.common.work import noop
from benchmarks.executor.calls import (
    QUICK,
    await_as_completed,
    in_order,
    map_noops,
    on_warm_pool,
    submit_noops,
    timed,
    use_briefly,
)
from benchmarks.executor.work import fail, nap, squash

THREADS = 8
MANY = 20_000
SOME = 10_000
FEW = 2_000
RAISING = 5_000
NAPS = 300
BLOBS = 40
MADE = 100
# Of one sample; the median counts, as threads take turns by chance.
PASSES = 3


def _pool(side: str) -> Callable[[], Any]:
    if side == PARALLAX:
        from parallax import ThreadPoolExecutor as Ours

        return partial(Ours, THREADS)
    from concurrent.futures import ThreadPoolExecutor

    return partial(ThreadPoolExecutor, THREADS)


@contextlib.contextmanager
def _warm_pool(side: str) -> Iterator[tuple[Any, int]]:
    """All threads are there, and so is the code of both sides."""
    with _pool(side)() as pool:
        list(pool.map(nap, range(4 * THREADS)))
        for item in range(50):
            pool.submit(noop, item).result()
        yield pool, THREADS


def _measure(
    work: Callable[[Any, int], Any], full: int, right: Callable[[Any, int], bool] = in_order
) -> Measure:
    return on_warm_pool(_warm_pool, work, full, right, PASSES)


def _one_by_one(pool: Any, number: int) -> list[int]:
    return [pool.submit(noop, item).result() for item in range(number)]


def _wait(pool: Any, number: int) -> list[int]:
    futures = [pool.submit(noop, item) for item in range(number)]
    done, _ = wait(futures)
    return sorted(future.result() for future in done)


def _sleeps(pool: Any, number: int) -> list[int]:
    return list(pool.map(nap, range(number)))


_blobs: list[bytes] = []


def _hash(pool: Any, number: int) -> list[bytes]:
    return list(pool.map(squash, _blobs[:number]))


def _blobs_measure(side: str, quick: bool) -> Facts:
    import random

    source = random.Random(5)
    # Half as large when it is packed.
    _blobs.extend(source.randbytes(500_000) + bytes(500_000) for _ in range(BLOBS))
    expected = [squash(blob) for blob in _blobs]
    return _measure(_hash, BLOBS, lambda results, n: bool(results == expected[:n]))(side, quick)


def _callbacks(pool: Any, number: int) -> int:
    called = itertools.count(1)
    all_called = threading.Event()

    def count(future: Any) -> None:
        if next(called) == number:
            all_called.set()

    for item in range(number):
        pool.submit(noop, item).add_done_callback(count)
    all_called.wait()
    return next(called) - 1


def _asyncio(pool: Any, number: int) -> list[int]:
    import asyncio

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(pool, noop, item) for item in range(number)]
        return list(await asyncio.gather(*calls))

    return asyncio.run(main())


def _errors(pool: Any, number: int) -> list[Any]:
    futures = [pool.submit(fail, item) for item in range(number)]
    return [future.exception() for future in futures]


def _are_errors(results: Any, number: int) -> bool:
    return len(results) == number and all(
        type(error) is ValueError and type(error.__cause__) is KeyError for error in results
    )


def create(side: str, quick: bool) -> Facts:
    """Making a pool, ten tasks, its shutdown."""
    construct = _pool(side)
    use_briefly(construct)
    number = MADE // QUICK if quick else MADE
    seconds = timed(
        lambda: [use_briefly(construct) for _ in range(number)],
        lambda results: in_order(results[-1], 10),
        PASSES,
    )
    return {"seconds": seconds / number}


MEASURES = {
    "threads_submit": _measure(submit_noops, MANY),
    "threads_latency": _measure(_one_by_one, FEW),
    "threads_map": _measure(map_noops, MANY),
    "threads_as_completed": _measure(await_as_completed, SOME),
    "threads_wait": _measure(_wait, SOME),
    "threads_sleeps": _measure(_sleeps, NAPS),
    "threads_blobs": _blobs_measure,
    "threads_create": create,
    "threads_callbacks": _measure(_callbacks, SOME, lambda called, number: called == number),
    "threads_asyncio": _measure(_asyncio, FEW),
    "threads_errors": _measure(_errors, RAISING, _are_errors),
}
