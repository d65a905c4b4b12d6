"""What a program does with a pool of threads, and how long it takes: a function for each cell.

Each takes the side and whether the run is a quick one, and returns seconds by name. Pools are
warm unless making them is what is timed; results are checked outside the timed part.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import as_completed, wait
from functools import partial
from typing import Any

from ._engine_work import noop
from ._executor_work import fail, nap, squash
from ._pools import PARALLAX, median

Facts = dict[str, Any]

THREADS = 8
MANY = 20_000
SOME = 10_000
FEW = 2_000
RAISING = 5_000
NAPS = 300
BLOBS = 40
MADE = 100
QUICK = 10  # a quick run does this many times less
# Of one sample; the median counts, as threads take turns by chance.
PASSES = 3


def _pool(side: str) -> Callable[[], Any]:
    if side == PARALLAX:
        from parallax import ThreadPoolExecutor as Ours

        return partial(Ours, THREADS)
    from concurrent.futures import ThreadPoolExecutor

    return partial(ThreadPoolExecutor, THREADS)


def _number(full: int, quick: bool) -> int:
    return full // QUICK if quick else full


def timed(call: Callable[[], Any], right: Callable[[Any], bool], passes: int = PASSES) -> float:
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


def _measure(
    work: Callable[[Any, int], Any], full: int, right: Callable[[Any, int], bool]
) -> Callable[[str, bool], Facts]:
    """A cell that times `work(pool, number)` on a warm pool, and tells seconds for each task."""

    def measure(side: str, quick: bool) -> Facts:
        number = _number(full, quick)
        with _pool(side)() as pool:
            # All threads are there, and so is the code of both sides.
            list(pool.map(nap, range(4 * THREADS)))
            for item in range(50):
                pool.submit(noop, item).result()
            seconds = timed(lambda: work(pool, number), lambda results: right(results, number))
        return {"seconds": seconds, "per_task": seconds / number}

    return measure


def _in_order(results: Any, number: int) -> bool:
    return bool(results == list(range(number)))


def _submit(pool: Any, number: int) -> list[int]:
    futures = [pool.submit(noop, item) for item in range(number)]
    return [future.result() for future in futures]


def _one_by_one(pool: Any, number: int) -> list[int]:
    return [pool.submit(noop, item).result() for item in range(number)]


def _map(pool: Any, number: int) -> list[int]:
    return list(pool.map(noop, range(number)))


def _as_completed(pool: Any, number: int) -> list[int]:
    futures = [pool.submit(noop, item) for item in range(number)]
    return sorted(future.result() for future in as_completed(futures))


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

    def use() -> list[int]:
        with construct() as pool:
            return [f.result() for f in [pool.submit(noop, item) for item in range(10)]]

    use()
    number = _number(MADE, quick)
    seconds = timed(lambda: [use() for _ in range(number)], lambda r: _in_order(r[-1], 10))
    return {"seconds": seconds / number}


MEASURES: dict[str, Callable[[str, bool], Facts]] = {
    "threads_submit": _measure(_submit, MANY, _in_order),
    "threads_latency": _measure(_one_by_one, FEW, _in_order),
    "threads_map": _measure(_map, MANY, _in_order),
    "threads_as_completed": _measure(_as_completed, SOME, _in_order),
    "threads_wait": _measure(_wait, SOME, _in_order),
    "threads_sleeps": _measure(_sleeps, NAPS, _in_order),
    "threads_blobs": _blobs_measure,
    "threads_create": create,
    "threads_callbacks": _measure(_callbacks, SOME, lambda called, number: called == number),
    "threads_asyncio": _measure(_asyncio, FEW, _in_order),
    "threads_errors": _measure(_errors, RAISING, _are_errors),
}
