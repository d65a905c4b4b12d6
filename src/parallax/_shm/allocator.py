"""Allocation of ranges in a growing address space, as a value without memory behind it.

The address space consists of *windows*, which are mapped as a whole. A free range is in one of
three states of residency: without memory, with memory, or with memory that is mapped here, too.
The most resident ranges are taken first, because the first touch of a page costs several times a
later one.

Guarantees: allocated ranges never overlap and never leave their window; a freed range is merged
with its free neighbours of the same residency.
Algorithm: best fit over a sorted list, with sizes rounded up to 64ths of a power of two (finer than
jemalloc's size classes, because rounding costs memory here), so that arrays of nearly the same size
reuse each other's ranges.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from parallax._core.light_stdlib import NamedTuple

#: Residency of a range: no memory, memory, memory that is mapped in this process.
UNBACKED, RESIDENT, MAPPED = 0, 1, 2

#: Every size is a multiple of this: the largest page that systems have by default.
GRAIN_BYTES = 1 << 16


class Extent(NamedTuple):
    start: int
    size: int
    residency: int

    @property
    def end(self) -> int:
        """The first byte after the range."""
        return self.start + self.size


def size_class(nbytes: int) -> int:
    """The bytes that are allocated for a request: at most 1/32 more than asked, or one grain."""
    step = max(GRAIN_BYTES, 1 << max(0, nbytes.bit_length() - 6))
    return max(step, (nbytes + step - 1) // step * step)


class ExtentAllocator:
    """The windows of one address space and the free ranges in them."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._free: dict[int, Extent] = {}
        #: start and length of each window.
        self._windows: list[tuple[int, int]] = []
        self.free_resident_bytes = 0
        self.used_bytes = 0

    @property
    def end(self) -> int:
        """Where the last window ends."""
        return sum(self._windows[-1]) if self._windows else 0

    def window_at(self, position: int) -> tuple[int, int]:
        return self._windows[bisect_left(self._windows, (position + 1, 0)) - 1]

    def add_window(self, start: int, length: int) -> None:
        """Add a free window, at least a grain after the last so as not to be merged with it."""
        if self._windows and start < self.end + GRAIN_BYTES:
            raise ValueError(f"a window at {start} touches the one that ends at {self.end}")
        self._windows.append((start, length))
        self._insert(Extent(start, length, UNBACKED))

    def allocate(self, size: int) -> Extent | None:
        """Allocate from the smallest of the most resident ranges that fit; None if none fits."""
        fits = [e for e in self._free.values() if e.size >= size]
        if not fits:
            return None
        found = min(fits, key=lambda e: (-e.residency, e.size, e.start))
        self._remove(found)
        if found.size > size:
            self._insert(Extent(found.start + size, found.size - size, found.residency))
        self.used_bytes += size
        return Extent(found.start, size, found.residency)

    def free(self, extent: Extent) -> None:
        self.used_bytes -= extent.size
        self._insert(extent)

    def release_memory(self, keep: int) -> list[Extent]:
        """Mark ranges unbacked until ``keep`` bytes are left; the caller frees their memory."""
        resident = sorted((e for e in self._free.values() if e.residency), key=lambda e: e.size)
        released = []
        while resident and self.free_resident_bytes > keep:
            extent = resident.pop()
            self._remove(extent)
            released.append(extent)
            self._insert(extent._replace(residency=UNBACKED))
        return released

    def _insert(self, extent: Extent) -> None:
        index = bisect_left(self._starts, extent.start)
        if index < len(self._starts):
            after = self._free[self._starts[index]]
            if after.start == extent.end and after.residency == extent.residency:
                self._remove(after)
                extent = extent._replace(size=extent.size + after.size)
        if index > 0:
            before = self._free[self._starts[index - 1]]
            if before.end == extent.start and before.residency == extent.residency:
                self._remove(before)
                extent = Extent(before.start, before.size + extent.size, extent.residency)
        insort(self._starts, extent.start)
        self._free[extent.start] = extent
        if extent.residency:
            self.free_resident_bytes += extent.size

    def _remove(self, extent: Extent) -> None:
        del self._starts[bisect_left(self._starts, extent.start)]
        del self._free[extent.start]
        if extent.residency:
            self.free_resident_bytes -= extent.size
