"""Large buffers into shared memory: the sender's side.

What is sent is copied into a *slab* of the sender's segment, and the receiver is told its position.
A slab is free when its last holder here has dropped it: the channel that sent it (until the
receiver has returned it, or is gone), a call that may send it again, or an object that the user
shares. Slabs are reused, because the first touch of a page costs several times a later one.

Guarantees: thread-safe; slabs may be dropped from any thread and by the garbage collector; free
memory beyond ``keep`` bytes goes back to the system, at once or when it was not needed for a while.
Without memory ``put`` raises nothing: the caller sends the data another way, and warns once.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from _thread import LockType
from collections import deque
from collections.abc import Callable
from functools import partial

from parallax._core.light_stdlib import Any, Protocol
from parallax._shm.allocator import (
    GRAIN_BYTES,
    MAPPED,
    RESIDENT,
    UNBACKED,
    Extent,
    ExtentAllocator,
    size_class,
)
from parallax._shm.buffers import COPY, SlabRef, address_of
from parallax._shm.segment import COPY_PIECE_BYTES, LINUX, Segment, populate, round_to_pages

#: The smallest window. A window is address space, not memory; smaller ones cost more descriptors,
#: of which each mapping has one before Python 3.13.
MIN_WINDOW_BYTES = 1 << 26

#: Memory of free slabs that is kept for the next ones.
KEPT_FREE_BYTES = 1 << 26

#: Below this size, starting a second thread costs more than it saves.
MIN_THREADED_COPY_BYTES = 1 << 25

#: Part of a fresh range that is written to the file. The rest is filled through the mapping, which
#: takes twice as long per page.
WRITTEN_SHARE = 0.7

#: Seconds to wait for a thread that may be closing the segment, which takes microseconds.
KEEP_OPEN_TIMEOUT_S = 0.5


class Slab:
    """A range of shared memory in use; free again when the last reference is dropped."""

    __slots__ = ("__weakref__", "_sender", "extent", "mode", "nbytes")

    def __init__(self, sender: SlabSender, extent: Extent, nbytes: int, mode: int) -> None:
        self._sender = sender
        self.extent = extent
        self.nbytes = nbytes
        self.mode = mode

    def ref(self, offset: int = 0, nbytes: int | None = None) -> SlabRef:
        """Where a receiver finds the slab, or a part of it."""
        start = self.extent.start
        window, length = self._sender.extents.window_at(start)
        size = self.nbytes if nbytes is None else nbytes
        return SlabRef(window, length, start, start + offset, size, self.mode)

    def mark_unbacked(self) -> None:
        """The receiver gave the memory back to the system."""
        self.extent = self.extent._replace(residency=UNBACKED)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # else modules may be empty already
            self._sender.release(self.extent)


class Trimmer(Protocol):
    """Trims a sender whose free memory was not needed for a while."""

    def on_allocate(self, *, large: bool) -> None:
        """A slab is allocated; ``large`` if more memory than is kept may soon be free."""

    def keeps_surplus(self) -> bool:
        """Whether surplus memory stays for now; called at any moment, so it must not wait."""


class SlabSender:
    def __init__(
        self,
        segment: Segment,
        lock: LockType,
        *,
        keep: int = KEPT_FREE_BYTES,
        trimmer: Trimmer | None = None,
        threads: bool = False,
    ) -> None:
        """Take ownership of a segment.

        The lock is a new one and not reentrant: the garbage collector may drop slabs at any moment,
        and must then see that it is taken.
        """
        self.segment = segment
        #: trims the surplus after a while; without one it is trimmed at once.
        self._trimmer = trimmer
        #: a second thread may help to copy.
        self._threads = threads
        self._lock = lock
        #: bytes of free slabs that are kept.
        self._keep = keep
        self.extents = ExtentAllocator()
        self._windows: dict[int, mmap.mmap] = {}
        #: extents of dropped slabs that are not free yet.
        self._dropped: deque[Extent] = deque()
        self._owner = os.getpid()
        #: a hole could not be punched: unbacked ranges may hold old content.
        self._stale = False
        self._closed = False
        #: called when no slab is in use any more.
        self.on_unused: Callable[[], None] | None = None
        #: why the last buffer found no place.
        self.last_error: OSError | None = None

    def put(self, *parts: memoryview) -> Slab | None:
        """Copy buffers into one slab; None without memory, and ``last_error`` says why."""
        nbytes = sum(round_to_pages(part.nbytes) for part in parts[:-1]) + parts[-1].nbytes
        try:
            extent = self._allocate(nbytes)
        except OSError as error:
            self.last_error = error.with_traceback(None)  # the traceback refers to the data
            return None
        residency, at = MAPPED, extent.start
        try:
            for part in parts:
                residency = min(residency, self._copy(extent, at, part))
                at += round_to_pages(part.nbytes)
            if extent.residency == UNBACKED and at < extent.end:
                # The rest was not written, but the next user of the extent relies on its memory.
                self.segment.reserve(at, extent.end - at)
        except BaseException as error:
            self._discard(extent)
            if not isinstance(error, OSError):
                raise  # for example a KeyboardInterrupt
            self.last_error = error.with_traceback(None)
            return None
        return Slab(self, extent._replace(residency=residency), nbytes, COPY)

    def reserve(self, nbytes: int, mode: int) -> Slab:
        """A slab of zeros, to be written through its mapping."""
        extent = self._allocate(nbytes)
        try:
            if extent.residency == UNBACKED:
                self.segment.reserve(extent.start, extent.size)
                if not self._stale:
                    return Slab(self, extent._replace(residency=RESIDENT), nbytes, mode)
            window, offset = self.mapping(extent)
            zeros = bytes(min(COPY_PIECE_BYTES, extent.size))
            for done in range(0, extent.size, COPY_PIECE_BYTES):
                end = min(done + COPY_PIECE_BYTES, extent.size)
                window[offset + done : offset + end] = zeros[: end - done]
        except BaseException:
            self._discard(extent)
            raise
        return Slab(self, extent._replace(residency=MAPPED), nbytes, mode)

    def release(self, extent: Extent) -> None:
        """A slab was dropped. Called from any thread at any moment."""
        if os.getpid() != self._owner:
            return  # a forked copy of the owner must not reuse the memory
        self._dropped.append(extent)
        self._reclaim()

    def trim(self, keep: int) -> None:
        """Give free memory back to the system, except for ``keep`` bytes."""
        with self._lock:
            self._reclaim_locked(keep)
        self._reclaim()

    def keep_open(self) -> bool:
        """Do not call ``on_unused`` from now on; False if it was called, and has closed this."""
        # It is called with the lock. A signal handler may find that its own thread has the lock.
        locked = self._lock.acquire(timeout=KEEP_OPEN_TIMEOUT_S)
        self.on_unused = None
        if locked:
            self._lock.release()
            self._reclaim()
        return not self._closed

    def close(self) -> None:
        """Close the segment; slabs in use stay valid."""
        self.on_unused = None
        self._closed = True
        self.segment.close()
        self._windows.clear()

    def _copy(self, extent: Extent, position: int, data: memoryview) -> int:
        """Copy a buffer into an extent; the residency of the copy."""
        large = self._threads and data.nbytes >= MIN_THREADED_COPY_BYTES
        window, offset = self.mapping(extent)
        offset += position - extent.start
        if extent.residency == UNBACKED:
            if (
                large
                and self.segment.anonymous
                and copy_threaded(window, offset, data, partial(self.segment.write, position))
            ):
                return RESIDENT
            if self.segment.write(position, data):
                return RESIDENT
        elif large and copy_threaded(window, offset, data):
            return MAPPED
        elif (
            extent.residency == RESIDENT
            and not populate(window, offset, round_to_pages(data.nbytes))
            and self.segment.write(position, data)
        ):
            return RESIDENT
        # Other threads get the GIL between two pieces.
        for done in range(0, data.nbytes, COPY_PIECE_BYTES):
            end = min(done + COPY_PIECE_BYTES, data.nbytes)
            window[offset + done : offset + end] = data[done:end]
        return MAPPED

    def mapping(self, extent: Extent) -> tuple[mmap.mmap, int]:
        """The mapping that contains a range in this process, and the range's first byte in it."""
        start = self.extents.window_at(extent.start)[0]
        return self._windows[start], extent.start - start

    def _allocate(self, nbytes: int) -> Extent:
        size = size_class(nbytes)
        extents = self.extents
        if os.getpid() != self._owner:
            raise OSError("this shared memory belongs to the process that forked this one")
        if self._trimmer is not None:
            self._trimmer.on_allocate(large=size + extents.used_bytes > self._keep)
        with self._lock:
            self._reclaim_locked()
            if self._closed:
                raise OSError("this shared memory is closed")
            if size >= MIN_THREADED_COPY_BYTES and extents.free_resident_bytes < size:
                _check_available(size)
            extent = extents.allocate(size)
            if extent is None:
                start = extents.end + GRAIN_BYTES if self._windows else 0
                # A window is as large as all before it, so that there are few. Windows reserves
                # memory for a whole window, so windows are no larger than needed there.
                least = max(MIN_WINDOW_BYTES, extents.end) if LINUX else MIN_WINDOW_BYTES
                length = max(least, size)
                self.segment.grow(start + length)
                self._windows[start] = self.segment.map(start, length)
                extents.add_window(start, length)
                extent = extents.allocate(size)
                assert extent is not None
        self._reclaim()
        return extent

    def _reclaim(self) -> None:
        """Free the extents that were dropped while the lock was held, perhaps by this thread."""
        while self._dropped and self._lock.acquire(blocking=False):
            try:
                self._reclaim_locked()
            finally:
                self._lock.release()

    def _discard(self, extent: Extent) -> None:
        """Free an extent that was not filled to its end."""
        self._punch_hole(extent)
        self.release(extent._replace(residency=UNBACKED))

    def _punch_hole(self, extent: Extent) -> None:
        if not self.segment.punch_hole(extent.start, extent.size):
            self._stale = True

    def _reclaim_locked(self, keep: int | None = None) -> None:
        """Free dropped extents and trim; ``keep`` overrides the sender's own limit."""
        extents = self.extents
        while self._dropped:
            extents.free(self._dropped.popleft())
        if self.on_unused is not None and not extents.used_bytes:
            self.on_unused()
            return
        if keep is None:
            if extents.free_resident_bytes <= self._keep:
                return
            if self._trimmer is not None and self._trimmer.keeps_surplus():
                return
            keep = self._keep
        for released in extents.release_memory(keep):
            self._punch_hole(released)


def _check_available(nbytes: int) -> None:
    """Raise an OSError where the out-of-memory killer would end a process otherwise."""
    if LINUX:
        from parallax._core.memory import memory_available

        if 0 < memory_available() < nbytes:
            raise OSError(errno.ENOMEM, f"{nbytes:,} bytes are more than the available memory")


def copy_threaded(
    window: mmap.mmap,
    offset: int,
    data: memoryview,
    write: Callable[[memoryview], bool] | None = None,
) -> bool:
    """Copy contiguous bytes into a mapping, the front in this thread and the back in another one.

    The first touch of a page costs several times the copy of its content. Two threads can share
    that cost: writing to the file holds a lock of the file, touching its mapping does not. Measured
    for 1 GB on two cores: 0.25 s instead of 0.37 s into fresh memory, 0.16 s instead of 0.37 s into
    memory that is not mapped yet, 0.05 s instead of 0.08 s into mapped memory.

    Fresh memory must be anonymous: to touch an unwritten page of a file is a SIGBUS if the device
    is full. ``write`` writes the front to the file instead of the mapping; False if it cannot.
    Returns False if the address of the buffer is unknown; then nothing was copied.
    """
    import ctypes
    import threading

    source = address_of(data)
    if source is None:
        return False
    exporter = ctypes.c_ubyte.from_buffer(window, offset)  # keeps the mapping
    target = ctypes.addressof(exporter)
    split = data.nbytes // 2 if write is None else int(data.nbytes * WRITTEN_SHARE)

    def fill_back(_: Any = exporter) -> None:
        ctypes.memmove(target + split, source + split, data.nbytes - split)

    thread = threading.Thread(target=fill_back, name="parallax-pool-copy", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system allows no further thread
        fill_back()
    try:
        if write is None or not write(data[:split]):
            ctypes.memmove(target, source, split)
    finally:
        if thread.ident is not None:
            thread.join()
    return True
