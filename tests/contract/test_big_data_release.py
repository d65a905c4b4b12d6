"""What a call captured is given back with the call, and in whatever order things are collected."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest
from jobs.data import BIG

from parallax import ProcessPoolExecutor, options, parallel_imap, parallel_map
from parallax._backends.processes.parent import map_workers as crew


class Kept(np.ndarray):
    """An array that can be referred to weakly."""


@pytest.mark.parametrize("kind", ["serial", "threads", "processes", "auto"])
def test_what_was_captured_goes_with_the_call(kind):
    """At once, not when the garbage collector comes."""

    def call():
        big = np.ones(1000).view(Kept)
        results = parallel_map(lambda n: float(np.asarray(big)[n]), range(9), backend=kind)
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


def says_who(item):
    """More than a socket holds, and less than goes through shared memory."""
    return os.getpid(), str(item) * 200_000


def test_a_consumer_that_is_late_loses_nothing(monkeypatch):
    """A worker waits for work for a time only; for its result to be taken, as long as need be."""
    monkeypatch.setattr(crew, "MIN_EARLY_IDLE_TIMEOUT_S", 0.0)
    late = threading.Event()
    with options(idle_timeout=0.1):
        results = parallel_imap(
            says_who, range(10, 30), backend="processes", max_workers=2, chunksize=1, buffersize=20
        )
        found = [next(results)]
        late.wait(0.4)  # is never set: only time makes one late
        found += results
    assert [text for _, text in found] == [str(item) * 200_000 for item in range(10, 30)]
    assert len({pid for pid, _ in found}) <= 2
