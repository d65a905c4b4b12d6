"""Frames whose large parts go through shared memory instead of the socket.

A channel with a *sender* for its own data and a *receiver* for the data of the other end. The first
buffer of a frame with large parts is a table. The table has an entry for the payload and for each
buffer: where the part lies, or zeros if it follows in the frame.

    entry = window 8 | its length 8 | slab 8 | position 8 | bytes 8 | mode 8

Slabs are returned by frames SLABS_RETURNED: the first byte of each slab, 8 bytes. These frames go
along with the next frame, and are handled here.

Guarantees: small frames travel as on a ``Channel``, at the same cost. Without shared memory all
frames do, and one warning is logged. Slabs that a dead receiver had are free when the channel is
closed.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable

from parallax._core.light_stdlib import TYPE_CHECKING, Any, sockets
from parallax._shm.buffers import MIN_SHARED_BYTES, SlabRef
from parallax._shm.registry import find_shared
from parallax._shm.segment import Segment, round_to_pages
from parallax._transport.framing import Channel, Frame, ProtocolError

if TYPE_CHECKING:
    from parallax._shm.dedup import Deduplicator
    from parallax._shm.receiver import SlabReceiver
    from parallax._shm.sender import Slab, SlabSender

#: Buffers from this size on share a slab with others of their frame, if they reach
#: ``MIN_SHARED_BYTES`` together. Each begins a page, so less would waste memory.
MIN_PACKED_BYTES = 1 << 14

SLABS_RETURNED = 255

_ENTRY = struct.Struct("<6Q")
_IN_FRAME = bytes(_ENTRY.size)


class SharedFrame:
    """A frame with parts in shared memory, which are mapped when it is opened."""

    __slots__ = ("_parts", "_receiver", "kind", "nbytes", "tag")

    def __init__(self, frame: Frame, receiver: SlabReceiver) -> None:
        self.kind = frame.kind
        self.tag = frame.tag
        self._receiver = receiver
        #: all parts until the frame is opened.
        self._parts: list[Any] = []
        try:
            table, *buffers = frame.buffers
            entries = list(_ENTRY.iter_unpack(table))
            follow = iter(buffers if entries[0][1] else [frame.payload, *buffers])
            parts = [SlabRef(*entry) if entry[1] else next(follow) for entry in entries]
        except (ValueError, IndexError, StopIteration, struct.error) as error:
            raise ProtocolError(f"wrong table in a frame of kind {frame.kind}") from error
        refs = [part for part in parts if isinstance(part, SlabRef)]
        if next(follow, None) is not None or not all(map(receiver.is_valid, refs)):
            raise ProtocolError(f"wrong table in a frame of kind {frame.kind}")
        self._parts = parts
        self.nbytes = sum(p.nbytes if isinstance(p, SlabRef) else len(p) for p in parts)

    def open(self) -> tuple[Any, list[Any]]:
        """The payload and the buffers; only once."""
        parts = list(self._parts)
        for index, part in enumerate(parts):
            if isinstance(part, SlabRef):
                parts[index] = self._receiver.view(part)
                self._parts[index] = None  # not to be returned twice if the next one fails
        self._parts = []
        return parts[0], parts[1:]

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        for part in () if ending() else self._parts:  # modules may be empty already
            if isinstance(part, SlabRef):
                self._receiver.give_back(part)


class SharedMemoryChannel(Channel):
    """A channel that moves large parts of its frames through shared memory."""

    def __init__(
        self,
        sock: sockets.socket,
        *,
        waits: bool = True,
        sender: Callable[[], SlabSender | None],
        segment: Segment | None,
        private: bool,
    ) -> None:
        """Own a connected socket; ``sender`` makes or finds the sender for the first large part.

        ``segment``, the other end's, is closed with the channel as soon as nothing of it is in use.
        What is written to received memory stays in this process if that is ``private``.
        """
        super().__init__(sock, waits=waits)
        self._find_sender = sender
        self._segment = segment
        self._private = private
        self._sender: SlabSender | None = None
        self._receiver: SlabReceiver | None = None
        #: the slabs that the other end has, by their first byte.
        self._sent: dict[int, list[Slab]] = {}

    def send(
        self,
        kind: int,
        tag: int = 0,
        payload: bytes | memoryview = b"",
        buffers: list[memoryview] | tuple[memoryview, ...] = (),
        *,
        hold: bool = False,
        has_table: bool = False,
        kept: dict[int, Slab] | None = None,
        dedup: Deduplicator | None = None,
    ) -> bool:
        """As ``Channel.send``, with two more arguments.

        ``kept`` has slabs by index of their buffer, -1 for the payload: parts that have one are not
        copied again, and the slabs of the others are added. ``dedup`` finds buffers that were sent
        before.
        """
        self.return_slabs(hold=True)
        if len(payload) >= MIN_SHARED_BYTES or (
            buffers
            and (
                sum(b.nbytes for b in buffers) >= MIN_SHARED_BYTES or any(map(find_shared, buffers))
            )
        ):
            self._sender = sender = self._sender or self._find_sender()
            if sender is not None:
                payload, buffers = self._place(sender, payload, buffers, kept, dedup)
                has_table = True
        return super().send(kind, tag, payload, buffers, hold=hold, has_table=has_table)

    def receive(self) -> list[Any]:
        """As ``Channel.receive``, with a ``SharedFrame`` for each frame that has a table.

        Even if the socket blocks, the list is empty if nothing but slabs came back.
        """
        frames: list[Any] = super().receive()
        if not any(frame.has_table or frame.kind == SLABS_RETURNED for frame in frames):
            return frames
        handled: list[Any] = []
        try:
            for frame in frames:
                if frame.kind == SLABS_RETURNED:
                    self._take_back(frame.payload)
                else:
                    handled.append(self._open_table(frame) if frame.has_table else frame)
        except ProtocolError as error:
            self.broken = error
            if not handled:
                raise
        return handled

    def has_sent(self, slab: Slab) -> bool:
        return slab in self._sent.get(slab.extent.start, ())

    @property
    def has_free_memory(self) -> bool:
        """Whether free memory is kept here for the next large parts."""
        return self._sender is not None and self._sender.extents.free_resident_bytes > 0

    def trim(self) -> None:
        if self._sender is not None:
            self._sender.trim(0)

    def close(self) -> None:
        """Close the socket; sent slabs are free, received ones stay valid. Idempotent."""
        super().close()
        self._sent.clear()
        if self._receiver is not None:
            self._receiver.abandon()
        elif self._segment is not None:
            self._segment.close()

    def return_slabs(self, *, hold: bool = False) -> None:
        """Tell the other end which of its slabs are not in use any more."""
        if self._receiver is not None and self._receiver.returns:
            starts = self._receiver.take_returns()
            super().send(SLABS_RETURNED, 0, struct.pack(f"<{len(starts)}Q", *starts), hold=hold)

    def _open_table(self, frame: Frame) -> SharedFrame:
        if self._receiver is None:
            if self._segment is None:
                raise ProtocolError("a frame refers to shared memory that is not mapped here")
            from parallax._shm.receiver import SlabReceiver  # few processes need it

            self._receiver = SlabReceiver(self._segment, private=self._private)
        shared = SharedFrame(frame, self._receiver)
        if frame.buffers[1:] and max(map(len, frame.buffers[1:])) >= MIN_SHARED_BYTES:
            self._warn(OSError("a worker process finds no room for what it returns"))
        return shared

    def _place(
        self,
        sender: SlabSender,
        payload: bytes | memoryview,
        buffers: list[memoryview] | tuple[memoryview, ...],
        kept: dict[int, Slab] | None,
        dedup: Deduplicator | None,
    ) -> tuple[bytes | memoryview, list[memoryview]]:
        """Put large parts into slabs; the payload and buffers that are left, the table first."""
        table: list[bytes] = []
        rest: list[memoryview] = []
        packed = self._pack(sender, buffers) if kept is None else {}
        for index, part in enumerate([memoryview(payload), *buffers], -1):
            slab, ref = find_shared(part) or packed.get(index) or (None, None)
            if slab is None and part.nbytes >= MIN_SHARED_BYTES:
                slab = None if kept is None else kept.get(index)
                if slab is None:
                    slab = sender.put(part) if dedup is None or index < 0 else dedup.slab(part)
                if slab is None:
                    self._warn(sender.last_error)
            if slab is None:
                table.append(_IN_FRAME)
                if index >= 0:
                    rest.append(part)
                continue
            if kept is not None:
                kept[index] = slab
            ref = ref or slab.ref()
            self._sent.setdefault(ref.slab, []).append(slab)
            table.append(_ENTRY.pack(*ref))
            if index < 0:
                payload = b""
        return payload, [memoryview(b"".join(table)), *rest]

    def _pack(
        self, sender: SlabSender, buffers: list[memoryview] | tuple[memoryview, ...]
    ) -> dict[int, tuple[Slab, SlabRef]]:
        """Put buffers that are large only together into one slab."""
        packed: dict[int, tuple[Slab, SlabRef]] = {}
        small = {
            index: part
            for index, part in enumerate(buffers)
            if MIN_PACKED_BYTES <= part.nbytes < MIN_SHARED_BYTES and not find_shared(part)
        }
        if sum(part.nbytes for part in small.values()) < MIN_SHARED_BYTES:
            return packed
        slab = sender.put(*small.values())
        if slab is None:
            self._warn(sender.last_error)
            return packed
        offset = 0
        for index, part in small.items():
            packed[index] = slab, slab.ref(offset, part.nbytes)
            offset += round_to_pages(part.nbytes)
        return packed

    def _warn(self, error: OSError | None) -> None:
        if not self._private:  # the parent of a worker sees the problem as well, and warns
            warn_no_shared_memory(error)

    def _take_back(self, payload: bytes | bytearray) -> None:
        if len(payload) % 8:
            raise ProtocolError(f"{len(payload)} bytes cannot list returned slabs")
        for (start,) in struct.iter_unpack("<Q", payload):
            slabs = self._sent.get(start & ~1)
            if slabs is None:
                raise ProtocolError(f"the other end returned slab {start}, which it did not have")
            slab = slabs.pop()
            if not slabs:
                del self._sent[start & ~1]
            if start & 1:  # the receiver gave the memory to the system
                slab.mark_unbacked()


_warned = False


def warn_no_shared_memory(error: OSError | None) -> None:
    """Warn once that large data takes longer than it would with shared memory."""
    global _warned  # noqa: PLW0603 - once per process
    if not _warned:
        _warned = True
        import logging

        logging.getLogger("parallax").warning(
            "parallax: there is no shared memory to be had (%s); "
            "large data goes through sockets, which takes longer",
            error or "no descriptor is left for it",
        )
