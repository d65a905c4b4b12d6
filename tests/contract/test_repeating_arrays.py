"""Arrays that show the same memory many times travel as that memory, not as their elements."""

from __future__ import annotations

import functools
import tracemalloc

import numpy as np
import pytest

from parallax import parallel_map

WINDOWS = np.lib.stride_tricks.sliding_window_view
ARRAYS = {
    "number": np.broadcast_to(2.5, (3000, 3000)),
    "rows": np.broadcast_to(np.arange(3000.0), (3000, 3000)),
    "columns": np.broadcast_to(np.arange(3000.0)[:, None], (3000, 3000)),
    "reversed": np.broadcast_to(np.arange(3000.0), (3000, 3000))[::-1, ::-1],
    "part": np.broadcast_to(np.float32(1), (2, 4000, 4000))[0],
    "dates": np.broadcast_to(np.datetime64("2020-02-29"), (3000, 3000)),
    "windows": WINDOWS(np.arange(20_000), 1000),
}


class Holder:
    def __init__(self, array):
        self.array = array

    def look(self, x):
        return look(self.array, x)


def look(array, x):
    return array.shape, array.strides, array[x, 1], array[-1, -1], array.flags.writeable


def half(array):
    return array[: len(array) // 2]


@pytest.mark.variants("processes")
@pytest.mark.parametrize(
    "name",
    [
        "number",
        "windows",
        *[
            pytest.param(name, marks=pytest.mark.full)
            for name in ARRAYS
            if name not in {"number", "windows"}
        ],
    ],
)
def test_they_stay_small(backend, name):
    """Captured, as an item, inside of an object, and as a result."""
    array = ARRAYS[name]
    wanted = [look(array, x) for x in range(3)]
    tracemalloc.start()
    try:
        for work in (lambda x: look(array, x), Holder(array).look, functools.partial(look, array)):
            assert list(parallel_map(work, range(3), backend=backend)) == wanted
        found = list(parallel_map(half, [array, array], backend=backend))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 4
    assert np.array_equal(found[1], half(array))
