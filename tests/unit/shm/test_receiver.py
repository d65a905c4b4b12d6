"""The receiver's side of shared memory: views are right, one's own, and given back once."""

from __future__ import annotations

import errno
import gc
import sys

import numpy as np
import pytest
from helpers.shm import (
    LARGE,
    TaggedSegment,
    block,
    content,
    elsewhere,
    failing,
    held,
    lent,
    linux,
    sender_and_receiver,
    shown,
)
from helpers.shm import view as array

from parallax._shm import receiver as receiver_module
from parallax._shm.allocator import GRAIN_BYTES
from parallax._shm.buffers import MIN_SHARED_BYTES, READ, WRITE
from parallax._shm.segment import PAGE_BYTES, round_to_pages

kinds = pytest.mark.parametrize("private", [True, False], ids=["worker", "parent"])


# -- views -------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("nbytes", [1, PAGE_BYTES, MIN_SHARED_BYTES - 1, MIN_SHARED_BYTES, LARGE])
def test_views(private, nbytes):
    """They show what was lent, can be written to, and come back when the last array is gone."""
    with sender_and_receiver(private=private) as (ours, receiver):
        slab = lent(ours, 3, nbytes)
        view = array(receiver, slab)
        part = view[: nbytes // 2 + 1][::-1]
        assert view.tobytes() == block(nbytes, 3)
        view[0] = 99
        assert part[-1] == 99
        copied = not private and nbytes < MIN_SHARED_BYTES
        assert receiver.take_returns() == [slab.extent.start] * copied
        del view
        assert receiver.take_returns() == []
        assert part[-1] == 99
        del part
        assert receiver.take_returns() == [slab.extent.start] * (not copied)
        assert receiver.take_returns() == []


@pytest.mark.parametrize("way", ["usual", "old kernel", "elsewhere", "tags"])
def test_what_a_worker_writes_is_its_own(monkeypatch, way):
    """It reaches neither the segment nor a second view nor one that is made later."""
    if way == "old kernel":
        monkeypatch.setattr(receiver_module, "populate", lambda *_, **__: False)
    elif way != "usual":
        elsewhere(monkeypatch)
    with sender_and_receiver(private=True, segment=TaggedSegment() if way == "tags" else None) as (
        ours,
        receiver,
    ):
        other = lent(ours, 6, GRAIN_BYTES)  # so that the slab does not begin its window
        slab = lent(ours, 3)
        one, two = array(receiver, slab), array(receiver, slab)
        one[:] = 1
        two[:] = 2
        assert set(one) == {1}
        assert set(two) == {2}
        assert content(ours, slab) == block(LARGE, 3)
        del one
        three = array(receiver, slab)
        assert three.tobytes() == block(LARGE, 3)
        three[:] = 3
        assert set(two) == {2}
        del two, three
        assert receiver.take_returns() == [slab.extent.start] * 3
        assert array(receiver, slab).tobytes() == block(LARGE, 3)
        assert array(receiver, other).tobytes() == block(GRAIN_BYTES, 6)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("way", ["usual", "elsewhere", "tags"])
def test_used_again(monkeypatch, private, way):
    """A slab that came back and holds something else shows that, also what was written to."""
    if way != "usual":
        elsewhere(monkeypatch)
    tagged = TaggedSegment() if way == "tags" else None
    with sender_and_receiver(private=private, segment=tagged) as (ours, receiver):
        for seed in range(4):
            slab = lent(ours, seed)
            view = array(receiver, slab)
            assert view.tobytes() == block(LARGE, seed)
            view[:] = 7
            del view, slab
            if seed == 2:
                ours.trim(0)
        assert {start & ~1 for start in receiver.take_returns()} == {0}


def test_parts_of_a_slab():
    """Each is a view of its own, and a slab is told as often as it has parts."""
    sizes = [MIN_SHARED_BYTES + 1, 3, MIN_SHARED_BYTES + PAGE_BYTES]
    with sender_and_receiver(private=True) as (ours, receiver):
        slab = ours.put(*(memoryview(block(n, n)) for n in sizes))
        views, at = [], 0
        for nbytes in sizes:
            views.append(np.frombuffer(receiver.view(slab.ref(at, nbytes)), np.uint8))
            at += round_to_pages(nbytes)
        for view, nbytes in zip(views, sizes, strict=True):
            assert view.tobytes() == block(nbytes, nbytes)
        views[0][:] = 0
        del view
        views.pop(0)
        assert [v.tobytes() for v in views] == [block(n, n) for n in sizes[1:]]
        views.clear()
        assert receiver.take_returns() == [slab.extent.start] * 3


@pytest.mark.parametrize("private", [True, False])
def test_what_is_shared_by_name(private):
    """ "r" is read-only, with "rw" both ends write to the same memory; small ones, too."""
    with sender_and_receiver(private=private) as (ours, receiver):
        reading, writing = shown(ours, 1, READ), shown(ours, 2, WRITE)
        part = np.frombuffer(receiver.view(writing.ref(5, 10)), np.uint8)
        read, write = array(receiver, reading), array(receiver, writing)
        assert read.tobytes() == block(LARGE, 1)
        assert not read.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            read[0] = 1
        write[7] = 200
        assert content(ours, writing)[7] == part[2] == 200
        window, offset = ours.mapping(writing.extent)
        window[offset + 8] = 201
        assert write[8] == part[3] == 201
        empty = np.frombuffer(receiver.view(writing.ref(LARGE, 0)), np.uint8)
        assert empty.size == 0
        del read, write, part, empty
        assert (
            sorted(receiver.take_returns()) == [reading.extent.start] + [writing.extent.start] * 3
        )
        assert content(ours, writing)[7:9] == bytes([200, 201])


@kinds
def test_nobody_looked(private):
    """What is refused is given back once."""
    with sender_and_receiver(private=private) as (ours, receiver):
        slab = lent(ours)
        receiver.give_back(slab.ref())
        assert receiver.take_returns() == [slab.extent.start]
        assert bytes(receiver.copy(slab.ref())) == block(LARGE)
        assert receiver.take_returns() == [slab.extent.start]


@kinds
def test_everything_else_is_gone(private):
    """A view shows the right values after its receiver, slab_sender and segment are collected."""
    with sender_and_receiver(private=private) as (ours, receiver):
        slabs = [lent(ours, seed) for seed in range(3)]
        views = [array(receiver, slab) for slab in slabs]
        kept = views[1][5:]
        del views
        receiver.abandon()
    del slabs, ours, receiver
    gc.collect()
    assert kept.tobytes() == block(LARGE, 1)[5:]
    kept[:] = 1
    assert set(kept) == {1}


@kinds
@pytest.mark.parametrize("way", ["no mapping", "no ctypes"])
def test_copies_where_views_cannot_be_had(monkeypatch, private, way):
    """The data comes nevertheless, and is given back at once."""
    with sender_and_receiver(private=private) as (ours, receiver):
        slab = lent(ours, 4)
        if way == "no ctypes":
            monkeypatch.setitem(sys.modules, "ctypes", None)
        else:
            monkeypatch.setattr(receiver._segment, "map", failing(OSError(errno.ENOMEM, "no room")))
        view = receiver.view(slab.ref())
        assert view == block(LARGE, 4)
        view[0] = 1
        assert receiver.take_returns() == [slab.extent.start]
        del view
        assert receiver.take_returns() == []


# -- the end of a sender -----------------------------------------------------------------------


@linux
def test_abandoned():
    """Of what a worker left only what is in use stays, and goes with its last view."""
    with sender_and_receiver(private=False) as (ours, receiver):
        slabs = [lent(ours, seed) for seed in range(6)]
        size, whole = round_to_pages(LARGE), held(ours.segment)
        views = {seed: array(receiver, slabs[seed]) for seed in (0, 3, 4)}
        assert held(ours.segment) == whole > 6 * size
        receiver.abandon()
        receiver.abandon()
        for left in (3, 2, 1):
            assert held(ours.segment) == left * size
            assert receiver._segment.handle >= 0
            assert [v.tobytes() for v in views.values()] == [block(LARGE, n) for n in views]
            views.popitem()
        assert held(ours.segment) == 0
        assert receiver._segment.handle == -1


@kinds
def test_abandoned_with_nothing_in_use(private):
    """Its segment is closed at once, and what comes too late is an error, not other memory."""
    with sender_and_receiver(private=private) as (ours, receiver):
        slab = lent(ours)
        receiver.abandon()
        assert receiver._segment.handle == -1
        with pytest.raises(OSError):
            receiver.view(slab.ref())
        with pytest.raises(OSError):
            receiver.copy(slab.ref())


def test_abandoned_but_something_is_in_use():
    """The memory of other slabs is gone then: zeros must not be shown for it."""
    with sender_and_receiver(private=False) as (ours, receiver):
        slabs = [lent(ours, seed) for seed in range(2)]
        view = array(receiver, slabs[0])
        receiver.abandon()
        with pytest.raises(OSError):
            receiver.view(slabs[1].ref())
        assert view.tobytes() == block(LARGE)


@linux
def test_abandoned_in_a_cycle():
    """Views keep the rest of it going that gives their memory back, until they end."""
    with sender_and_receiver(private=False) as (ours, receiver):
        slab = lent(ours)
        view = array(receiver, slab)
        receiver.abandon()
        del receiver
        gc.collect()
        assert held(ours.segment) == round_to_pages(LARGE)
        del view
        assert held(ours.segment) == 0


@linux
def test_little_waits_for_its_lender(monkeypatch):
    """More goes to the system before the slab_sender hears of it; the note says so."""
    monkeypatch.setattr(receiver_module, "MAX_UNREPORTED_BYTES", 2 * LARGE)
    with sender_and_receiver(private=False) as (ours, receiver):
        slabs = [lent(ours, seed) for seed in range(4)]
        views = [array(receiver, slab) for slab in slabs]
        before = held(ours.segment)
        views.clear()
        assert held(ours.segment) == before - 2 * round_to_pages(LARGE)
        notes = receiver.take_returns()
        assert sorted(note & ~1 for note in notes) == [slab.extent.start for slab in slabs]
        gone = [note & ~1 for note in notes if note & 1]
        assert len(gone) == 2
        for slab in slabs:
            assert (not any(content(ours, slab))) == (slab.extent.start in gone)


def test_memory_stays_for_another_view(monkeypatch):
    """What goes to the system is what nobody looks at."""
    monkeypatch.setattr(receiver_module, "MAX_UNREPORTED_BYTES", 0)
    with sender_and_receiver(private=False) as (ours, receiver):
        slab = lent(ours)
        one, two = array(receiver, slab), array(receiver, slab)
        del one
        assert two.tobytes() == block(LARGE)
        del two
        assert receiver.take_returns() == [slab.extent.start, slab.extent.start + 1]
