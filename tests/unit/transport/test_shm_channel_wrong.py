"""Wrong tables and notes are a ProtocolError: nothing else is shown and nothing else is raised."""

from __future__ import annotations

import struct

import pytest
from helpers.effort import examples
from helpers.shm import block, move, pair, views
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._shm.buffers import COPY, MIN_SHARED_BYTES, READ
from parallax._shm.segment import PAGE_BYTES
from parallax._transport.framing import ProtocolError
from parallax._transport.shm_channel import SLABS_RETURNED


@settings(max_examples=examples(80), deadline=None)
@given(st.data())
def test_wrong_tables(data):
    """They are a ProtocolError: no other memory is shown, and nothing else is raised."""
    edges = st.sampled_from([0, 1, PAGE_BYTES, MIN_SHARED_BYTES, 1 << 26, 1 << 63, (1 << 64) - 1])
    with pair() as (parent, worker):
        slab = parent.sender.put(memoryview(block(MIN_SHARED_BYTES)))
        good = list(slab.ref())
        wrong = list(good)
        wrong[data.draw(st.integers(0, 5))] = data.draw(edges | st.integers(0, (1 << 64) - 1))
        table = struct.pack("<12Q", *good, *wrong)
        parent.channel.send(1, 0, b"", views(table), has_table=True)
        try:
            (frame,) = worker.channel.receive()
        except ProtocolError:
            return
        payload, (buffer,) = frame.open()
        assert bytes(payload) == block(MIN_SHARED_BYTES)
        if wrong[1]:  # another place in the same window
            window, _ = parent.sender.mapping(slab.extent)
            start = wrong[3] - wrong[0]
            assert bytes(buffer) == window[start : start + wrong[4]]
            assert wrong[4] <= wrong[1] <= parent.sender.segment.size()
        else:
            pytest.fail("a buffer that is not there")


GOOD = struct.pack("<6Q", 0, 1 << 26, 0, 0, MIN_SHARED_BYTES, COPY)


@pytest.mark.parametrize(
    ("payload", "buffers"),
    [
        (b"", [b""]),
        (b"", [b"x" * 47]),
        (b"", [b"x" * 49]),
        (b"", [GOOD + b"x"]),
        (b"", [GOOD + bytes(48)]),  # it says that one follows
        (b"", [GOOD, b"not in the table"]),
        (b"payload", [bytes(48), b"not in the table"]),
        (b"payload", [bytes(96)]),
        (b"", [struct.pack("<6Q", 0, 1 << 26, 0, 0, MIN_SHARED_BYTES, 3)]),
        (b"", [struct.pack("<6Q", 0, 1 << 40, 0, 0, MIN_SHARED_BYTES, READ)]),
        (b"", [struct.pack("<6Q", 0, 1 << 26, 0, (1 << 26) - 8, 9, READ)]),
        (b"", [struct.pack("<6Q", 1 << 20, 1 << 20, 0, 0, 9, READ)]),
        (b"", [struct.pack("<6Q", 0, 1 << 26, 0, 5, 9, COPY)]),
        (b"", [struct.pack("<6Q", 0, 1 << 26, 1, 4096, 9, COPY)]),
    ],
)
def test_tables_that_cannot_be(payload, buffers):
    """Too short, too long, more or fewer parts than follow, outside of its window."""
    with pair() as (parent, worker):
        parent.sender.put(memoryview(b"x"))  # there is a window
        parent.channel.send(1, 1, b"whole")
        parent.channel.send(1, 0, payload, views(*buffers), has_table=True)
        (frame,) = worker.channel.receive()
        assert frame.payload == b"whole"
        for _ in range(2):
            with pytest.raises(ProtocolError):
                worker.channel.receive()


@pytest.mark.parametrize(
    "wrong",
    [
        struct.pack("<Q", 1 << 20),
        struct.pack("<Q", (1 << 64) - 1),
        struct.pack("<2Q", 0, 0),  # one more than it was lent
        struct.pack("<Q", 0) + b"x",
        b"abc",
    ],
)
def test_wrong_notes(wrong):
    """What was never lent cannot be given back; the frames before that are delivered."""
    with pair() as (parent, worker):
        frame = move(parent, worker, 1, 0, block(MIN_SHARED_BYTES))
        worker.channel.send(1, 1, b"whole", hold=True)
        worker.channel.send(SLABS_RETURNED, 0, wrong, hold=True)
        worker.channel.send(1, 2, b"too late")
        assert [f.payload for f in parent.channel.receive()] == [b"whole"]
        assert isinstance(parent.channel.broken, ProtocolError)
        for _ in range(2):
            with pytest.raises(ProtocolError):
                parent.channel.receive()
        del frame


def test_any_notes():
    """Whatever bytes come as a note, it is taken or it is a ProtocolError."""

    @settings(max_examples=examples(50), deadline=None)
    @given(st.binary(max_size=40))
    def check(note):
        with pair() as (parent, worker):
            worker.channel.send(SLABS_RETURNED, 0, note)
            try:
                assert parent.channel.receive() == []
            except ProtocolError:
                assert note
            else:
                assert not note

    check()
