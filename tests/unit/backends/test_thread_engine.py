"""Single calls on threads: the engine alone."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import sys
import threading
from contextvars import copy_context

import pytest

from parallax._backends.processes.parent.task import unpack
from parallax._backends.thread_engine import ThreadEngine

SOON = 30


class BrokenError(Exception):
    pass


def broken(cause):
    error = BrokenError(str(cause))
    error.__cause__ = cause
    return error


@pytest.fixture
def make():
    """Makes engines, which are shut down at the end."""
    made = []

    def new(workers, **kwargs):
        made.append(ThreadEngine(workers, name="test", broken=broken, **kwargs))
        return made[-1]

    yield new
    for engine in made:
        engine.shutdown(wait=True, cancel=False)


def test_threads_start_as_they_are_needed(make):
    """One suffices for calls one after the other, as many as calls for calls that meet."""
    engine = make(8)
    for n in range(50):
        assert engine.submit(abs, (-n,), {}).result(SOON) == n
    assert len(engine.threads) <= 2  # who was not quite idle yet
    gate = threading.Barrier(8, timeout=SOON)
    futures = [engine.submit(gate.wait, (), {}) for _ in range(8)]
    assert sorted(f.result(SOON) for f in futures) == list(range(8))
    assert len(engine.threads) == 8


def test_calls_that_meet_again_and_again(make):
    """No call is left to a thread that was thought idle and is not."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for size in (2, 3, 5):
            engine = make(size)
            for _ in range(150):
                gate = threading.Barrier(size, timeout=SOON)
                futures = [engine.submit(gate.wait, (), {}) for _ in range(size)]
                assert sorted(f.result(SOON) for f in futures) == list(range(size))
    finally:
        sys.setswitchinterval(interval)


def test_submitting_from_many_threads(make):
    """Each call runs once."""
    engine, count = make(4), itertools.count()
    runs: list[int] = []

    def submit():
        for _ in range(300):
            engine.submit(runs.append, (next(count),), {})

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.shutdown(wait=True, cancel=False)
    assert sorted(runs) == list(range(1800))


def test_cancel_and_start_exclude_each_other(make):
    """A call that was cancelled has not run, one that was not has."""
    engine = make(2)
    for _ in range(50):
        runs: list[int] = []
        futures = [engine.submit(runs.append, (n,), {}) for n in range(20)]
        cancelled = {n for n, future in enumerate(futures) if future.cancel()}
        for n, future in enumerate(futures):
            if n not in cancelled:
                future.result(SOON)
        assert set(runs) == set(range(20)) - cancelled
        assert len(runs) == 20 - len(cancelled)


def test_calls_are_taken_back(make):
    """Those that are wanted and that nobody has begun; the others run."""
    engine, go, started = make(1), threading.Event(), threading.Event()

    def first():
        started.set()
        return go.wait(SOON)

    running = engine.submit(first, (), {})
    assert started.wait(SOON)
    waiting = [engine.submit(abs, (-n,), {}) for n in range(10)]
    odd = set(waiting[1::2])
    with engine.lock:
        back = engine.take_back(odd.__contains__)
    go.set()
    assert set(back) == odd
    assert running.result(SOON)
    assert [f.result(SOON) for f in waiting[::2]] == [0, 2, 4, 6, 8]
    assert not any(f.done() for f in back)
    with engine.lock:
        for call in back:
            engine.take(call)
    assert [f.result(SOON) for f in back] == [1, 3, 5, 7, 9]


def test_more_threads_are_allowed_later(make):
    """They start for what waits."""
    engine, gate = make(1), threading.Barrier(5, timeout=SOON)
    futures = [engine.submit(gate.wait, (), {}) for _ in range(5)]
    with engine.lock:
        engine.widen(5)
        engine.widen(2)
    assert engine.max_workers == 5
    assert sorted(f.result(SOON) for f in futures) == list(range(5))


@pytest.mark.parametrize("bad", [1, 2])
def test_an_initializer_fails(make, bad):
    """In the first thread or another: every call ends, and no new one is taken."""
    count = itertools.count(1)
    told: list[BaseException] = []
    gate = threading.Barrier(2, timeout=SOON)

    def initialize(what):
        assert what == "x"
        if next(count) == bad:
            raise ValueError("no")

    def failed(error):
        told.append(error)
        gate.abort()

    engine = make(2, initializer=initialize, initargs=("x",), failed=failed)
    futures = []
    with contextlib.suppress(BrokenError):
        # They meet, so that both threads are wanted.
        futures.extend(engine.submit(gate.wait, (), {}) for _ in range(10))
    errors = [f.exception(SOON) for f in futures]
    assert any(isinstance(error, BrokenError) for error in errors)
    for error in errors:
        assert isinstance(error, (BrokenError, threading.BrokenBarrierError, type(None)))
    assert [type(error.__cause__) for error in told] == [ValueError]
    with pytest.raises(BrokenError) as info:
        engine.submit(abs, (1,), {})
    assert type(info.value.__cause__) is ValueError


def test_a_thread_of_the_pool_runs_what_it_waits_for(make):
    """But not if it waits for a limited time only, and nobody else's thread does."""
    engine = make(1)

    def outer():
        inner = engine.submit(threading.get_ident, (), {})
        with pytest.raises(concurrent.futures.TimeoutError):
            inner.result(0.01)
        return inner.result() == threading.get_ident()

    assert engine.submit(outer, (), {}).result(SOON)


def test_pieces(make):
    """Several calls as one; nothing travels."""
    calls = (4, 2), (1, 0), (9, 3)
    piece = make(1).submit_piece(lambda a, b: a // b, calls, copy_context()).result(SOON)
    values, errors = unpack(piece.packed, piece.buffers)
    assert values == [2, None, 3]
    assert [(offset, type(error)) for offset, error in errors.items()] == [(1, ZeroDivisionError)]


def test_after_a_fork(make):
    """As new: what queued has ended, more can be submitted."""
    engine, go, started = make(1), threading.Event(), threading.Event()

    def first():
        started.set()
        return go.wait(SOON)

    engine.submit(first, (), {})
    assert started.wait(SOON)
    old, lost, called = engine.threads, engine.submit(abs, (1,), {}), []
    lost.add_done_callback(called.append)
    queue = engine.queue
    engine.forget()
    try:
        assert "process that forked" in str(lost.exception(0))
        assert called == []
        assert lost.cancel() is False
        assert engine.submit(abs, (-2,), {}).result(SOON) == 2
    finally:
        # What is not there in a real copy.
        go.set()
        queue.put(None)
        for thread in old:
            thread.join()


def test_an_interrupt_after_shutdown_lets_threads_end(make):
    """Cancelling what is queued does not take out the mark by which busy threads end."""
    engine, go = make(2), threading.Event()
    busy = threading.Barrier(3, timeout=SOON)

    def hold():
        busy.wait()
        return go.wait(SOON)

    futures = [engine.submit(hold, (), {}) for _ in range(2)]
    waiting = engine.submit(abs, (-1,), {})
    busy.wait()
    engine.shutdown(wait=False, cancel=False)
    engine.interrupt()
    go.set()
    assert [future.result(SOON) for future in futures] == [True, True]
    assert waiting.cancelled()
    for thread in list(engine.threads):
        thread.join(SOON)
        assert not thread.is_alive()
