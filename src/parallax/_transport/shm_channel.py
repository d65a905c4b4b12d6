"""Frames whose large parts go through shared memory and not through the socket.

A channel with a *lender* for what it sends and a *borrower* for what it receives. A frame with
large parts is sent with a table as its first buffer, an entry for the payload and for each buffer:
where it lies, or zeros if it follows in the frame.

    entry = window 8 | its length 8 | slab 8 | position 8 | bytes 8 | mode 8

What was lent is given back by frames of kind BACK: the first bytes of slabs, 8 bytes each. They go
along with the next frame, and are handled here; nobody else sees them.

Guarantees: small frames travel as on the channel below, at the same cost; where there is no shared
memory to be had everything does, and one line says so. What is lent to a receiver that is gone
comes back when the channel is closed.
"""

from __future__ import annotations

import struct

from parallax._shm.allocator import COLD
from parallax._shm.registry import find as _explicit
from parallax._shm.segment import pages
from parallax._shm.sender import SHARED, Ref
from parallax._transport.framing import Channel, Frame, WireError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallax._core.light_stdlib import sockets
    from parallax._shm.dedup import Repeats
    from parallax._shm.receiver import Borrower
    from parallax._shm.segment import Store
    from parallax._shm.sender import Lender, Slab

__all__ = ["SHARED", "Parcel", "ParcelChannel", "say_once"]

#: Buffers from this many bytes on share a slab with others of their frame, if they are ``SHARED``
#: together; each begins a page.
PACKED = 1 << 14

#: Gives slabs back.
BACK = 255

_ENTRY = struct.Struct("<6Q")
_IN_FRAME = bytes(_ENTRY.size)


class Parcel:
    """A frame with parts in shared memory. They are mapped when it is opened."""

    __slots__ = ("_borrower", "_parts", "kind", "nbytes", "tag")

    def __init__(self, frame: Frame, borrower: Borrower) -> None:
        """Read the table of a frame."""
        self.kind = frame.kind
        self.tag = frame.tag
        self._borrower = borrower
        #: what has not been opened: all of it, or nothing.
        self._parts: list[Any] = []
        try:
            table, *buffers = frame.buffers
            entries = list(_ENTRY.iter_unpack(table))
            follow = iter(buffers if entries[0][1] else [frame.payload, *buffers])
            parts = [Ref(*entry) if entry[1] else next(follow) for entry in entries]
        except (ValueError, IndexError, StopIteration, struct.error) as error:
            raise WireError(f"wrong table in a frame of kind {frame.kind}") from error
        if next(follow, None) is not None or not all(
            borrower.has(part) for part in parts if isinstance(part, Ref)
        ):
            raise WireError(f"wrong table in a frame of kind {frame.kind}")
        self._parts = parts
        self.nbytes = sum(
            part.nbytes if isinstance(part, Ref) else len(part) for part in self._parts
        )

    def open(self) -> tuple[Any, list[Any]]:
        """The payload and the buffers; only once."""
        parts = list(self._parts)
        for place, part in enumerate(parts):
            if isinstance(part, Ref):
                parts[place] = self._borrower.view(part)
                self._parts[place] = None  # if the next one fails, this is not given back twice
        self._parts = []
        return parts[0], parts[1:]

    def __del__(self) -> None:
        for part in self._parts:
            if isinstance(part, Ref):
                self._borrower.refuse(part)


class ParcelChannel(Channel):
    """A channel that moves large parts of its frames by shared memory."""

    def __init__(
        self,
        sock: sockets.socket,
        *,
        waits: bool = True,
        lender: Callable[[], Lender | None],
        store: Store | None,
        private: bool,
    ) -> None:
        """Take over a connected socket.

        Args:
            sock: as for ``Channel``.
            waits: as for ``Channel``.
            lender: makes or finds what lends what is sent; asked at the first large part.
            store: what the other end lends from, if it has anything; closed with the channel, as
                soon as nothing of it is in use.
            private: what is written to received memory is seen by nobody else.
        """
        super().__init__(sock, waits=waits)
        self._find_lender = lender
        self._store = store
        self._private = private
        self._lender: Lender | None = None
        self._borrower: Borrower | None = None
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
        tabled: bool = False,
        kept: dict[int, Slab] | None = None,
        repeats: Repeats | None = None,
    ) -> bool:
        """As ``Channel.send``.

        Args:
            kind: see there.
            tag: see there.
            payload: see there.
            buffers: see there.
            hold: see there.
            tabled: see there; made here.
            kept: slabs of the payload (-1) and the buffers, by their places: what is in it is not
                copied once more, and what is put into it stays.
            repeats: finds buffers that were sent before.
        """
        if self._borrower is not None and self._borrower.back:
            told = self._borrower.told()
            super().send(BACK, 0, struct.pack(f"<{len(told)}Q", *told), hold=True)
        if len(payload) >= SHARED or (
            buffers
            and (sum(b.nbytes for b in buffers) >= SHARED or any(_explicit(b) for b in buffers))
        ):
            self._lender = lender = self._lender or self._find_lender()
            if lender is not None:
                payload, buffers = self._place(lender, payload, buffers, kept, repeats)
                tabled = True
        return super().send(kind, tag, payload, buffers, hold=hold, tabled=tabled)

    def receive(self) -> list[Any]:
        """As ``Channel.receive``, with a ``Parcel`` in the place of each frame that is one.

        May return nothing even if the socket blocks, when slabs came back and nothing else.
        """
        frames: list[Any] = super().receive()
        for frame in frames:
            if frame.tabled or frame.kind == BACK:
                break
        else:
            return frames
        handled: list[Any] = []
        try:
            for frame in frames:
                if frame.kind == BACK:
                    self._take_back(frame.payload)
                else:
                    handled.append(self._parcel(frame) if frame.tabled else frame)
        except WireError as error:
            self.broken = error
            if not handled:
                raise
        return handled

    def give_back(self) -> None:
        """Tell the lender at once of what is in use no more."""
        if self._borrower is not None and self._borrower.back:
            told = self._borrower.told()
            super().send(BACK, 0, struct.pack(f"<{len(told)}Q", *told))

    def lends(self, slab: Slab) -> bool:
        """Whether the other end has that slab."""
        return slab in self._lent.get(slab.extent.start, ())

    @property
    def idle(self) -> bool:
        """Whether free memory is kept here for what will be sent next."""
        return self._lender is not None and self._lender.idle > 0

    def trim(self) -> None:
        """Give free memory back to the system."""
        if self._lender is not None:
            self._lender.trim(0)

    def close(self) -> None:
        """Close the socket; what is lent comes back, what is borrowed stays. Idempotent."""
        super().close()
        self._lent.clear()
        if self._borrower is not None:
            self._borrower.abandon()
        elif self._store is not None:
            self._store.close()

    def _parcel(self, frame: Frame) -> Parcel:
        if self._borrower is None:
            if self._store is None:
                raise WireError("the other end lends what cannot be mapped here")
            from parallax._shm.receiver import Borrower  # loads what few need

            self._borrower = Borrower(self._store, private=self._private)
        parcel = Parcel(frame, self._borrower)
        if frame.buffers[1:] and max(map(len, frame.buffers[1:])) >= SHARED:
            self._say(OSError("a worker process finds no room for what it returns"))
        return parcel

    def _place(
        self,
        lender: Lender,
        payload: bytes | memoryview,
        buffers: list[memoryview] | tuple[memoryview, ...],
        kept: dict[int, Slab] | None,
        repeats: Repeats | None,
    ) -> tuple[bytes | memoryview, list[memoryview]]:
        """Put large parts into slabs; what is left, with the table as the first buffer."""
        table: list[bytes] = []
        rest: list[memoryview] = []
        packed = self._pack(lender, buffers) if kept is None else {}
        for place, part in enumerate([memoryview(payload), *buffers], -1):
            slab, ref = _explicit(part) or (None, None)
            if slab is not None:
                if kept is not None:
                    kept[place] = slab
            elif place in packed:
                slab, ref = packed[place]
            elif part.nbytes < SHARED:
                slab = None
            elif kept is not None and place in kept:
                slab = kept[place]
            else:
                find = lender.put if repeats is None or place < 0 else repeats.slab
                slab = find(part)
                if slab is None:
                    self._say(lender.problem)
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
        self, lender: Lender, buffers: list[memoryview] | tuple[memoryview, ...]
    ) -> dict[int, tuple[Slab, Ref]]:
        """Put buffers that are not large into one slab, if they are large together."""
        places = [
            place
            for place, part in enumerate(buffers)
            if PACKED <= part.nbytes < SHARED and not _explicit(part)
        ]
        if sum(buffers[place].nbytes for place in places) < SHARED:
            return {}
        slab = lender.put(*(buffers[place] for place in places))
        if slab is None:
            self._say(lender.problem)
            return {}
        packed, offset = {}, 0
        for place in places:
            nbytes = buffers[place].nbytes
            packed[place] = slab, slab.ref(offset, nbytes)
            offset += pages(nbytes)
        return packed

    def _say(self, problem: OSError | None) -> None:
        if not self._private:  # a worker's parent sees it for itself; one line is enough
            say_once(problem)

    def _take_back(self, payload: bytes | bytearray) -> None:
        if len(payload) % 8:
            raise WireError(f"{len(payload)} bytes tell what the other end gave back")
        for (start,) in struct.iter_unpack("<Q", payload):
            slabs = self._lent.get(start & ~1)
            if slabs is None:
                raise WireError(f"the other end gave back {start}, which it was not lent")
            slab = slabs.pop()
            if not slabs:
                del self._lent[start & ~1]
            if start & 1:  # its memory went back to the system
                slab.extent = slab.extent._replace(warmth=COLD)


_said = False


def say_once(problem: OSError | None) -> None:
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
