"""Memory that several processes can map: an anonymous file that grows, or tagged pieces of memory.

Guarantees: it has no name that a crash could leave behind, other users cannot open it, and the
system frees it when the last process that holds it is gone, however that ends. Where a full device
or a memory limit lets nothing more in, there is an ``OSError`` beforehand, and no SIGBUS later.
Not ``multiprocessing.shared_memory``: it has names, and a tracker process that removes them too
early or too late (docs/data.md).

Sources: memfd_create(2), as PyTorch #58386 proposes it: it is not bound by the size of /dev/shm;
elsewhere a file that is unlinked at once, as in ``multiprocessing.heap.Arena``; on Windows memory
of the page file under a random tag, ``mmap(-1, size, tag)``.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import TypeAlias

    #: What another process opens it by: a descriptor that it inherits, or a tag.
    Handle: TypeAlias = "int | str"

__all__ = ["Handle", "Segment", "create_segment"]

if not TYPE_CHECKING:
    Handle = int

#: Bytes that are written at once. The GIL is free for others in between, and larger pieces leave
#: the processor's caches between the system's look at them and the copy (measured: 2.8 GB/s into
#: fresh memory by pieces of this size, 2.2 in one).
COPY_PIECE_BYTES = 1 << 22

#: Bytes of a page: what is mapped, and what memory is given back by.
PAGE_BYTES = mmap.PAGESIZE

#: Asks for all pages of a range at once, to be read or written (Linux 5.14).
_POPULATE_READ, _POPULATE_WRITE = 22, 23

#: Where files are memory, on Linux.
_MEMORY = "/dev/shm"  # noqa: S108 - the file is made by mkstemp

LINUX = sys.platform == "linux"
WINDOWS = os.name == "nt"


class Segment:
    """One piece of memory, mapped window by window."""

    def __init__(self, handle: Handle, *, anonymous: bool = False) -> None:
        """Take over a descriptor, or a tag.

        Args:
            handle: as another process's ``handle``.
            anonymous: it lies in no file system, which could be full.
        """
        self.handle = handle
        self._anonymous = anonymous
        self._size = 0

    @property
    def anonymous(self) -> bool:
        """Whether no device can be full where it lies: its pages may be touched unwritten."""
        return self._anonymous

    def grow(self, end: int) -> None:
        """Make room for positions up to ``end``; nothing is used by that yet."""
        if isinstance(self.handle, int) and end > self._size:
            os.ftruncate(self.handle, end)
            self._size = end

    def map(self, start: int, length: int, *, private: bool = False) -> mmap.mmap:
        """Map a window.

        Args:
            start: its first byte.
            length: bytes.
            private: what is written to the mapping is seen by nobody else.

        Raises:
            OSError: the system refused, or it is closed.
        """
        if self.handle == -1:  # which would map new memory, of zeros
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            if isinstance(self.handle, str):
                tag = f"{self.handle}-{start}"
                access = mmap.ACCESS_COPY if private else mmap.ACCESS_WRITE
                return mmap.mmap(-1, length, tagname=tag, access=access)  # type: ignore[call-arg]
            flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
            # A mapping needs no descriptor of its own; before 3.13 it keeps one nevertheless.
            more = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            return mmap.mmap(self.handle, length, flags=flags, offset=start, **more)
        except ValueError as error:  # the file is shorter than was said
            raise OSError(str(error)) from error

    def write(self, position: int, data: memoryview) -> bool:
        """Write without mapping: the quickest way into memory that is not there yet.

        Returns:
            False if this kind can only be written to by mapping it.

        Raises:
            OSError: there is no room.
        """
        if not isinstance(self.handle, int) or not hasattr(os, "pwrite"):
            return False
        done = 0
        while done < data.nbytes:
            done += os.pwrite(self.handle, data[done : done + COPY_PIECE_BYTES], position + done)
        return True

    def read(self, position: int, into: bytearray) -> bool:
        """Read without mapping; False if this kind cannot do that, or not all was there."""
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
        """Have memory there before it is written to by mapping.

        Raises:
            OSError: there is no room.
        """
        if not isinstance(self.handle, int):
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.handle, position, length)
        else:
            zeros = memoryview(bytes(min(COPY_PIECE_BYTES, length)))
            for done in range(0, length, COPY_PIECE_BYTES):
                self.write(position + done, zeros[: length - done])

    def punch_hole(self, position: int, length: int) -> bool:
        """Give the memory of a range back to the system, whoever has it mapped.

        Where the system cannot do that, the memory goes when the whole segment does.

        Args:
            position: its first byte, in whole pages.
            length: bytes, in whole pages.

        Returns:
            False if the memory is there still, with what it holds.
        """
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
        """How far it reaches, as any of its users may have made it grow."""
        return os.fstat(self.handle).st_size if isinstance(self.handle, int) else 0

    def duplicate(self) -> Segment:
        """Another one for the same memory, closed by itself."""
        return Segment(os.dup(self.handle) if isinstance(self.handle, int) else self.handle)

    def close(self) -> None:
        """Let go of it; mappings live on. Idempotent."""
        if isinstance(self.handle, int) and self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def create_segment() -> Segment:
    """Make a new one, empty.

    Raises:
        OSError: this system has no place for one; it says what was tried.
    """
    if WINDOWS:
        import secrets

        return Segment(f"parallax-{secrets.token_hex(16)}")
    problems = []
    if hasattr(os, "memfd_create"):
        try:
            fd = os.memfd_create("parallax")
            os.fchmod(fd, 0o600)  # it is 0777; whoever gets at it by way of /proc asks this
            return Segment(fd, anonymous=True)
        except OSError as error:
            problems.append(f"memfd_create: {error}")
    import tempfile

    for folder in (_MEMORY, None):
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


def room() -> int:
    """Bytes of memory that can be had, as far as the system tells.

    Asking for more of an anonymous segment ends in the out-of-memory killer, and not in an error.
    """
    found = [sys.maxsize]
    try:
        lines = _read("/proc/meminfo").splitlines()
        line = next(line for line in lines if line.startswith(b"MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, StopIteration):
        pass
    try:
        # The limit of a container, of which files that are only cached are not a part.
        limit, used = (int(_read(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
        fields = dict(line.split() for line in _read("/sys/fs/cgroup/memory.stat").splitlines())
        found.append(limit - used + int(fields.get(b"inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return max(0, min(found))


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def round_to_pages(nbytes: int) -> int:
    """That many bytes in whole pages."""
    return (nbytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES


def refresh(window: mmap.mmap, offset: int, length: int) -> bool:
    """Make a private mapping show again what the others see; False if that cannot be done."""
    if not LINUX:
        return False  # elsewhere this is a hint that may do nothing
    window.madvise(mmap.MADV_DONTNEED, offset, length)
    return True


def populate(window: mmap.mmap, offset: int, length: int, *, write: bool) -> bool:
    """Map all pages of a range at once: a twentieth of the time of touching each.

    Args:
        window: the mapping.
        offset: where the range begins in it, in whole pages.
        length: bytes, in whole pages.
        write: to be written to; in a private mapping that makes the pages this process's own.

    Returns:
        False if the system cannot do that.
    """
    if not LINUX:
        return False
    try:
        window.madvise(_POPULATE_WRITE if write else _POPULATE_READ, offset, length)
    except OSError:
        return False
    return True
