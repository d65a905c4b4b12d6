"""Memory that several processes can map: an anonymous file that grows, or tagged pieces of memory.

Guarantees: no name outlives a crash, other users cannot open the memory, and the system frees it
when the last process that holds it has ended, in whatever way. A full device or a memory limit
raises an ``OSError`` when memory is reserved or written, and causes no SIGBUS later.
Not ``multiprocessing.shared_memory``: its segments have names, and a tracker process that removes
them too early or too late (docs/data.md).

Sources: memfd_create(2), as PyTorch #58386 proposes, which is not bound by the size of /dev/shm;
elsewhere a file that is unlinked at once, as in ``multiprocessing.heap.Arena``; on Windows memory
of the page file under a random tag, ``mmap(-1, size, tag)``.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys

from parallax._core.light_stdlib import TypeAlias

#: By what another process opens a segment: an inherited descriptor, or a tag.
Handle: TypeAlias = "int | str"

#: Bytes that are copied at once. Other threads get the GIL in between, and larger pieces leave the
#: processor's caches before the system copies them (measured: 2.8 GB/s into fresh memory by pieces
#: of this size, 2.2 GB/s in one piece).
COPY_PIECE_BYTES = 1 << 22

#: The unit in which memory is mapped and given back.
PAGE_BYTES = mmap.PAGESIZE

#: Of madvise(2): map all pages of a range at once, for writing (Linux 5.14).
_POPULATE_WRITE = 23

#: A file system in memory, on Linux.
_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - the file is made by mkstemp

LINUX = sys.platform == "linux"
WINDOWS = os.name == "nt"


class Segment:
    """Shared memory, mapped window by window."""

    def __init__(self, handle: Handle, *, anonymous: bool = False) -> None:
        """Own a descriptor, or use a tag; ``anonymous``: it lies in no file system."""
        self.handle = handle
        self.anonymous = anonymous
        self._size = 0

    def grow(self, end: int) -> None:
        """Allow positions up to ``end``; this needs no memory yet."""
        if isinstance(self.handle, int) and end > self._size:
            os.ftruncate(self.handle, end)
            self._size = end

    def map(self, start: int, length: int, *, private: bool = False) -> mmap.mmap:
        """Map a window; raises an OSError if the segment is closed."""
        if self.handle == -1:  # mmap would return new memory instead
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            if isinstance(self.handle, str):
                assert not private
                return mmap.mmap(-1, length, tagname=f"{self.handle}-{start}")  # type: ignore[call-arg]
            flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
            # Before Python 3.13 each mapping keeps a descriptor that it does not need.
            more = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            return mmap.mmap(self.handle, length, flags=flags, offset=start, **more)
        except ValueError as error:  # the file is shorter than the window
            raise OSError(str(error)) from error

    def write(self, position: int, data: memoryview) -> bool:
        """Write without a mapping: the quickest way to fill fresh memory; False if impossible."""
        if not isinstance(self.handle, int) or not hasattr(os, "pwrite"):
            return False
        done = 0
        while done < data.nbytes:
            done += os.pwrite(self.handle, data[done : done + COPY_PIECE_BYTES], position + done)
        return True

    def read(self, position: int, into: bytearray) -> bool:
        """Read without a mapping; False if that is impossible, or the segment is too short."""
        if not isinstance(self.handle, int) or not hasattr(os, "preadv"):
            return False
        view, done = memoryview(into), 0
        while done < len(into):
            got = os.preadv(self.handle, [view[done : done + COPY_PIECE_BYTES]], position + done)
            if not got:
                return False
            done += got
        return True

    def reserve(self, position: int, length: int) -> None:
        """Allocate memory for a range, before it is written through a mapping."""
        if not isinstance(self.handle, int):
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.handle, position, length)
        else:
            zeros = memoryview(bytes(min(COPY_PIECE_BYTES, length)))
            for done in range(0, length, COPY_PIECE_BYTES):
                self.write(position + done, zeros[: length - done])

    def punch_hole(self, position: int, length: int) -> bool:
        """Give the memory of whole pages back, even if it is mapped; False if that cannot be."""
        try:
            if hasattr(mmap, "MADV_REMOVE"):
                self.map(position, length).madvise(mmap.MADV_REMOVE, 0, length)
                return True
            if sys.platform == "darwin" and isinstance(self.handle, int):
                import fcntl

                # F_PUNCHHOLE, with a struct fpunchhole: flags, reserved, offset, length.
                fcntl.fcntl(self.handle, 99, struct.pack("IIqq", 0, 0, position, length))
                return True
        except OSError:
            pass
        return False

    def size(self) -> int:
        """Bytes of the segment; any process that has it may have made it grow."""
        return os.fstat(self.handle).st_size if isinstance(self.handle, int) else 0

    def close(self) -> None:
        """Close the descriptor; mappings stay valid. Idempotent."""
        if isinstance(self.handle, int) and self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def create_segment() -> Segment:
    """Create an empty segment; the OSError where the system provides none says what was tried."""
    if WINDOWS:
        import secrets

        return Segment(f"parallax-{secrets.token_hex(16)}")
    problems = []
    if hasattr(os, "memfd_create"):
        try:
            fd = os.memfd_create("parallax")
            os.fchmod(fd, 0o600)  # the default 0777 would let others open it in /proc
            return Segment(fd, anonymous=True)
        except OSError as error:
            problems.append(f"memfd_create: {error}")
    import tempfile

    for folder in (_MEMORY_FOLDER, None):
        if folder is not None and not (LINUX and os.path.isdir(folder)):
            continue
        try:
            fd, name = tempfile.mkstemp(prefix="parallax-", dir=folder)  # mode 0600
            os.unlink(name)
        except OSError as error:
            problems.append(str(error))
        else:
            return Segment(fd)
    raise OSError("; ".join(problems))


def round_to_pages(nbytes: int) -> int:
    return (nbytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES


def discard_writes(window: mmap.mmap, offset: int, length: int) -> bool:
    """Undo all writes to a range of a private mapping; False if the system cannot do that."""
    if not LINUX:
        return False  # elsewhere this call is a hint without effect
    window.madvise(mmap.MADV_DONTNEED, offset, length)
    return True


def populate(window: mmap.mmap, offset: int, length: int) -> bool:
    """Map whole pages for writing, twenty times as fast as by touching; False if impossible."""
    if not LINUX:
        return False
    try:
        window.madvise(_POPULATE_WRITE, offset, length)
    except OSError:
        return False
    return True
