"""The one segment of this process: made when it is needed, gone when nobody needs it."""

from __future__ import annotations

import gc
import threading

import pytest
from helpers.shm import Child, block, forks, held, linux

from parallax._shm import arena
from parallax._shm.allocator import GRAIN_BYTES


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nothing of the warm pool's, which may live from test to test."""
    for name in ("_senders", "_trimmers", "_refused"):
        monkeypatch.setattr(arena, name, [])
    yield
    arena.reset()


def trimming():
    """The thread that waits to trim, if there is one."""
    return arena._trimmers[-1]._thread


def test_one():
    """Whoever asks gets the same, which has nothing to say about why there is none."""
    slab_sender = arena.arena_sender()
    assert slab_sender is not None
    assert arena.arena_sender() is slab_sender
    assert arena.unavailable_reason() is None


def test_refused(monkeypatch):
    """A system that has none is asked once; the reason is kept until all begins anew."""
    asked = []

    def refuse():
        asked.append(1)
        raise OSError("none here")

    with monkeypatch.context() as patch:
        patch.setattr(arena, "create_segment", refuse)
        assert arena.arena_sender() is None
        assert arena.arena_sender() is None
    assert asked == [1]
    assert str(arena.unavailable_reason()) == "none here"
    arena.release_when_unused()
    arena.reset()
    assert arena.arena_sender() is not None
    assert arena.unavailable_reason() is None


@pytest.mark.parametrize("again", [False, True])
def test_released(again):
    """It goes with the last slab, unless somebody asked for it meanwhile."""
    slab_sender = arena.arena_sender()
    slabs = [slab_sender.put(memoryview(block(GRAIN_BYTES, n))) for n in range(2)]
    arena.release_when_unused()
    slabs.pop()
    assert slab_sender.segment.handle >= 0
    if again:
        assert arena.arena_sender() is slab_sender
    slabs.pop()
    assert (slab_sender.segment.handle >= 0) is again
    assert (arena.arena_sender() is slab_sender) is again


def test_released_with_nothing_in_use():
    """It goes at once; the next one is new."""
    slab_sender = arena.arena_sender()
    slab_sender.put(memoryview(block(GRAIN_BYTES)))
    arena.release_when_unused()
    arena.release_when_unused()
    assert slab_sender.segment.handle == -1
    assert arena.arena_sender() is not slab_sender


def test_released_by_the_collector():
    """Its last slab may end at any moment, also while it is asked for."""
    slab_sender = arena.arena_sender()
    cycle = [slab_sender.put(memoryview(block(GRAIN_BYTES)))]
    cycle.append(cycle)
    arena.release_when_unused()
    del cycle
    with arena._lock:
        gc.collect()
    assert slab_sender.segment.handle == -1
    assert arena.arena_sender() is not None


@linux
def test_much_is_kept_for_a_while(monkeypatch):
    """By a thread that then gives it back; little needs no thread."""
    monkeypatch.setattr(arena, "SURPLUS_KEPT_S", 60)
    monkeypatch.setattr(arena, "KEPT_FREE_BYTES", 2 * GRAIN_BYTES)
    slab_sender = arena.arena_sender()
    slab_sender._keep = 2 * GRAIN_BYTES
    slab_sender.put(memoryview(block(GRAIN_BYTES)))
    assert trimming() is None
    slab_sender.put(memoryview(block(9 * GRAIN_BYTES)))
    thread = trimming()
    assert thread.is_alive()
    assert thread.name.startswith("parallax-pool")
    assert held(slab_sender.segment) == 10 * GRAIN_BYTES
    arena._trimmers[-1].over.set()
    thread.join(10)
    assert not thread.is_alive()
    assert held(slab_sender.segment) <= 2 * GRAIN_BYTES
    assert trimming() is None


@linux
def test_the_trimmer_ends_with_the_pool(monkeypatch):
    """It waits for nothing then."""
    monkeypatch.setattr(arena, "SURPLUS_KEPT_S", 60)
    slab_sender = arena.arena_sender()
    slab_sender._keep = 0
    slab = slab_sender.put(memoryview(block(GRAIN_BYTES)))
    thread = trimming()
    arena.release_when_unused()
    thread.join(10)
    assert not thread.is_alive()
    assert slab_sender.segment.handle >= 0
    del slab
    assert slab_sender.segment.handle == -1


@forks
def test_forked():
    """A copy of this process has none of it, even if a thread held the lock, and makes its own."""
    slab_sender = arena.arena_sender()
    slab = slab_sender.put(memoryview(block(GRAIN_BYTES)))

    def own():
        other = arena.arena_sender()
        assert other is not slab_sender
        assert slab_sender.segment.handle == -1
        return other.put(memoryview(block(GRAIN_BYTES))) is not None

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
    assert arena.arena_sender() is slab_sender
    assert slab is not None
