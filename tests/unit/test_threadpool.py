"""The thread engine: as long as more threads may be started, no call waits for another to end."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from parallax._backends.threadpool import ThreadEngine

PATIENCE = 10


@contextmanager
def threads(number):
    engine = ThreadEngine(number, name="w", broken=lambda error: error)
    try:
        yield engine
    finally:
        engine.shutdown(wait=True, cancel=True)


def all_meet(engine, number):
    """Whether so many calls run at a time."""
    barrier = threading.Barrier(number)
    futures = [engine.submit(barrier.wait, (PATIENCE,), {}) for _ in range(number)]
    return sorted(future.result() for future in futures) == list(range(number))


@pytest.mark.parametrize("before", [0, 1, 3, 20])
def test_calls_that_need_each_other_run_at_once(before):
    """Whatever the threads have done before."""
    with threads(4) as engine:
        futures = [engine.submit(int, (), {}) for _ in range(before)]
        if before > 1:
            futures[0].result()
        assert all_meet(engine, 4)


@pytest.mark.parametrize("waiting", [0, 1, 20])
def test_more_threads_are_allowed(waiting):
    """What ended while all threads were there makes nobody believe that one is free."""
    with threads(2) as engine:
        go = threading.Event()
        held = [engine.submit(go.wait, (PATIENCE,), {}) for _ in range(2)]
        queued = [engine.submit(int, (), {}) for _ in range(waiting)]
        go.set()
        for future in held + queued:
            future.result()
        with engine.lock:
            engine.widen(5)
        assert all_meet(engine, 5)


def test_a_thread_that_is_free_is_used():
    """No thread is started for each call."""
    with threads(50) as engine:
        for _ in range(20):
            engine.submit(int, (), {}).result()
            # The token comes after the result.
            both = threading.Event()
            engine.submit(both.set, (), {})
            assert both.wait(PATIENCE)
        assert len(engine.threads) < 20


def test_a_cancelled_call_leaves_its_thread_free():
    with threads(2) as engine:
        go = threading.Event()
        held = [engine.submit(go.wait, (PATIENCE,), {}) for _ in range(2)]
        left = [engine.submit(int, (), {}) for _ in range(10)]
        assert all(future.cancel() for future in left)
        assert not any(future.cancel() for future in held)
        go.set()
        assert all(future.result() for future in held)
        assert all_meet(engine, 2)
