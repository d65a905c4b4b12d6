"""Big buffers into shared memory: the sender's side.

A *sender* owns a segment. What is sent is copied into a *slab*, and the receiver is told where
that lies. A slab is free again when its last holder here has dropped it: the channel that it was
lent over (which holds it until the receiver has given it back, or is gone), a call that may send it
again, or an object that the user shares. Slabs are reused, because a page that is touched for the
first time costs several times a later one.

Guarantees: thread-safe; slabs may be dropped from any thread and by the garbage collector; memory
that is free beyond ``keep`` bytes goes back to the system, at once or when it was not needed for
a while. Where there is no memory to be had nothing is raised: the caller sends the data another
way, and one line is logged.
"""

from __future__ import annotations

import errno
import os
from collections import deque

from parallax._core.light_stdlib import NamedTuple
from parallax._shm.allocator import (
    GRAIN_BYTES,
    MAPPED,
    RESIDENT,
    UNBACKED,
    Extent,
    ExtentAllocator,
    size_class,
)
from parallax._shm.copying import MIN_THREADED_COPY_BYTES, fill, write_and_fill
from parallax._shm.segment import COPY_PIECE_BYTES, LINUX, Segment, populate, room, round_to_pages

TYPE_CHECKING = False

if TYPE_CHECKING:
    import mmap
    from _thread import LockType
    from collections.abc import Callable
    from typing import Protocol
else:
    Protocol = object

__all__ = ["KEPT_FREE_BYTES", "MIN_SHARED_BYTES", "Ref", "Slab", "SlabSender", "Trimmer"]

#: Bytes of a window at least. Each costs a descriptor on older Pythons; windows are address space,
#: not memory.
MIN_WINDOW_BYTES = 1 << 26

#: Bytes of free slabs that are kept for the next ones.
KEPT_FREE_BYTES = 1 << 26

#: Buffers from this many bytes on have a slab of their own. Less is as quick through a socket (two
#: cores, there and back: they are level at 400 to 700 KB).
MIN_SHARED_BYTES = 1 << 19

#: How a receiver may use what it is sent: as its own copy; reading; really shared.
COPY, READ, WRITE = 0, 1, 2


class Ref(NamedTuple):
    """Where a receiver finds a buffer."""

    #: the window that it is in: first byte and bytes.
    window: int
    length: int
    #: first byte of the slab, by which it is given back.
    slab: int
    #: first byte of the buffer, and bytes.
    position: int
    nbytes: int
    #: COPY, READ or WRITE.
    mode: int


class Slab:
    """A range of shared memory that is in use; free again when the last reference is dropped."""

    __slots__ = ("__weakref__", "_sender", "extent", "mode", "nbytes")

    def __init__(self, sender: SlabSender, extent: Extent, nbytes: int, mode: int) -> None:
        self._sender = sender
        self.extent = extent
        self.nbytes = nbytes
        self.mode = mode

    def ref(self, offset: int = 0, nbytes: int | None = None) -> Ref:
        """Where a receiver finds it, or a part of it.

        Args:
            offset: first byte of the part.
            nbytes: bytes of the part; None for all.
        """
        window, length = self._sender.window_at(self.extent.start)
        size = self.nbytes if nbytes is None else nbytes
        start = self.extent.start
        return Ref(window, length, start, start + offset, size, self.mode)

    def __del__(self) -> None:
        self._sender.release(self.extent)


class Trimmer(Protocol):
    """Has a sender trimmed when its free memory has not been asked for in a while."""

    def on_allocate(self, *, large: bool) -> None:
        """A slab is taken; ``large`` if there may soon be more free memory than is kept."""

    def keeps_surplus(self) -> bool:
        """There is more than is kept; False if it is to be trimmed at once.

        From any thread, at any moment: nothing may be waited for.
        """


class SlabSender:
    """Lends slabs of one segment."""

    def __init__(
        self,
        segment: Segment,
        lock: LockType,
        *,
        keep: int = KEPT_FREE_BYTES,
        trimmer: Trimmer | None = None,
        threads: bool = False,
    ) -> None:
        """Take over a segment.

        Args:
            segment: where the slabs are.
            lock: a new lock, not a reentrant one: the garbage collector may drop slabs at any
                moment, and must then see that it is taken.
            keep: bytes of free slabs that are kept.
            trimmer: trims what is more, after a while; without it that is done at once.
            threads: a second thread may help to copy.
        """
        self._trimmer = trimmer
        self._threads = threads
        self._segment = segment
        self._lock = lock
        self._keep = keep
        self._extents = ExtentAllocator()
        self._windows: dict[int, mmap.mmap] = {}
        #: what was dropped and is not back among the free ones yet.
        self._back: deque[Extent] = deque()
        self._owner = os.getpid()
        #: memory could not be given back: what counts as cold may hold what was there before.
        self._stale = False
        self._closed = False
        #: called when nothing is in use any more.
        self.on_unused: Callable[[], None] | None = None
        #: why the last buffer found no place.
        self.last_error: OSError | None = None

    @property
    def segment(self) -> Segment:
        """Where the slabs are."""
        return self._segment

    def put(self, *parts: memoryview) -> Slab | None:
        """Copy buffers into one slab.

        Args:
            parts: contiguous bytes each. A slab is free when all of them are given back.

        Returns:
            The slab; None if there is no memory for it, and then ``problem`` says why.
        """
        nbytes = sum(round_to_pages(part.nbytes) for part in parts[:-1]) + parts[-1].nbytes
        try:
            extent = self._take(nbytes)
        except OSError as error:
            self.last_error = error.with_traceback(None)  # which holds the data
            return None
        residency, at = MAPPED, extent.start
        try:
            for part in parts:
                residency = min(residency, self._copy(extent, at, part))
                at += round_to_pages(part.nbytes)
            if extent.residency == UNBACKED and at < extent.end:
                # The rest was not written: the next one must not find less than it was told.
                self._segment.reserve(at, extent.end - at)
        except BaseException as error:
            self._give_up(extent)
            if not isinstance(error, OSError):
                raise  # an interrupt, for one
            self.last_error = error.with_traceback(None)
            return None
        return Slab(self, extent._replace(residency=residency), nbytes, COPY)

    def reserve(self, nbytes: int, mode: int) -> Slab:
        """A slab with zeros in it, to be written to by mapping.

        Args:
            nbytes: its size.
            mode: READ or WRITE: how receivers may use it.

        Raises:
            OSError: there is no memory for it.
        """
        extent = self._take(nbytes)
        try:
            if extent.residency == UNBACKED:
                self._segment.reserve(extent.start, extent.size)
                if not self._stale:
                    return Slab(self, extent._replace(residency=RESIDENT), nbytes, mode)
            window, offset = self._mapped(extent)
            zeros = bytes(min(COPY_PIECE_BYTES, extent.size))
            for done in range(0, extent.size, COPY_PIECE_BYTES):
                end = min(done + COPY_PIECE_BYTES, extent.size)
                window[offset + done : offset + end] = zeros[: end - done]
        except BaseException:
            self._give_up(extent)
            raise
        return Slab(self, extent._replace(residency=MAPPED), nbytes, mode)

    def mapping(self, slab: Slab) -> tuple[mmap.mmap, int]:
        """The mapping that a slab is in here, and its first byte there."""
        return self._mapped(slab.extent)

    def window_at(self, position: int) -> tuple[int, int]:
        """Start and length of the window that a position is in."""
        return self._extents.window_at(position)

    def release(self, extent: Extent) -> None:
        """A slab was dropped. From any thread, at any moment."""
        if os.getpid() != self._owner:
            return  # a forked copy of the owner: the memory is not ours to use again
        self._back.append(extent)
        self._catch_up()

    def trim(self, keep: int) -> None:
        """Give free memory back to the system.

        Args:
            keep: bytes that may stay.
        """
        with self._lock:
            self._settle(keep)
        self._catch_up()

    @property
    def free_resident_bytes(self) -> int:
        """Bytes of free slabs that hold memory."""
        return self._extents.free_resident_bytes

    def usage(self) -> tuple[int, int]:
        """Bytes of slabs in use, and of free ones that hold memory."""
        with self._lock:
            self._settle()
            return self._extents.used_bytes, self._extents.free_resident_bytes

    def close(self) -> None:
        """Let go of the segment; what is lent lives on."""
        self.on_unused = None
        self._closed = True
        self._segment.close()
        self._windows.clear()

    def _copy(self, extent: Extent, position: int, data: memoryview) -> int:
        """Copy a buffer into a range; how warm that is then."""
        large = self._threads and data.nbytes >= MIN_THREADED_COPY_BYTES
        window, offset = self._mapped(extent)
        offset += position - extent.start
        if extent.residency == UNBACKED:
            if large and write_and_fill(self._segment, position, window, offset, data):
                return RESIDENT
            if self._segment.write(position, data):
                return RESIDENT
        elif large and fill(window, offset, data):
            return MAPPED
        elif (
            extent.residency == RESIDENT
            and not populate(window, offset, round_to_pages(data.nbytes), write=True)
            and self._segment.write(position, data)
        ):
            return RESIDENT
        # By pieces, so that other threads have the GIL in between.
        for done in range(0, data.nbytes, COPY_PIECE_BYTES):
            end = min(done + COPY_PIECE_BYTES, data.nbytes)
            window[offset + done : offset + end] = data[done:end]
        return MAPPED

    def _mapped(self, extent: Extent) -> tuple[mmap.mmap, int]:
        first = self.window_at(extent.start)[0]
        return self._windows[first], extent.start - first

    def _take(self, nbytes: int) -> Extent:
        size = size_class(nbytes)
        if os.getpid() != self._owner:
            raise OSError("this shared memory belongs to the process that forked this one")
        if self._trimmer is not None:
            self._trimmer.on_allocate(large=size + self._extents.used_bytes > self._keep)
        with self._lock:
            self._settle()
            if self._closed:
                raise OSError("this shared memory was let go of")
            if (
                size >= MIN_THREADED_COPY_BYTES
                and self._extents.free_resident_bytes < size
                and size > room()
            ):
                raise OSError(errno.ENOMEM, f"{size:,} bytes are more than there is room for")
            extent = self._extents.allocate(size)
            if extent is None:
                start = self._extents.end + GRAIN_BYTES if self._windows else 0
                # Each as large as all before it: few, however much there is. Memory of Windows is
                # set aside as a whole, so there no larger than needed.
                most = max(MIN_WINDOW_BYTES, self._extents.end) if LINUX else MIN_WINDOW_BYTES
                length = max(most, size)
                self._segment.grow(start + length)
                self._windows[start] = self._segment.map(start, length)
                self._extents.add_window(start, length)
                extent = self._extents.allocate(size)
                assert extent is not None
        self._catch_up()
        return extent

    def _catch_up(self) -> None:
        """Settle what was dropped while the lock was held, by who held it perhaps."""
        while self._back and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _give_up(self, extent: Extent) -> None:
        """A range was not filled to its end."""
        self._punch(extent)
        self.release(extent._replace(residency=UNBACKED))

    def _punch(self, extent: Extent) -> None:
        if not self._segment.punch_hole(extent.start, extent.size):
            self._stale = True

    def _settle(self, keep: int | None = None) -> None:
        """Put what was dropped among the free ones; the lock is held.

        Args:
            keep: bytes of free memory that may stay; None for what this sender keeps.
        """
        extents = self._extents
        while self._back:
            extents.free(self._back.popleft())
        if self.on_unused is not None and not extents.used_bytes:
            self.on_unused()
            return
        if keep is None:
            if extents.free_resident_bytes <= self._keep:
                return
            if self._trimmer is not None and self._trimmer.keeps_surplus():
                return
            keep = self._keep
        for cooled in extents.release_memory(keep):
            self._punch(cooled)
