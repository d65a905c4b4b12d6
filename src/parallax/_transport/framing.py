"""Frames on a stream socket: how parent and worker exchange messages.

One private duplex socket per worker; processes share no lock and no queue, so that an end-of-file
identifies the dead worker, and a killed worker blocks nobody.

    frame = header | buffer lengths (8 bytes each) | payload | buffers
    header = magic 4 | kind 1 | table 1 | number of buffers 2 | tag 8 | payload length 8

With "table" 1 the first buffer tells where the others are; see ``shm_channel``.

Guarantees: a frame is delivered whole or not at all; large parts are received directly into the
memory that the object will use. The parent's end never blocks (two ends that both block on writing
are the classic deadlock), the worker's end always does.
Assumptions: one thread uses a channel at a time; both ends run the same version of this module.
"""

from __future__ import annotations

import struct
from collections import deque

from parallax._core.lazy_import import memory
from parallax._core.light_stdlib import Any, NamedTuple, sockets

MAGIC = b"plx1"
_HEADER = struct.Struct("<4sBBHQQ")

#: Size of the buffer that small frames are received into. Smaller costs system calls under load,
#: larger costs memory per worker.
READ_BUFFER_BYTES = 1 << 16

#: A header and payload up to this size are joined: the copy is cheaper than another entry in the
#: gather list.
MAX_JOINED_BYTES = 1 << 14

#: Entries in one gather list (the system's limit is 1024 almost everywhere).
MAX_GATHERED_PARTS = 512

#: No part of a frame is this long; a larger length comes from a broken or foreign header.
MAX_PART_BYTES = 1 << 46

#: Bytes of a frame from which on the machine's memory is asked for first. Some allocators promise
#: what there is not (that of free-threaded builds; any, with overcommit), and the system then kills
#: the process that writes to it. Smaller frames are not worth the 0.1 ms.
MAX_UNCHECKED_BYTES = 1 << 30


class ProtocolError(Exception):
    """The other end sent something that is not a valid frame."""


def pack_small_frame(kind: int, tag: int, payload: bytes | memoryview) -> bytes:
    """A frame without buffers as bytes, for code that writes to the socket itself."""
    return b"".join((_HEADER.pack(MAGIC, kind, False, 0, tag, len(payload)), payload))


class Frame(NamedTuple):
    kind: int
    tag: int
    payload: bytes | bytearray
    buffers: list[bytearray]
    #: whether the first buffer tells where the others are.
    has_table: bool = False

    @property
    def nbytes(self) -> int:
        return len(self.payload) + sum(map(len, self.buffers))

    def open(self) -> tuple[Any, list[Any]]:
        return self.payload, self.buffers


class Channel:
    """Frames over one connected stream socket."""

    def __init__(self, sock: sockets.socket, *, waits: bool = True) -> None:
        """Own a connected socket; without ``waits`` sending and receiving return at once."""
        self.sock = sock
        self._flags = 0
        if not waits:
            self._flags = getattr(sockets, "MSG_DONTWAIT", 0)
            sock.setblocking(bool(self._flags))
        self._gathers = hasattr(sock, "sendmsg")
        self._unsent: deque[memoryview] = deque()
        self._read = bytearray(READ_BUFFER_BYTES)
        self._view = memoryview(self._read)
        self._peeked = bytearray(1)
        self._low = 0
        self._high = 0
        # The large frame that is being received: header, parts, current part, position in it.
        self._header: tuple[int, int, bool] | None = None
        self._parts: list[bytearray] = []
        self._part = 0
        self._position = 0
        self._eof = False
        #: the other end closed without reading all that was sent.
        self.reset = False
        #: what was wrong after the last whole frame; nothing more can be received.
        self.broken: Exception | None = None

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self._unsent.clear()
        self.sock.close()

    def hang_up(self, timeout: float) -> None:
        """Close in order, before this process ends; wait so many seconds for the other end.

        A process that ends resets its TCP connections, which on Windows loses what was not read.
        """
        if self.sock.family == sockets.AF_INET:
            self.sock.shutdown(sockets.SHUT_WR)
            self.sock.settimeout(timeout)
            try:
                while self.sock.recv(READ_BUFFER_BYTES):
                    pass
            except OSError:  # nobody listens now
                pass
            self.sock.close()

    def send(
        self,
        kind: int,
        tag: int = 0,
        payload: bytes | memoryview = b"",
        buffers: list[memoryview] | tuple[memoryview, ...] = (),
        *,
        hold: bool = False,
        has_table: bool = False,
    ) -> bool:
        """Queue a frame and send what the socket accepts; False if ``flush`` is to send the rest.

        Buffers must stay unchanged until sent. With ``hold`` the frame waits for the next one: each
        system call wakes the other end. With ``has_table`` the first buffer tells where others are.
        """
        head = _HEADER.pack(MAGIC, kind, has_table, len(buffers), tag, len(payload))
        if buffers:
            head += struct.pack(f"<{len(buffers)}Q", *(b.nbytes for b in buffers))
        if len(head) + len(payload) <= MAX_JOINED_BYTES:
            self._unsent.append(memoryview(head + payload))
        else:
            self._unsent.append(memoryview(head))
            self._unsent.append(memoryview(payload))
        self._unsent.extend(buffer for buffer in buffers if buffer.nbytes)
        return not hold and self.flush()

    def flush(self) -> bool:
        """Send what is queued; True if nothing is left."""
        unsent = self._unsent
        while unsent:
            try:
                if self._gathers:
                    count = min(len(unsent), MAX_GATHERED_PARTS)
                    parts = [unsent[i] for i in range(count)]
                    sent = self.sock.sendmsg(parts, (), self._flags)
                else:
                    sent = self.sock.send(unsent[0], self._flags)
            except (BlockingIOError, InterruptedError):
                return False
            while unsent and sent >= unsent[0].nbytes:
                sent -= unsent.popleft().nbytes
            if sent:
                unsent[0] = unsent[0][sent:]
        return True

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> list[Frame]:
        """Receive the frames that are complete; a blocking socket waits for one at least.

        Raises EOFError at the end, OSError for a broken connection, ProtocolError or MemoryError
        for an invalid frame: whole frames before it are returned first, and ``broken`` is set.
        """
        if self.broken is not None:
            raise self.broken
        frames: list[Frame] = []
        blocking = not self._flags and self.sock.gettimeout() != 0.0
        while not self._eof:
            more = self._cut_whole(frames)
            if frames and (blocking or not more):
                return frames
            try:
                wanted, got = self._fill()
            except (BlockingIOError, InterruptedError):
                return frames
            if got and got < wanted and not blocking:
                self._cut_whole(frames)
                return frames
        if not frames:
            raise EOFError("the other end closed the connection")
        return frames

    def wait(self) -> bool:
        """Wait until ``receive`` has something to report; nothing is read. False: not here.

        One system call, where a selector takes four. An exception from a signal handler loses no
        data, although it may come between a read and its bookkeeping.
        """
        if not self._flags:
            return False
        if not self._eof:
            try:
                self.sock.recv_into(self._peeked, 1, sockets.MSG_PEEK)
            except ConnectionResetError:
                self._note_reset()  # the system reports this only once
        return True

    def _fill(self) -> tuple[int, int]:
        """Read once, into the current part or the small buffer; bytes wanted and bytes got."""
        if self._header is not None:
            part = memoryview(self._parts[self._part])[self._position :]
            got = self._read_into(part)
            self._position += got
            wanted = part.nbytes
        else:
            if self._low:
                rest = bytes(self._view[self._low : self._high])
                self._view[: len(rest)] = rest
                self._low, self._high = 0, len(rest)
            wanted = READ_BUFFER_BYTES - self._high
            got = self._read_into(self._view[self._high :])
            self._high += got
        return wanted, got

    def _read_into(self, part: memoryview) -> int:
        try:
            got = self.sock.recv_into(part, 0, self._flags)
        except ConnectionResetError:
            self._note_reset()  # what it sent before is still valid
            got = 0
        self._eof = got == 0
        return got

    def _note_reset(self) -> None:
        # TCP connections are reset by every process that is ended, whatever it has read.
        self.reset = self.sock.family != sockets.AF_INET

    def _cut_whole(self, frames: list[Frame]) -> bool:
        try:
            return self._cut(frames)
        except (ProtocolError, MemoryError) as error:
            self.broken = error
            if not frames:
                raise
            return False

    def _cut(self, frames: list[Frame]) -> bool:
        """Cut whole frames off what was read; True if a large frame is incomplete."""
        while True:
            if self._header is not None:
                if not self._advance():
                    return True
                kind, tag, has_table = self._header
                payload, *buffers = self._parts
                frames.append(Frame(kind, tag, payload, buffers, has_table))
                self._header = None
                self._parts = []
                continue
            if self._high - self._low < _HEADER.size:
                return False
            magic, kind, has_table, count, tag, length = _HEADER.unpack_from(self._read, self._low)
            if magic != MAGIC or length > MAX_PART_BYTES:
                raise ProtocolError(f"wrong frame header {magic!r} (length {length})")
            start = self._low + _HEADER.size + 8 * count
            if self._high < start:
                return False
            if count == 0 and self._high >= start + length:
                small = bytes(self._view[start : start + length])
                self._low = start + length
                frames.append(Frame(kind, tag, small, []))
                continue
            if count == 0 and length < READ_BUFFER_BYTES // 2:
                return False  # the rest of a small frame fits the buffer
            lengths = struct.unpack_from(f"<{count}Q", self._read, self._low + _HEADER.size)
            if any(n > MAX_PART_BYTES for n in lengths):
                raise ProtocolError("wrong buffer length in a frame header")
            self._begin((kind, tag, bool(has_table)), [length, *lengths], start)

    def _begin(self, header: tuple[int, int, bool], lengths: list[int], start: int) -> None:
        """Begin a large frame with what the buffer for small frames already holds of it."""
        nbytes = sum(lengths)
        if nbytes > MAX_UNCHECKED_BYTES and 0 < memory.memory_total() < nbytes:
            raise MemoryError(f"a frame of {nbytes:,} bytes is more than the memory there is")
        self._header = header
        self._parts = [bytearray(n) for n in lengths]
        self._part = 0
        self._position = 0
        self._low = start
        while self._low < self._high and not self._advance():
            part = self._parts[self._part]
            take = min(len(part) - self._position, self._high - self._low)
            part[self._position : self._position + take] = self._view[self._low : self._low + take]
            self._low += take
            self._position += take

    def _advance(self) -> bool:
        """Step over parts that are complete (or empty); True if all are."""
        while self._part < len(self._parts) and self._position == len(self._parts[self._part]):
            self._part += 1
            self._position = 0
        return self._part == len(self._parts)
