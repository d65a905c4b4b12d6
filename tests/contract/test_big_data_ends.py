"""What a call captured is given back with the call, and in whatever order things are collected."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from data_jobs import BIG

from parallax import ProcessPoolExecutor, parallel_map


class Kept(np.ndarray):
    """An array that can be referred to weakly."""


@pytest.mark.parametrize("way", ["serial", "threads", "processes", "auto"])
def test_what_was_captured_goes_with_the_call(way):
    """At once, not when the garbage collector comes."""

    def call():
        big = np.ones(1000).view(Kept)
        results = parallel_map(lambda n: float(np.asarray(big)[n]), range(9), backend=way)
        assert sum(results) == 9
        return weakref.ref(big)

    gc.collect()
    gc.disable()
    try:
        assert call()() is None
    finally:
        gc.enable()


def test_a_captured_memoryview_in_a_cycle_is_collected(capsys):
    """CPython does not survive it if somebody exports a memoryview that it collects."""

    def call():
        view = memoryview(bytes(BIG * 8))
        with ProcessPoolExecutor(1) as executor:
            cycle = [executor.submit(lambda n: view[n], 1)]
            assert cycle[0].result() == 0
        cycle.append(cycle)

    call()
    gc.collect()
    assert capsys.readouterr().err == ""
