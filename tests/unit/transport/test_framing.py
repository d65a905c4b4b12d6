"""Frames over a socket pair: whole or not at all, whatever the sizes and the pieces."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading

import pytest
from helpers.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._transport import framing
from parallax._transport.framing import Channel, ProtocolError


@contextlib.contextmanager
def pair(*, blocking=False):
    """A writing end that never blocks, a reading end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(blocking)
    sender, receiver = Channel(ours), Channel(theirs)
    try:
        yield sender, receiver
    finally:
        sender.close()
        receiver.close()


def exchange(sender, receiver, frames):
    """Send frames and receive them by turns in one thread: neither end may block."""
    got = []
    for kind, tag, payload, buffers in frames:
        sender.send(kind, tag, payload, [memoryview(b) for b in buffers])
        got += receiver.receive()
    while sender.unsent:
        got += receiver.receive()
        sender.flush()
    while len(got) < len(frames):
        got += receiver.receive()
    return [(f.kind, f.tag, bytes(f.payload), [bytes(b) for b in f.buffers]) for f in got]


SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from(
        [
            framing.MAX_JOINED_BYTES - 24,
            framing.MAX_JOINED_BYTES,
            framing.MAX_JOINED_BYTES + 1,
            framing.READ_BUFFER_BYTES // 2 - 1,
            framing.READ_BUFFER_BYTES // 2,
            framing.READ_BUFFER_BYTES - 24,
            framing.READ_BUFFER_BYTES - 1,
            framing.READ_BUFFER_BYTES,
            framing.READ_BUFFER_BYTES + 1,
            3 * framing.READ_BUFFER_BYTES + 7,
        ]
    ),
    st.integers(0, 300_000),
)


def block(size, seed):
    return bytes((seed + i) % 251 for i in range(min(size, 251))) * (size // 251 + 1)


#: Frames as (kind, tag, payload's size, buffers' sizes).
SKETCHES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**64 - 1), SIZES, st.lists(SIZES, max_size=3)),
    max_size=6,
)


def drawn(sketches):
    return [
        (kind, tag, block(size, tag % 251)[:size], [block(n, kind)[:n] for n in sizes])
        for kind, tag, size, sizes in sketches
    ]


@settings(max_examples=examples(60), deadline=None)
@given(SKETCHES)
def test_round_trip(sketches):
    """Any frames arrive as they were sent, in order, over a socket that takes part of them."""
    frames = drawn(sketches)
    with pair() as (sender, receiver):
        assert exchange(sender, receiver, frames) == frames


@settings(max_examples=examples(40), deadline=None)
@given(SKETCHES, st.lists(st.sampled_from([1, 7, 23, 24, 25, 5000, 65536, 200_000]), min_size=1))
def test_pieces(sketches, sizes):
    """It does not matter in which pieces the bytes come in."""
    frames = drawn(sketches)
    stream = b"".join(_bytes_of(*frame) for frame in frames)
    with pair() as (sender, receiver):
        got, at = [], 0
        pieces = itertools.chain(sizes, itertools.repeat(200_000))
        while at < len(stream):
            at += sender.sock.send(stream[at : at + next(pieces)])
            got += receiver.receive()
        while len(got) < len(frames):
            got += receiver.receive()
        assert [(f.kind, f.tag, bytes(f.payload), [bytes(b) for b in f.buffers]) for f in got] == (
            frames
        )


def _bytes_of(kind, tag, payload, buffers):
    head = framing._HEADER.pack(framing.MAGIC, kind, 0, len(buffers), tag, len(payload))
    lengths = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    return b"".join((head, lengths, payload, *buffers))


def test_buffers_are_writable():
    """Large parts come in memory of their own that may be written to."""
    with pair() as (sender, receiver):
        sender.send(1, 2, b"p", [memoryview(b"x" * 70_000)])
        (frame,) = receiver.receive()
        frame.buffers[0][0] = 7
        assert frame.buffers[0][:2] == b"\x07x"


@pytest.mark.parametrize(
    "wrong", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 24, b"plx2" + b"\0" * 20]
)
def test_wrong_header(wrong):
    """What is not a frame is refused at its first bytes."""
    with pair() as (sender, receiver):
        sender.sock.send(wrong)
        with pytest.raises(ProtocolError, match="wrong frame header"):
            receiver.receive()


def test_insane_length():
    """A length that cannot be meant is refused instead of asking for the memory."""
    with pair() as (sender, receiver):
        sender.sock.send(framing._HEADER.pack(framing.MAGIC, 1, 0, 0, 0, 1 << 60))
        with pytest.raises(ProtocolError):
            receiver.receive()
    with pair() as (sender, receiver):
        head = framing._HEADER.pack(framing.MAGIC, 1, 0, 1, 0, 1)
        sender.sock.send(head + struct.pack("<Q", 1 << 60))
        with pytest.raises(ProtocolError):
            receiver.receive()


@pytest.mark.parametrize("cut", [1, 23, 24, 30, 70_000, 100_000])
def test_end_in_the_middle_of_a_frame(cut):
    """Whole frames before the end are delivered; the one that was cut never is."""
    with pair() as (sender, receiver):
        sender.send(5, 1, b"whole")
        sender.sock.setblocking(True)
        sender.sock.sendall(_bytes_of(6, 2, b"y" * 50, [b"z" * 100_000])[:cut])
        sender.close()
        got = []
        with pytest.raises(EOFError):
            for _ in range(10):
                got += receiver.receive()
        assert [(f.kind, f.payload) for f in got] == [(5, b"whole")]


def test_end_with_something_unread():
    """An end that resets the connection (it had unread data) does not lose what it said."""
    with pair() as (sender, receiver):
        receiver.send(1, 1, b"never read")
        sender.send(2, 2, b"last words")
        sender.close()
        got = []
        with pytest.raises(EOFError):
            for _ in range(10):
                got += receiver.receive()
        assert [f.payload for f in got] == [b"last words"]


def test_end_at_once():
    """An end without any frame is an EOFError, each time."""
    with pair() as (sender, receiver):
        sender.close()
        for _ in range(2):
            with pytest.raises(EOFError):
                receiver.receive()


def test_nothing_there():
    """A channel that does not block returns no frames if there are none."""
    with pair() as (_, receiver):
        assert receiver.receive() == []


def test_blocking_end_waits_for_a_whole_frame():
    """The worker's end waits until there is one frame at least."""
    with pair(blocking=True) as (sender, receiver):
        got = []
        thread = threading.Thread(target=lambda: got.extend(receiver.receive()))
        thread.start()
        data = _bytes_of(9, 9, b"q" * 100, [])
        for byte in range(len(data)):
            sender.sock.send(data[byte : byte + 1])
        thread.join(5)
        assert [(f.kind, bytes(f.payload)) for f in got] == [(9, b"q" * 100)]


def test_many_frames_in_one_read():
    """A thousand small frames need no thousand system calls to come in."""
    with pair() as (sender, receiver):
        for tag in range(1000):
            sender.send(1, tag, b"small")
        got = []
        while len(got) < 1000:
            sender.flush()
            got += receiver.receive()
        assert [f.tag for f in got] == list(range(1000))


def test_more_buffers_than_one_gather_list_takes():
    """A frame of very many buffers goes out in several system calls."""
    buffers = [bytes([i % 256]) * (i % 50) for i in range(2000)]
    with pair() as (sender, receiver):
        assert exchange(sender, receiver, [(1, 1, b"", buffers)]) == [(1, 1, b"", buffers)]


def test_sending_to_a_closed_end():
    """An end that is gone is an OSError for who sends."""
    with pair() as (sender, receiver):
        receiver.close()
        with pytest.raises(OSError):
            for _ in range(100):
                sender.send(1, 1, b"x" * 100_000)


def test_whole_frames_before_garbage():
    """They are delivered; the error is for the next call, and for whoever looks."""
    with pair() as (sender, receiver):
        sender.send(1, 7, b"good")
        sender.sock.send(b"this is not the header of a frame")
        assert [(f.kind, f.tag) for f in receiver.receive()] == [(1, 7)]
        assert isinstance(receiver.broken, ProtocolError)
        for _ in range(2):
            with pytest.raises(ProtocolError, match="wrong frame header"):
                receiver.receive()


def test_a_frame_beyond_memory():
    """It is refused, where an allocator would promise what there is not."""
    for lengths in ([framing.MAX_PART_BYTES], [1, framing.MAX_PART_BYTES // 2, 1]):
        with pair() as (sender, receiver):
            head = struct.pack("<4sBBHQQ", framing.MAGIC, 1, False, len(lengths) - 1, 7, lengths[0])
            sender.sock.send(head + struct.pack(f"<{len(lengths) - 1}Q", *lengths[1:]))
            with pytest.raises(MemoryError, match="more than the memory there is"):
                receiver.receive()


def test_closing_twice():
    """Closing is idempotent, and a closed channel has no descriptor."""
    with pair() as (sender, _):
        sender.close()
        sender.close()
        assert sender.fileno() == -1
