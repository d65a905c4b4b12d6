"""What the tests of shared memory have in common: senders, receivers, segments of other systems."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import socket
import sys
import threading
import warnings

import numpy as np
import pytest

from parallax._shm import receiver as _receiver
from parallax._shm import segment
from parallax._shm import sender as _sender
from parallax._shm.buffers import MIN_SHARED_BYTES
from parallax._shm.receiver import SlabReceiver
from parallax._shm.segment import PAGE_BYTES, Segment, create_segment
from parallax._shm.sender import SlabSender
from parallax._transport.shm_channel import SharedMemoryChannel

#: Bytes of a slab that is not copied.
LARGE = MIN_SHARED_BYTES + 3 * PAGE_BYTES + 5

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def duplicate(segment):
    """Another object for the same memory, to be closed independently."""
    if isinstance(segment, TaggedSegment):
        return segment.duplicate()
    return Segment(os.dup(segment.handle) if isinstance(segment.handle, int) else segment.handle)


def block(nbytes, seed=0):
    """Bytes that repeat in no page-sized pattern, so that a wrong place shows."""
    pattern = bytes((seed * 37 + i * 11 + 1) % 251 for i in range(251))
    return (pattern * (nbytes // 251 + 1))[:nbytes]


def content(slab_sender, slab):
    """What lies in a slab, as another process would read it."""
    data = bytearray(slab.nbytes)
    if not slab_sender.segment.read(slab.extent.start, data):
        window, offset = slab_sender.mapping(slab.extent)
        data[:] = window[offset : offset + slab.nbytes]
    return bytes(data)


def held(segment):
    """Bytes of memory that a segment uses."""
    return os.fstat(segment.handle).st_blocks * 512


@contextlib.contextmanager
def slab_sender(segment=None, **settings):
    """A sender with a new segment; closed afterwards."""
    made = SlabSender(segment or create_segment(), threading.Lock(), **settings)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def sender_and_receiver(*, private, segment=None, **settings):
    """A sender and a receiver of its slabs."""
    with slab_sender(segment, **settings) as ours:
        receiver = SlabReceiver(duplicate(ours.segment), private=private)
        try:
            yield ours, receiver
        finally:
            receiver.abandon()


def failing(error, *, after=0):
    """A method that raises after ``after`` calls, which return None."""
    calls = []

    def method(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise error

    return method


def elsewhere(monkeypatch):
    """Take the code paths of systems other than Linux."""
    monkeypatch.setattr(segment, "LINUX", False)
    monkeypatch.setattr(_sender, "LINUX", False)
    monkeypatch.setattr(_receiver, "LINUX", False)


def lent(ours, seed=0, nbytes=LARGE):
    """A slab with content, as a channel holds it for a receiver."""
    return ours.put(memoryview(block(nbytes, seed)))


def shown(ours, seed, mode):
    """A slab with content that is shared by name."""
    slab = ours.reserve(LARGE, mode)
    window, offset = ours.mapping(slab.extent)
    window[offset : offset + LARGE] = block(LARGE, seed)
    return slab


def view(receiver, slab):
    """What a worker's function gets."""
    return np.frombuffer(receiver.view(slab.ref()), np.uint8)


class TaggedSegment(Segment):
    """Memory as Windows has it: each tag is a piece of its own, which can only be mapped."""

    def __init__(self, pieces=None):
        super().__init__("tag")
        self._pieces = {} if pieces is None else pieces

    def map(self, start, length, *, private=False):
        piece = self._pieces.get(start)
        if piece is None:
            piece = self._pieces[start] = mmap.mmap(-1, length)
        if not private:
            return piece
        copy = mmap.mmap(-1, length)
        copy[:] = piece[:length]
        return copy

    def punch_hole(self, position, length):
        """Windows cannot free a part."""

    def duplicate(self):
        return TaggedSegment(self._pieces)


class Child:
    """A forked copy of this process that takes one step at a time."""

    def __init__(self, *steps):
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, it says
            self._pid = os.fork()
        if not self._pid:
            try:
                ours.close()
                for step in steps:
                    if not theirs.recv(1):
                        break
                    try:
                        answer = True, step()
                    except BaseException as error:
                        answer = False, repr(error)
                    theirs.sendall(pickle.dumps(answer))
            finally:
                os._exit(0)
        theirs.close()
        self._sock = ours

    def step(self):
        """Run the next step in the child.

        Returns:
            The step's value, a small one.
        """
        self._sock.sendall(b"!")
        good, value = pickle.loads(self._sock.recv(1 << 16))
        assert good, value
        return value

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._sock.close()
        os.waitpid(self._pid, 0)


def usage(sender):
    """Bytes of slabs in use, and of free slabs that hold memory."""
    with sender._lock:
        sender._reclaim_locked()
        found = sender.extents.used_bytes, sender.extents.free_resident_bytes
    sender._reclaim()
    return found


class End:
    """One end: its channel and its sender."""

    def __init__(self, sock, ours, theirs, *, private, keep):
        self.sender = SlabSender(ours, threading.Lock(), keep=keep)
        self.channel = SharedMemoryChannel(
            sock, sender=lambda: self.sender, segment=theirs, private=private, waits=private
        )

    @property
    def used(self):
        return usage(self.sender)[0]


@contextlib.contextmanager
def pair(*, keep=1 << 24):
    """The parent's end and a worker's; neither waits for the other."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    segments = create_segment(), create_segment()
    parent = End(ours, segments[0], duplicate(segments[1]), private=False, keep=keep)
    worker = End(theirs, segments[1], duplicate(segments[0]), private=True, keep=keep)
    try:
        yield parent, worker
    finally:
        for end in (parent, worker):
            end.channel.close()
            end.sender.close()


def move(sender, receiver, *frame, **how):
    """Send a frame and receive it."""
    sender.channel.send(*frame, **how)
    got = []
    while not got or sender.channel.unsent:
        sender.channel.flush()
        got += receiver.channel.receive()
    (one,) = got
    return one


def opened(frame):
    """The payload and buffers of a frame, as bytes."""
    payload, buffers = frame.open()
    return bytes(payload), [bytes(b) for b in buffers]


def settle(*ends):
    """Return the slabs that each end no longer uses."""
    for end in ends:
        end.channel.return_slabs()
    for end in ends:
        with contextlib.suppress(BlockingIOError):
            assert end.channel.receive() == []


def views(*blocks):
    return [memoryview(b) for b in blocks]
