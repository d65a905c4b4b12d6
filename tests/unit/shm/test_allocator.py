"""The allocator of shared memory: ranges that are out are nobody else's, whatever comes back."""

from __future__ import annotations

import itertools

import pytest
from helpers.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallax._shm.allocator import (
    GRAIN_BYTES,
    MAPPED,
    RESIDENT,
    UNBACKED,
    Extent,
    ExtentAllocator,
    size_class,
)

SIZES = st.one_of(
    st.integers(0, 3 * GRAIN_BYTES),
    st.integers(1, 12).map(lambda n: n * GRAIN_BYTES),
    st.integers(0, 99 * GRAIN_BYTES),
)


def free_extents(extents):
    """All free ranges, in order."""
    return [extents._free[start] for start in extents._starts]


@given(st.integers(0, 1 << 44))
def test_size_class(nbytes):
    """Never less than is needed, at most one grain or a 32nd more, in whole grains."""
    size = size_class(nbytes)
    assert size >= max(nbytes, 1)
    assert size % GRAIN_BYTES == 0
    assert size - nbytes <= max(GRAIN_BYTES, nbytes // 32)
    assert size_class(size) == size


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 30))
def test_larger_needs_have_no_smaller_classes(nbytes, more):
    """A range that is enough for one is enough for everything smaller."""
    assert size_class(nbytes + more) >= size_class(nbytes)


class Machine(RuleBasedStateMachine):
    """Compared with a table of every grain: out, or how warm it is."""

    def __init__(self):
        super().__init__()
        self.extents = ExtentAllocator()
        self.windows = []
        self.grains = {}
        self.out = []

    # -- what can happen -----------------------------------------------------------------------

    @rule(gap=st.integers(1, 3), length=st.integers(1, 60))
    def add(self, gap, length):
        start = self.extents.end + gap * GRAIN_BYTES if self.windows else (gap - 1) * GRAIN_BYTES
        self.extents.add_window(start, length * GRAIN_BYTES)
        self.windows.append((start, length * GRAIN_BYTES))
        self._mark(Extent(start, length * GRAIN_BYTES, UNBACKED), UNBACKED)

    @precondition(lambda self: self.windows)
    @rule(overlap=st.integers(0, 3))
    def add_too_near(self, overlap):
        """Over a border ranges would grow together."""
        with pytest.raises(ValueError, match="touches"):
            self.extents.add_window(max(0, self.extents.end - overlap * GRAIN_BYTES), GRAIN_BYTES)

    @rule(nbytes=SIZES)
    def take(self, nbytes):
        size = size_class(nbytes)
        fits = [e for e in free_extents(self.extents) if e.size >= size]
        extent = self.extents.allocate(size)
        if extent is None:
            assert not fits
            return
        assert extent.size == size
        assert extent.residency == max(e.residency for e in fits)
        best = min(e.size for e in fits if e.residency == extent.residency)
        assert any(e.start == extent.start and e.size == best for e in fits)
        assert {self.grains[g] for g in _grains(extent)} == {extent.residency}
        self._mark(extent, None)
        self.out.append(extent)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), residency=st.sampled_from([UNBACKED, RESIDENT, MAPPED]))
    def give(self, data, residency):
        extent = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.extents.free(extent._replace(residency=residency))
        self._mark(extent, residency)

    @rule(data=st.data())
    def cool(self, data):
        idle = self.extents.free_resident_bytes
        few = st.integers(0, 20).map(lambda n: n * GRAIN_BYTES // 2)
        keep = data.draw(few | st.sampled_from([idle, max(0, idle - 1), idle // 2]))
        cooled = self.extents.release_memory(keep)
        assert self.extents.free_resident_bytes <= keep or not cooled
        assert self.extents.free_resident_bytes == idle - sum(e.size for e in cooled)
        for extent in cooled:
            assert {self.grains[g] for g in _grains(extent)} == {extent.residency}
            assert extent.residency != UNBACKED
            self._mark(extent, UNBACKED)
        if cooled:
            assert (
                self.extents.free_resident_bytes + cooled[-1].size > keep
            )  # not one more than needed
            assert [e.size for e in cooled] == sorted((e.size for e in cooled), reverse=True)
        elif idle > keep:
            pytest.fail(f"{idle} bytes are warm, nothing was cooled down to {keep}")

    # -- what always holds ---------------------------------------------------------------------

    @invariant()
    def every_grain_is_somewhere(self):
        free = free_extents(self.extents)
        assert free == sorted(free)
        found = dict.fromkeys(self.grains)
        for extent in free:
            for grain in _grains(extent):
                assert found[grain] is None  # and it is in a window: a KeyError otherwise
                found[grain] = extent.residency
        assert found == self.grains

    @invariant()
    def sums_are_right(self):
        warm = [w for w in self.grains.values() if w]
        out = [w for w in self.grains.values() if w is None]
        assert self.extents.free_resident_bytes == len(warm) * GRAIN_BYTES
        assert self.extents.used_bytes == len(out) * GRAIN_BYTES == sum(e.size for e in self.out)

    @invariant()
    def neighbours_are_merged(self):
        free = free_extents(self.extents)
        for before, after in itertools.pairwise(free):
            assert before.end < after.start or before.residency != after.residency

    @invariant()
    def windows_are_found(self):
        if self.windows:
            assert self.extents.end == sum(self.windows[-1])
        for extent in (*self.out, *free_extents(self.extents)):
            start, length = self.extents.window_at(extent.start)
            assert (start, length) in self.windows
            assert start <= extent.start < extent.end <= start + length
            assert self.extents.window_at(extent.end - 1) == (start, length)

    def _mark(self, extent, residency):
        self.grains.update(dict.fromkeys(_grains(extent), residency))


def _grains(extent):
    return range(extent.start, extent.end, GRAIN_BYTES)


Machine.TestCase.settings = settings(
    max_examples=examples(50), stateful_step_count=40, deadline=None
)
TestExtents = Machine.TestCase


def test_everything_back_is_one_range():
    """Whatever the order: a window that is all free can be taken as a whole."""
    extents = ExtentAllocator()
    extents.add_window(0, 16 * GRAIN_BYTES)
    taken = [extents.allocate(GRAIN_BYTES) for _ in range(16)]
    assert extents.allocate(GRAIN_BYTES) is None
    for extent in taken[1::2] + taken[::2]:
        extents.free(extent._replace(residency=MAPPED))
    assert free_extents(extents) == [Extent(0, 16 * GRAIN_BYTES, MAPPED)]
    assert extents.allocate(16 * GRAIN_BYTES) == Extent(0, 16 * GRAIN_BYTES, MAPPED)


def test_warm_before_small():
    """A larger range that is warmer is taken first: it costs less than what it leaves in pieces."""
    extents = ExtentAllocator()
    extents.add_window(0, 9 * GRAIN_BYTES)
    small, _, middle, _, large, _ = [extents.allocate(n * GRAIN_BYTES) for n in (1, 1, 2, 1, 3, 1)]
    extents.free(small._replace(residency=RESIDENT))
    extents.free(middle._replace(residency=MAPPED))
    extents.free(large._replace(residency=MAPPED))
    assert extents.allocate(GRAIN_BYTES) == Extent(middle.start, GRAIN_BYTES, MAPPED)
    assert extents.allocate(3 * GRAIN_BYTES) == large._replace(residency=MAPPED)
    assert extents.allocate(GRAIN_BYTES) == Extent(middle.start + GRAIN_BYTES, GRAIN_BYTES, MAPPED)
    assert extents.allocate(GRAIN_BYTES) == small._replace(residency=RESIDENT)
    assert extents.allocate(GRAIN_BYTES) is None


def test_nothing_is_cooled_that_may_be_kept():
    """The largest goes first, and none when just as much is warm as may be."""
    extents = ExtentAllocator()
    extents.add_window(0, 6 * GRAIN_BYTES)
    taken = [extents.allocate(n * GRAIN_BYTES) for n in (1, 1, 3, 1)]
    for extent in (taken[0], taken[2]):
        extents.free(extent._replace(residency=RESIDENT))
    assert extents.release_memory(4 * GRAIN_BYTES) == []
    assert extents.release_memory(4 * GRAIN_BYTES - 1) == [taken[2]._replace(residency=RESIDENT)]
    assert extents.release_memory(GRAIN_BYTES) == []
    assert extents.free_resident_bytes == GRAIN_BYTES


def test_nothing_to_begin_with():
    """Without a window there is nothing to take and nothing to cool."""
    extents = ExtentAllocator()
    assert extents.allocate(GRAIN_BYTES) is None
    assert extents.release_memory(0) == []
    assert extents.end == extents.free_resident_bytes == extents.used_bytes == 0
