"""Frames whose large parts go through shared memory and not through the socket.

A channel with a *sender* for what it sends and a *receiver* for what it receives. A frame with
large parts is sent with a table as its first buffer, an entry for the payload and for each buffer:
where it lies, or zeros if it follows in the frame.

    entry = window 8 | its length 8 | slab 8 | position 8 | bytes 8 | mode 8

What was lent is given back by frames SLABS_RETURNED: the first bytes of slabs, 8 bytes each. They
go along with the next frame, and are handled here; nobody else sees them.

Guarantees: small frames travel as on the channel below, at the same cost; where there is no shared
memory to be had everything does, and one line says so. What is lent to a receiver that is gone
comes back when the channel is closed.
"""

from __future__ import annotations

import struct

from parallax._shm.allocator import UNBACKED
from parallax._shm.registry import find_shared
from parallax._shm.segment import round_to_pages
from parallax._shm.sender import MIN_SHARED_BYTES, SlabRef
from parallax._transport.framing import Channel, Frame, ProtocolError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallax._core.light_stdlib import sockets
    from parallax._shm.dedup import Deduplicator
    from parallax._shm.receiver import SlabReceiver
    from parallax._shm.segment import Segment
    from parallax._shm.sender import Slab, SlabSender

__all__ = ["MIN_SHARED_BYTES", "SharedFrame", "SharedMemoryChannel", "warn_no_shared_memory"]

#: Buffers from this many bytes on share a slab with others of their frame, if they reach that size
#: together; each begins a page.
MIN_PACKED_BYTES = 1 << 14

#: Gives slabs back.
SLABS_RETURNED = 255

_ENTRY = struct.Struct("<6Q")
_IN_FRAME = bytes(_ENTRY.size)


class SharedFrame:
    """A frame with parts in shared memory. They are mapped when it is opened."""

    __slots__ = ("_parts", "_receiver", "kind", "nbytes", "tag")

    def __init__(self, frame: Frame, receiver: SlabReceiver) -> None:
        """Read the table of a frame."""
        self.kind = frame.kind
        self.tag = frame.tag
        self._receiver = receiver
        #: what has not been opened: all of it, or nothing.
        self._parts: list[Any] = []
        try:
            table, *buffers = frame.buffers
            entries = list(_ENTRY.iter_unpack(table))
            follow = iter(buffers if entries[0][1] else [frame.payload, *buffers])
            parts = [SlabRef(*entry) if entry[1] else next(follow) for entry in entries]
        except (ValueError, IndexError, StopIteration, struct.error) as error:
            raise ProtocolError(f"wrong table in a frame of kind {frame.kind}") from error
        if next(follow, None) is not None or not all(
            receiver.is_valid(part) for part in parts if isinstance(part, SlabRef)
        ):
            raise ProtocolError(f"wrong table in a frame of kind {frame.kind}")
        self._parts = parts
        self.nbytes = sum(
            part.nbytes if isinstance(part, SlabRef) else len(part) for part in self._parts
        )

    def open(self) -> tuple[Any, list[Any]]:
        """The payload and the buffers; only once."""
        parts = list(self._parts)
        for place, part in enumerate(parts):
            if isinstance(part, SlabRef):
                parts[place] = self._receiver.view(part)
                self._parts[place] = None  # if the next one fails, this is not given back twice
        self._parts = []
        return parts[0], parts[1:]

    def __del__(self) -> None:
        for part in self._parts:
            if isinstance(part, SlabRef):
                self._receiver.give_back(part)


class SharedMemoryChannel(Channel):
    """A channel that moves large parts of its frames by shared memory."""

    def __init__(
        self,
        sock: sockets.socket,
        *,
        waits: bool = True,
        sender: Callable[[], SlabSender | None],
        segment: Segment | None,
        private: bool,
    ) -> None:
        """Take over a connected socket.

        Args:
            sock: as for ``Channel``.
            waits: as for ``Channel``.
            sender: makes or finds what lends what is sent; asked at the first large part.
            segment: what the other end lends from, if it has anything; closed with the channel, as
                soon as nothing of it is in use.
            private: what is written to received memory is seen by nobody else.
        """
        super().__init__(sock, waits=waits)
        self._find_sender = sender
        self._segment = segment
        self._private = private
        self._sender: SlabSender | None = None
        self._receiver: SlabReceiver | None = None
        #: what the other end has, by the first byte.
        self._lent: dict[int, list[Slab]] = {}

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
        """As ``Channel.send``.

        Args:
            kind: see there.
            tag: see there.
            payload: see there.
            buffers: see there.
            hold: see there.
            has_table: see there; made here.
            kept: slabs of the payload (-1) and the buffers, by their places: what is in it is not
                copied once more, and what is put into it stays.
            dedup: finds buffers that were sent before.
        """
        if self._receiver is not None and self._receiver.returns:
            told = self._receiver.take_returns()
            super().send(SLABS_RETURNED, 0, struct.pack(f"<{len(told)}Q", *told), hold=True)
        if len(payload) >= MIN_SHARED_BYTES or (
            buffers
            and (
                sum(b.nbytes for b in buffers) >= MIN_SHARED_BYTES
                or any(find_shared(b) for b in buffers)
            )
        ):
            self._sender = sender = self._sender or self._find_sender()
            if sender is not None:
                payload, buffers = self._place(sender, payload, buffers, kept, dedup)
                has_table = True
        return super().send(kind, tag, payload, buffers, hold=hold, has_table=has_table)

    def receive(self) -> list[Any]:
        """As ``Channel.receive``, with a ``SharedFrame`` in the place of each frame that is one.

        May return nothing even if the socket blocks, when slabs came back and nothing else.
        """
        frames: list[Any] = super().receive()
        for frame in frames:
            if frame.has_table or frame.kind == SLABS_RETURNED:
                break
        else:
            return frames
        handled: list[Any] = []
        try:
            for frame in frames:
                if frame.kind == SLABS_RETURNED:
                    self._take_back(frame.payload)
                else:
                    handled.append(self._parcel(frame) if frame.has_table else frame)
        except ProtocolError as error:
            self.broken = error
            if not handled:
                raise
        return handled

    def return_slabs(self) -> None:
        """Tell the sender at once of what is in use no more."""
        if self._receiver is not None and self._receiver.returns:
            told = self._receiver.take_returns()
            super().send(SLABS_RETURNED, 0, struct.pack(f"<{len(told)}Q", *told))

    def has_sent(self, slab: Slab) -> bool:
        """Whether the other end has that slab."""
        return slab in self._lent.get(slab.extent.start, ())

    @property
    def has_free_memory(self) -> bool:
        """Whether free memory is kept here for what will be sent next."""
        return self._sender is not None and self._sender.free_resident_bytes > 0

    def trim(self) -> None:
        """Give free memory back to the system."""
        if self._sender is not None:
            self._sender.trim(0)

    def close(self) -> None:
        """Close the socket; what is lent comes back, what is borrowed stays. Idempotent."""
        super().close()
        self._lent.clear()
        if self._receiver is not None:
            self._receiver.abandon()
        elif self._segment is not None:
            self._segment.close()

    def _parcel(self, frame: Frame) -> SharedFrame:
        if self._receiver is None:
            if self._segment is None:
                raise ProtocolError("the other end lends what cannot be mapped here")
            from parallax._shm.receiver import SlabReceiver  # loads what few need

            self._receiver = SlabReceiver(self._segment, private=self._private)
        parcel = SharedFrame(frame, self._receiver)
        if frame.buffers[1:] and max(map(len, frame.buffers[1:])) >= MIN_SHARED_BYTES:
            self._say(OSError("a worker process finds no room for what it returns"))
        return parcel

    def _place(
        self,
        sender: SlabSender,
        payload: bytes | memoryview,
        buffers: list[memoryview] | tuple[memoryview, ...],
        kept: dict[int, Slab] | None,
        dedup: Deduplicator | None,
    ) -> tuple[bytes | memoryview, list[memoryview]]:
        """Put large parts into slabs; what is left, with the table as the first buffer."""
        table: list[bytes] = []
        rest: list[memoryview] = []
        packed = self._pack(sender, buffers) if kept is None else {}
        for place, part in enumerate([memoryview(payload), *buffers], -1):
            slab, ref = find_shared(part) or (None, None)
            if slab is not None:
                if kept is not None:
                    kept[place] = slab
            elif place in packed:
                slab, ref = packed[place]
            elif part.nbytes < MIN_SHARED_BYTES:
                slab = None
            elif kept is not None and place in kept:
                slab = kept[place]
            else:
                put = sender.put if dedup is None or place < 0 else dedup.slab
                slab = put(part)
                if slab is None:
                    self._say(sender.last_error)
                elif kept is not None:
                    kept[place] = slab
            if slab is None:
                table.append(_IN_FRAME)
                if place >= 0:
                    rest.append(part)
                continue
            ref = ref or slab.ref()
            self._lent.setdefault(ref.slab, []).append(slab)
            table.append(_ENTRY.pack(*ref))
            if place < 0:
                payload = b""
        return payload, [memoryview(b"".join(table)), *rest]

    def _pack(
        self, sender: SlabSender, buffers: list[memoryview] | tuple[memoryview, ...]
    ) -> dict[int, tuple[Slab, SlabRef]]:
        """Put buffers that are not large into one slab, if they are large together."""
        places = [
            place
            for place, part in enumerate(buffers)
            if MIN_PACKED_BYTES <= part.nbytes < MIN_SHARED_BYTES and not find_shared(part)
        ]
        if sum(buffers[place].nbytes for place in places) < MIN_SHARED_BYTES:
            return {}
        slab = sender.put(*(buffers[place] for place in places))
        if slab is None:
            self._say(sender.last_error)
            return {}
        packed, offset = {}, 0
        for place in places:
            nbytes = buffers[place].nbytes
            packed[place] = slab, slab.ref(offset, nbytes)
            offset += round_to_pages(nbytes)
        return packed

    def _say(self, problem: OSError | None) -> None:
        if not self._private:  # a worker's parent sees it for itself; one line is enough
            warn_no_shared_memory(problem)

    def _take_back(self, payload: bytes | bytearray) -> None:
        if len(payload) % 8:
            raise ProtocolError(f"{len(payload)} bytes tell what the other end gave back")
        for (start,) in struct.iter_unpack("<Q", payload):
            slabs = self._lent.get(start & ~1)
            if slabs is None:
                raise ProtocolError(f"the other end gave back {start}, which it was not lent")
            slab = slabs.pop()
            if not slabs:
                del self._lent[start & ~1]
            if start & 1:  # its memory went back to the system
                slab.extent = slab.extent._replace(residency=UNBACKED)


_said = False


def warn_no_shared_memory(problem: OSError | None) -> None:
    """Tell the user, once, that things take longer than they would with shared memory."""
    global _said  # noqa: PLW0603 - once per process
    if not _said:
        _said = True
        import logging

        logging.getLogger("parallax").warning(
            "parallax: there is no shared memory to be had (%s); "
            "large data goes through sockets, which takes longer",
            problem,
        )
