"""Frames whose large parts go through shared memory: the same content, and nothing stays lent."""

from __future__ import annotations

import errno
import logging
import os
import socket

import numpy as np
import pytest
from helpers.effort import examples
from helpers.shm import block, failing, held, linux, move, opened, pair, settle, views
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._shm import receiver as _receiver
from parallax._shm import registry
from parallax._shm.buffers import MIN_SHARED_BYTES, WRITE, SlabRef
from parallax._shm.dedup import Deduplicator
from parallax._shm.segment import PAGE_BYTES
from parallax._transport import shm_channel
from parallax._transport.framing import Channel, ProtocolError
from parallax._transport.shm_channel import MIN_PACKED_BYTES, SharedFrame, SharedMemoryChannel

FULL = OSError(errno.ENOSPC, "No space left on device")

EDGES = [
    0,
    1,
    MIN_PACKED_BYTES - 1,
    MIN_PACKED_BYTES,
    PAGE_BYTES + MIN_PACKED_BYTES,
    MIN_SHARED_BYTES - 1,
    MIN_SHARED_BYTES,
    MIN_SHARED_BYTES + 1,
    2 * MIN_SHARED_BYTES + PAGE_BYTES,
]
SIZES = st.one_of(st.sampled_from(EDGES), st.integers(0, 2 * MIN_SHARED_BYTES))
FRAMES = st.tuples(SIZES, st.lists(SIZES, max_size=5))


# -- round trips -------------------------------------------------------------------------------


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), FRAMES), min_size=1, max_size=8))
def test_round_trip(steps):
    """Any frames in both directions, kept or dropped: they arrive, and all comes back at last."""
    with pair() as (parent, worker):
        kept = []
        for tag, (down, keep, (size, sizes)) in enumerate(steps):
            sender, receiver = (parent, worker) if down else (worker, parent)
            payload = block(size, tag)
            buffers = [block(n, tag + i) for i, n in enumerate(sizes)]
            frame = move(sender, receiver, 7, tag, payload, views(*buffers))
            assert (frame.kind, frame.tag) == (7, tag)
            assert frame.nbytes == size + sum(sizes)
            got = frame.open()
            assert (bytes(got[0]), [bytes(b) for b in got[1]]) == (payload, buffers)
            for buffer in got[1]:
                buffer[:1] = b"\xff"[: len(buffer)]  # it is the receiver's own
            if keep:
                kept.append((got, payload, buffers))
            del frame, got
        for got, payload, buffers in kept:
            assert bytes(got[0]) == payload
            expected = [b"\xff"[: len(b)] + b[1:] for b in buffers]
            assert [bytes(b) for b in got[1]] == expected
        kept.clear()
        got = buffer = None
        settle(parent, worker)
        assert parent.used == worker.used == 0


def test_small_frames_are_as_they_were():
    """Nothing is added to a frame without large parts."""
    with pair() as (parent, worker):
        ours, theirs = socket.socketpair()
        plain, other = Channel(ours), Channel(theirs)
        for channel in (plain, parent.channel):
            channel.send(1, 2, b"p" * 9000, views(b"b" * (MIN_PACKED_BYTES - 1), b""))
        alike, frames = (
            end.recv(1 << 16, socket.MSG_PEEK) for end in (theirs, worker.channel.sock)
        )
        assert alike == frames
        (frame,) = worker.channel.receive()
        assert not isinstance(frame, SharedFrame)
        plain.close()
        other.close()


def test_middle_sized_buffers_share_a_slab():
    """It is free when all of them have come back."""
    blocks = [block(MIN_SHARED_BYTES // 4, n) for n in range(6)] + [block(MIN_PACKED_BYTES - 1)]
    with pair() as (parent, worker):
        frame = move(parent, worker, 1, 0, b"payload", views(*blocks))
        slabs = {part.slab for part in frame._parts if isinstance(part, SlabRef)}
        assert len(slabs) == 1
        payload, buffers = frame.open()
        assert bytes(payload) == b"payload"
        assert [bytes(b) for b in buffers] == blocks
        while len(buffers) > 2:
            buffers.pop()
            settle(worker, parent)
            assert parent.used > 0
        buffers.clear()
        settle(worker, parent)
        assert parent.used == 0


# -- giving back -------------------------------------------------------------------------------


def test_notes_go_along():
    """With the next frame; who receives sees that frame only."""
    with pair() as (parent, worker):
        opened(move(parent, worker, 1, 0, block(MIN_SHARED_BYTES)))
        assert parent.used > 0
        assert opened(move(worker, parent, 2, 5, b"answer")) == (b"answer", [])
        assert parent.used == 0


def test_never_opened():
    """A parcel that is dropped, or whose opening fails, gives all of it back."""
    with pair() as (parent, worker):
        move(parent, worker, 1, 0, block(MIN_SHARED_BYTES), views(block(MIN_SHARED_BYTES, 1)))
        settle(worker, parent)
        assert parent.used == 0

        frame = move(
            parent, worker, 1, 0, block(MIN_SHARED_BYTES), views(*[block(MIN_SHARED_BYTES, 1)] * 3)
        )
        receiver, calls = worker.channel._receiver, []
        view = receiver.view

        def third_fails(ref):
            calls.append(ref)
            if len(calls) == 3:
                raise MemoryError
            return view(ref)

        receiver.view = third_fails
        with pytest.raises(MemoryError):
            frame.open()
        del frame, receiver.view
        settle(worker, parent)
        assert parent.used == 0
        assert len(calls) == 3


@pytest.mark.parametrize("waiting", [0, 2 * MIN_SHARED_BYTES])
def test_memory_that_went_to_the_system(monkeypatch, waiting):
    """What the parent gave away itself its worker does not take for memory that is there."""
    monkeypatch.setattr(_receiver, "MAX_UNREPORTED_BYTES", waiting)
    with pair() as (parent, worker):
        for seed in range(4):
            blocks = [block(MIN_SHARED_BYTES + 1, seed + n) for n in range(3)]
            assert opened(move(worker, parent, 1, 0, b"", views(*blocks))) == (b"", blocks)
            settle(parent, worker)
            assert worker.used == 0
            assert worker.sender.extents.free_resident_bytes <= waiting + MIN_SHARED_BYTES
            assert held(worker.sender.segment) >= worker.sender.extents.free_resident_bytes


@linux
def test_closed():
    """What was lent comes back, what is borrowed stays as long as it is looked at."""
    with pair(keep=0) as (parent, worker):
        result = move(
            worker, parent, 1, 0, b"", views(block(MIN_SHARED_BYTES, 3), block(MIN_SHARED_BYTES, 4))
        ).open()
        move(parent, worker, 1, 0, b"", views(block(MIN_SHARED_BYTES)))
        parent.channel.close()
        parent.channel.close()
        assert parent.used == 0
        assert held(parent.sender.segment) == 0
        assert [bytes(b) for b in result[1]] == [
            block(MIN_SHARED_BYTES, 3),
            block(MIN_SHARED_BYTES, 4),
        ]
        result[1].pop()
        assert held(worker.sender.segment) == MIN_SHARED_BYTES
        result[1].clear()
        assert held(worker.sender.segment) == 0
        with pytest.raises(OSError):
            os.fstat(parent.channel._segment.handle)


def test_opened_after_the_end():
    """A parcel that comes to be opened after its channel is closed is an error, not zeros."""
    with pair() as (parent, worker):
        frame = move(worker, parent, 1, 0, block(MIN_SHARED_BYTES, 3))
        parent.channel.close()
        with pytest.raises(OSError):
            frame.open()


# -- what is sent several times ----------------------------------------------------------------


def test_kept():
    """A call's own data is written once for all workers, and stays until it is let go."""
    blocks = [
        block(MIN_SHARED_BYTES, 1),
        block(MIN_SHARED_BYTES // 2, 2),
        block(MIN_SHARED_BYTES // 2, 3),
        block(10),
    ]
    kept = {}
    with pair() as (parent, worker):
        for _ in range(3):
            frame = move(parent, worker, 1, 0, block(MIN_SHARED_BYTES), views(*blocks), kept=kept)
            assert opened(frame) == (block(MIN_SHARED_BYTES), blocks)
            assert sorted(kept) == [-1, 0]
            used = parent.used
        assert used == 2 * MIN_SHARED_BYTES
        assert parent.channel.has_sent(kept[0])
        del frame
        settle(worker, parent)
        assert not parent.channel.has_sent(kept[0])
        assert parent.used == used
        kept.clear()
        assert parent.used == 0


def test_repeats():
    """A buffer that comes again lies in the same slab; the payload is always new."""
    with pair() as (parent, worker):
        dedup = Deduplicator(parent.sender)
        array, other = (
            np.frombuffer(bytearray(block(MIN_SHARED_BYTES)), np.uint8),
            block(MIN_SHARED_BYTES, 2),
        )
        got = []
        for _ in range(3):
            parts = [memoryview(array), memoryview(other)]
            got.append(move(parent, worker, 1, 0, other, parts, dedup=dedup))
        slabs = [[part.slab for part in frame._parts] for frame in got]
        assert [len(set(places)) for places in zip(*slabs, strict=True)] == [3, 1, 1]
        assert [opened(frame) for frame in got] == [(other, [array.tobytes(), other])] * 3
        got.clear()
        settle(worker, parent)
        assert parent.used == 2 * MIN_SHARED_BYTES
        dedup.clear()
        assert parent.used == 0


def test_shared_by_name():
    """Nothing is copied of what lies in shared memory, however small the part."""
    with pair() as (parent, worker):
        slab = parent.sender.reserve(MIN_SHARED_BYTES, WRITE)
        memory = registry.expose(parent.sender, slab, readonly=False)
        kept = {}
        frame = move(parent, worker, 1, 0, b"", [memory[100:110], memory], kept=kept)
        _, (part, whole) = frame.open()
        part[3] = 9
        assert memory[103] == whole[103] == 9
        assert kept == {0: slab, 1: slab}
        kept.clear()
        del frame, part, whole, memory, slab
        assert parent.used == MIN_SHARED_BYTES
        settle(worker, parent)
        assert parent.used == 0


# -- without shared memory ---------------------------------------------------------------------


def test_no_stores():
    """A worker that has none is sent everything through the socket, and answers so."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    asked = []
    parent = SharedMemoryChannel(
        ours, waits=False, sender=lambda: asked.append(1), segment=None, private=False
    )
    worker = SharedMemoryChannel(theirs, sender=lambda: None, segment=None, private=True)
    data = block(3 * MIN_SHARED_BYTES)
    for sender, receiver in ((parent, worker), (worker, parent)):
        sender.send(1, 2, data, views(data, b""), kept={})
        got = []
        while not got:
            sender.flush()
            got = receiver.receive()
        assert opened(got[0]) == (data, [data, b""])
        sender.return_slabs()
        sender.trim()
        assert not sender.has_free_memory
    assert asked == [1]
    parent.send(1, 0, b"", views(bytes(48)), has_table=True)
    with pytest.raises(ProtocolError, match="not mapped here"):
        worker.receive()
    parent.close()
    worker.close()


@pytest.mark.parametrize("sender", ["parent", "worker"])
def test_no_room(monkeypatch, caplog, sender):
    """The data goes through the socket, and the parent says so once."""
    monkeypatch.setattr(shm_channel, "_warned", False)
    with pair() as (parent, worker), caplog.at_level(logging.WARNING, "parallax"):
        ends = (parent, worker) if sender == "parent" else (worker, parent)
        monkeypatch.setattr(ends[0].sender.segment, "write", failing(FULL))
        blocks = [block(MIN_SHARED_BYTES, 1), *(block(MIN_SHARED_BYTES // 3, n) for n in range(3))]
        for _ in range(2):
            frame = move(*ends, 1, 0, block(MIN_SHARED_BYTES), views(*blocks))
            assert opened(frame) == (block(MIN_SHARED_BYTES), blocks)
        assert ends[0].used == 0
        assert len(caplog.records) == 1
        assert "goes through sockets" in caplog.text
