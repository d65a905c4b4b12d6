"""What the workers of the data benchmark run, in a module that they can import.

Every function is cheap: what is measured is how its arguments and results travel. All data come
from ramps (0, 1, 2, ...), so that a value says where it was taken from.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common.work import meet

Array = np.ndarray[Any, np.dtype[np.float64]]

# A worker's ramp is longer than what it hands out by this, so each item gets a part of its own.
SPARE = 1000
# Elements that an item of a captured array is about.
SLICE = 1000
# Longer than four pools' worth of copies take to arrive; shorter than the limit of a sample.
MEETING_LIMIT_S = 60.0


def rest(seconds: float) -> int:
    """Keeps a worker occupied without a core; returns its process id. Workers then have NumPy."""
    time.sleep(seconds)
    return os.getpid()


@functools.lru_cache(maxsize=1)
def _ramp(size: int) -> Array:
    return np.arange(size + SPARE, dtype=np.float64)


def rest_with_pandas(seconds: float) -> int:
    import pandas  # noqa: F401

    return rest(seconds)


def prepare(size: int, seconds: float) -> int:
    """`rest`, with the ramp for results of `size` elements made where it was not."""
    _ramp(size)
    return rest(seconds)


def make(size: int, number: int) -> Array:
    """Elements `number` to `number + size` of the worker's ramp.

    No two results have the same memory or the same values, and none costs anything to make.
    """
    return _ramp(size)[number : number + size]


def peek(array: Array) -> tuple[int, float, float]:
    """The process id, and both ends of an array that is not read otherwise."""
    return os.getpid(), float(array[0]), float(array[-1])


def total(array: Array) -> tuple[int, float]:
    """The process id, and the sum: reads everything."""
    return os.getpid(), float(array.sum())


def echo(array: Array) -> Array:
    return array


def same_frame(frame: Any) -> Any:
    """A new frame on the columns of the old one."""
    return frame.copy(deep=False)


def look(array: Array, item: int) -> tuple[float, float]:
    """The first element, which tells one version of the array from another, and a slice's sum."""
    part = array[item * SLICE : (item + 1) * SLICE]
    return float(array[0]), float(part.sum())


def looker(array: Array) -> Callable[[int], tuple[float, float]]:
    """`look` as a function that captures the array."""

    def look_here(item: int) -> tuple[float, float]:
        return look(array, item)

    return look_here


def hold(array: Array, folder: str, visitors: int, item: int) -> tuple[int, bool, float]:
    """Sums the array, then keeps it until all have met; see `meet`."""
    found = float(array.sum())
    return (*meet(folder, visitors, MEETING_LIMIT_S), found)


def holder(array: Array, folder: str, visitors: int) -> Callable[[int], tuple[int, bool, float]]:
    """`hold` as a function that captures the array."""

    def hold_here(item: int) -> tuple[int, bool, float]:
        return hold(array, folder, visitors, item)

    return hold_here
