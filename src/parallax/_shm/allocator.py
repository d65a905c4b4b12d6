"""Which parts of a growing address space are free: the allocator under shared memory, as a value.

Knows no memory and no file: it hands out ranges of *windows*, pieces of address space that are
mapped as a whole. A free range is as warm as what is there already: nothing yet, memory, or memory
that is also mapped here. Warm ranges are taken first, because the first touch of a page costs
several times a later one.

Guarantees: ranges that are out never overlap and never leave their window; what is given back is
merged with its free neighbours of the same residency.
Algorithm: best fit over a sorted list, with sizes rounded up to 64ths of a power of two (finer than
jemalloc's size classes: what is rounded up is memory here), so that arrays of nearly the same size
use each other's ranges.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from parallax._core.light_stdlib import NamedTuple

__all__ = ["MAPPED", "RESIDENT", "UNBACKED", "Extent", "ExtentAllocator", "size_class"]

#: How warm a range is.
UNBACKED, RESIDENT, MAPPED = 0, 1, 2

#: Bytes that every size is a multiple of: the largest page that systems have by default.
GRAIN_BYTES = 1 << 16


class Extent(NamedTuple):
    """A range of the address space."""

    start: int
    size: int
    residency: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size


def size_class(nbytes: int) -> int:
    """The bytes that are set aside for so many: at most 1/32 more, or one grain.

    Args:
        nbytes: bytes that are needed.
    """
    step = max(GRAIN_BYTES, 1 << max(0, nbytes.bit_length() - 6))
    return max(step, (nbytes + step - 1) // step * step)


class ExtentAllocator:
    """The windows of one address space and what is free in them."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._free: dict[int, Extent] = {}
        self._windows: list[int] = []
        self._lengths: dict[int, int] = {}
        #: bytes of free ranges that hold memory.
        self.free_resident_bytes = 0
        #: bytes of ranges that are out.
        self.used_bytes = 0

    @property
    def end(self) -> int:
        """Where the last window ends."""
        return self._windows[-1] + self._lengths[self._windows[-1]] if self._windows else 0

    def window_at(self, position: int) -> tuple[int, int]:
        """Start and length of the window that a position is in."""
        start = self._windows[bisect_left(self._windows, position + 1) - 1]
        return start, self._lengths[start]

    def add_window(self, start: int, length: int) -> None:
        """Add a window, all of it free and cold.

        Args:
            start: at least one grain after the end of the last one: ranges must not grow together
                over a border.
            length: bytes, a multiple of the grain.
        """
        if self._windows and start < self.end + GRAIN_BYTES:
            raise ValueError(f"a window at {start} touches the one that ends at {self.end}")
        self._windows.append(start)
        self._lengths[start] = length
        self._put(Extent(start, length, UNBACKED))

    def allocate(self, size: int) -> Extent | None:
        """Take a range out: the smallest of the warmest that fits; None if none does.

        Args:
            size: bytes, as ``size_class`` gives them.
        """
        fits = [e for e in self._free.values() if e.size >= size]
        if not fits:
            return None
        found = min(fits, key=lambda e: (-e.residency, e.size, e.start))
        self._drop(found)
        if found.size > size:
            self._put(Extent(found.start + size, found.size - size, found.residency))
        self.used_bytes += size
        return Extent(found.start, size, found.residency)

    def free(self, extent: Extent) -> None:
        """Give a range back, as warm as it is now."""
        self.used_bytes -= extent.size
        self._put(extent)

    def release_memory(self, keep: int) -> list[Extent]:
        """Make free ranges cold, the largest first, until at most ``keep`` bytes are warm.

        Returns:
            The ranges whose memory is to be given to the system.
        """
        warm = sorted((e for e in self._free.values() if e.residency), key=lambda e: e.size)
        cooled = []
        while warm and self.free_resident_bytes > keep:
            extent = warm.pop()
            self._drop(extent)
            cooled.append(extent)
            self._put(extent._replace(residency=UNBACKED))
        return cooled

    def free_extents(self) -> list[Extent]:
        """All free ranges, in order."""
        return [self._free[start] for start in self._starts]

    def _put(self, extent: Extent) -> None:
        place = bisect_left(self._starts, extent.start)
        if place < len(self._starts):
            after = self._free[self._starts[place]]
            if after.start == extent.end and after.residency == extent.residency:
                self._drop(after)
                extent = extent._replace(size=extent.size + after.size)
        if place > 0:
            before = self._free[self._starts[place - 1]]
            if before.end == extent.start and before.residency == extent.residency:
                self._drop(before)
                extent = Extent(before.start, before.size + extent.size, extent.residency)
        insort(self._starts, extent.start)
        self._free[extent.start] = extent
        if extent.residency:
            self.free_resident_bytes += extent.size

    def _drop(self, extent: Extent) -> None:
        del self._starts[bisect_left(self._starts, extent.start)]
        del self._free[extent.start]
        if extent.residency:
            self.free_resident_bytes -= extent.size
