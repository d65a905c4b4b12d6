"""Processes that fork while they look at shared memory: both see what was there, and are alone."""

from __future__ import annotations

import pytest
from helpers.shm import (
    LARGE,
    Child,
    block,
    forks,
    lent,
    sender_and_receiver,
    shown,
)
from helpers.shm import view as array

from parallax._shm import receiver as receiver_module
from parallax._shm.buffers import COPY, READ, WRITE
from parallax._shm.receiver import SlabReceiver

kinds = pytest.mark.parametrize("private", [True, False], ids=["worker", "parent"])


@pytest.mark.sampled(2)
@forks
@kinds
@pytest.mark.parametrize("kernel", ["new", "old"])
def test_forked(monkeypatch, private, kernel):
    """A copy of this process sees what was there, whatever becomes of the slab; both are alone."""
    if kernel == "old":
        monkeypatch.setattr(receiver_module, "populate", lambda *_, **__: False)
    with sender_and_receiver(private=private, keep=0) as (ours, receiver):
        slabs = [lent(ours, seed) for seed in range(2)]
        starts = [slab.extent.start for slab in slabs]
        views = [array(receiver, slab) for slab in slabs]
        views[0][3] = 77
        first = bytearray(block(LARGE))
        first[3] = 77

        def scribble():
            views[0][:] = 5

        with Child(
            lambda: views[0].tobytes() == first and views[1].tobytes() == block(LARGE, 1),
            lambda: views[1].tobytes() == block(LARGE, 1),
            scribble,
            lambda: set(views[0].tolist()) == {5},
            views.clear,
        ) as child:
            assert child.step()
            assert (
                sorted(receiver.take_returns()) == starts
            )  # they are this process's own memory now
            views[1][:] = 9
            slabs.clear()  # the memory of both goes back to the system
            again = [lent(ours, seed + 7) for seed in range(2)]
            assert [slab.extent.start for slab in again] == starts
            assert child.step()
            child.step()
            assert views[0].tobytes() == first
            assert set(views[1]) == {9}
            fresh = [array(receiver, slab) for slab in again]
            assert [v.tobytes() for v in fresh] == [block(LARGE, 7), block(LARGE, 8)]
            fresh[0][:] = 6
            assert child.step()
            child.step()
        assert views[0].tobytes() == first
        assert set(views[1]) == {9}
        assert set(fresh[0]) == {6}
        views.clear()
        assert receiver.take_returns() == []
        del fresh
        assert sorted(receiver.take_returns()) == starts


@forks
@kinds
def test_forked_after_the_end_of_the_lender(private):
    """What a dead worker left is copied as well; then nothing of it is held."""
    with sender_and_receiver(private=private) as (ours, receiver):
        slab = lent(ours)
        view = array(receiver, slab)
        receiver.abandon()
        assert slab.nbytes == LARGE
        with Child(lambda: view.tobytes() == block(LARGE)) as child:
            view[:] = 1
            assert child.step()
        assert receiver._segment.handle == -1
        assert set(view) == {1}


@forks
@pytest.mark.parametrize("mode", [READ, WRITE])
def test_forked_with_what_is_shared_by_name(mode):
    """It is not copied, so it is never given back: nobody tells when the copy has done with it."""
    with sender_and_receiver(private=True) as (ours, receiver):
        slab = shown(ours, 1, mode)
        views = [array(receiver, slab)]
        with Child(lambda: views[0].tobytes() == block(LARGE, 1)) as child:
            views.clear()
            assert receiver.take_returns() == []
            assert child.step()
        views.append(array(receiver, slab))
        views.clear()
        assert receiver.take_returns() == [slab.extent.start]


@forks
def test_a_forked_copy_abandons_nothing():
    """Channels that it closes are its parent's."""
    with sender_and_receiver(private=False) as (ours, receiver):
        slab = lent(ours)
        with Child(receiver.abandon) as child:
            child.step()
        assert array(receiver, slab).tobytes() == block(LARGE)


def test_detached_at_last():
    """A view that ends after it became this process's own memory is not given back again."""
    with sender_and_receiver(private=True) as (ours, receiver):
        assert isinstance(receiver, SlabReceiver)
        slab = lent(ours)
        assert slab.mode == COPY
        view = array(receiver, slab)
        view[0] = 5
        receiver.make_private()
        receiver.make_private()
        assert receiver.take_returns() == [slab.extent.start]
        fresh = array(receiver, slab)
        del view
        assert fresh.tobytes() == block(LARGE)
        del fresh
        assert receiver.take_returns() == [slab.extent.start]


@forks
def test_a_forked_copy_gives_no_memory_away(monkeypatch):
    """Not even where it could not get memory of its own: its parent looks at it."""
    monkeypatch.setattr(receiver_module, "_remap", lambda *_: False)
    monkeypatch.setattr(receiver_module, "MAX_UNREPORTED_BYTES", 0)
    with sender_and_receiver(private=False) as (ours, receiver):
        slabs = [lent(ours, seed) for seed in range(3)]
        views = [array(receiver, slab) for slab in slabs]
        with Child(
            lambda: views.pop() is None, receiver.abandon, lambda: views.pop() is None
        ) as child:
            for _ in range(3):
                child.step()
        assert [view.tobytes() for view in views] == [block(LARGE, seed) for seed in range(3)]
        assert receiver.take_returns() == []
