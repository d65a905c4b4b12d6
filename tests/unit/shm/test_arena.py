"""The one store of this process: made when it is needed, gone when nobody needs it."""

from __future__ import annotations

import gc
import threading

import pytest
from helpers.shm import Child, block, forks, held, linux

from parallax._shm import arena
from parallax._shm.allocator import GRAIN


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nothing of the warm pool's, which may live from test to test."""
    for name in ("_made", "_trimmers", "_refused"):
        monkeypatch.setattr(arena, name, [])
    yield
    arena.forget()


def trimming():
    """The thread that waits to trim, if there is one."""
    return arena._trimmers[-1]._thread


def test_one():
    """Whoever asks gets the same, which has nothing to say about why there is none."""
    lender = arena.arena()
    assert lender is not None
    assert arena.arena() is lender
    assert arena.refusal() is None


def test_refused(monkeypatch):
    """A system that has none is asked once; the reason is kept until all begins anew."""
    asked = []

    def refuse():
        asked.append(1)
        raise OSError("none here")

    with monkeypatch.context() as patch:
        patch.setattr(arena, "make_store", refuse)
        assert arena.arena() is None
        assert arena.arena() is None
    assert asked == [1]
    assert str(arena.refusal()) == "none here"
    arena.release()
    arena.forget()
    assert arena.arena() is not None
    assert arena.refusal() is None


@pytest.mark.parametrize("again", [False, True])
def test_released(again):
    """It goes with the last slab, unless somebody asked for it meanwhile."""
    lender = arena.arena()
    slabs = [lender.put(memoryview(block(GRAIN, n))) for n in range(2)]
    arena.release()
    slabs.pop()
    assert lender.store.handle >= 0
    if again:
        assert arena.arena() is lender
    slabs.pop()
    assert (lender.store.handle >= 0) is again
    assert (arena.arena() is lender) is again


def test_released_with_nothing_in_use():
    """It goes at once; the next one is new."""
    lender = arena.arena()
    lender.put(memoryview(block(GRAIN)))
    arena.release()
    arena.release()
    assert lender.store.handle == -1
    assert arena.arena() is not lender


def test_released_by_the_collector():
    """Its last slab may end at any moment, also while it is asked for."""
    lender = arena.arena()
    cycle = [lender.put(memoryview(block(GRAIN)))]
    cycle.append(cycle)
    arena.release()
    del cycle
    with arena._lock:
        gc.collect()
    assert lender.store.handle == -1
    assert arena.arena() is not None


@linux
def test_much_is_kept_for_a_while(monkeypatch):
    """By a thread that then gives it back; little needs no thread."""
    monkeypatch.setattr(arena, "LINGER", 60)
    monkeypatch.setattr(arena, "KEEP", 2 * GRAIN)
    lender = arena.arena()
    lender._keep = 2 * GRAIN
    lender.put(memoryview(block(GRAIN)))
    assert trimming() is None
    lender.put(memoryview(block(9 * GRAIN)))
    thread = trimming()
    assert thread.is_alive()
    assert thread.name.startswith("parallax-pool")
    assert held(lender.store) == 10 * GRAIN
    arena._trimmers[-1].over.set()
    thread.join(10)
    assert not thread.is_alive()
    assert held(lender.store) <= 2 * GRAIN
    assert trimming() is None


@linux
def test_the_trimmer_ends_with_the_pool(monkeypatch):
    """It waits for nothing then."""
    monkeypatch.setattr(arena, "LINGER", 60)
    lender = arena.arena()
    lender._keep = 0
    slab = lender.put(memoryview(block(GRAIN)))
    thread = trimming()
    arena.release()
    thread.join(10)
    assert not thread.is_alive()
    assert lender.store.handle >= 0
    del slab
    assert lender.store.handle == -1


@forks
def test_forked():
    """A copy of this process has none of it, even if a thread held the lock, and makes its own."""
    lender = arena.arena()
    slab = lender.put(memoryview(block(GRAIN)))

    def own():
        other = arena.arena()
        assert other is not lender
        assert lender.store.handle == -1
        return other.put(memoryview(block(GRAIN))) is not None

    entered, leave = threading.Event(), threading.Event()

    def hold():
        with arena._lock:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    with Child(own) as child:
        leave.set()
        assert child.step()
    thread.join(10)
    assert arena.arena() is lender
    assert slab is not None
