"""The allocator of shared memory: ranges that are out are nobody else's, whatever comes back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallax._shm.allocator import COLD, GRAIN, MAPPED, PRESENT, Extent, Extents, size_class

SIZES = st.one_of(
    st.integers(0, 3 * GRAIN),
    st.integers(1, 12).map(lambda n: n * GRAIN),
    st.integers(0, 99 * GRAIN),
)


@given(st.integers(0, 1 << 44))
def test_size_class(nbytes):
    """Never less than is needed, at most one grain or a 32nd more, in whole grains."""
    size = size_class(nbytes)
    assert size >= max(nbytes, 1)
    assert size % GRAIN == 0
    assert size - nbytes <= max(GRAIN, nbytes // 32)
    assert size_class(size) == size


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 30))
def test_larger_needs_have_no_smaller_classes(nbytes, more):
    """A range that is enough for one is enough for everything smaller."""
    assert size_class(nbytes + more) >= size_class(nbytes)


class Machine(RuleBasedStateMachine):
    """Compared with a table of every grain: out, or how warm it is."""

    def __init__(self):
        super().__init__()
        self.extents = Extents()
        self.windows = []
        self.grains = {}
        self.out = []

    # -- what can happen -----------------------------------------------------------------------

    @rule(gap=st.integers(1, 3), length=st.integers(1, 60))
    def add(self, gap, length):
        start = self.extents.end + gap * GRAIN if self.windows else (gap - 1) * GRAIN
        self.extents.add(start, length * GRAIN)
        self.windows.append((start, length * GRAIN))
        self._mark(Extent(start, length * GRAIN, COLD), COLD)

    @precondition(lambda self: self.windows)
    @rule(overlap=st.integers(0, 3))
    def add_too_near(self, overlap):
        """Over a border ranges would grow together."""
        with pytest.raises(ValueError, match="touches"):
            self.extents.add(max(0, self.extents.end - overlap * GRAIN), GRAIN)

    @rule(nbytes=SIZES)
    def take(self, nbytes):
        size = size_class(nbytes)
        fits = [e for e in self.extents.free() if e.size >= size]
        extent = self.extents.take(size)
        if extent is None:
            assert not fits
            return
        assert extent.size == size
        assert extent.warmth == max(e.warmth for e in fits)
        best = min(e.size for e in fits if e.warmth == extent.warmth)
        assert any(e.start == extent.start and e.size == best for e in fits)
        assert {self.grains[g] for g in _grains(extent)} == {extent.warmth}
        self._mark(extent, None)
        self.out.append(extent)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), warmth=st.sampled_from([COLD, PRESENT, MAPPED]))
    def give(self, data, warmth):
        extent = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.extents.give(extent._replace(warmth=warmth))
        self._mark(extent, warmth)

    @rule(data=st.data())
    def cool(self, data):
        idle = self.extents.idle
        few = st.integers(0, 20).map(lambda n: n * GRAIN // 2)
        keep = data.draw(few | st.sampled_from([idle, max(0, idle - 1), idle // 2]))
        cooled = self.extents.cool(keep)
        assert self.extents.idle <= keep or not cooled
        assert self.extents.idle == idle - sum(e.size for e in cooled)
        for extent in cooled:
            assert {self.grains[g] for g in _grains(extent)} == {extent.warmth}
            assert extent.warmth != COLD
            self._mark(extent, COLD)
        if cooled:
            assert self.extents.idle + cooled[-1].size > keep  # not one more than needed
            assert [e.size for e in cooled] == sorted((e.size for e in cooled), reverse=True)
        elif idle > keep:
            pytest.fail(f"{idle} bytes are warm, nothing was cooled down to {keep}")

    # -- what always holds ---------------------------------------------------------------------

    @invariant()
    def every_grain_is_somewhere(self):
        free = self.extents.free()
        assert free == sorted(free)
        found = dict.fromkeys(self.grains)
        for extent in free:
            for grain in _grains(extent):
                assert found[grain] is None  # and it is in a window: a KeyError otherwise
                found[grain] = extent.warmth
        assert found == self.grains

    @invariant()
    def sums_are_right(self):
        warm = [w for w in self.grains.values() if w]
        out = [w for w in self.grains.values() if w is None]
        assert self.extents.idle == len(warm) * GRAIN
        assert self.extents.used == len(out) * GRAIN == sum(e.size for e in self.out)

    @invariant()
    def neighbours_are_merged(self):
        free = self.extents.free()
        for before, after in itertools.pairwise(free):
            assert before.end < after.start or before.warmth != after.warmth

    @invariant()
    def windows_are_found(self):
        if self.windows:
            assert self.extents.end == sum(self.windows[-1])
        for extent in (*self.out, *self.extents.free()):
            start, length = self.extents.window(extent.start)
            assert (start, length) in self.windows
            assert start <= extent.start < extent.end <= start + length
            assert self.extents.window(extent.end - 1) == (start, length)

    def _mark(self, extent, warmth):
        self.grains.update(dict.fromkeys(_grains(extent), warmth))


def _grains(extent):
    return range(extent.start, extent.end, GRAIN)


Machine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestExtents = Machine.TestCase


def test_everything_back_is_one_range():
    """Whatever the order: a window that is all free can be taken as a whole."""
    extents = Extents()
    extents.add(0, 16 * GRAIN)
    taken = [extents.take(GRAIN) for _ in range(16)]
    assert extents.take(GRAIN) is None
    for extent in taken[1::2] + taken[::2]:
        extents.give(extent._replace(warmth=MAPPED))
    assert extents.free() == [Extent(0, 16 * GRAIN, MAPPED)]
    assert extents.take(16 * GRAIN) == Extent(0, 16 * GRAIN, MAPPED)


def test_warm_before_small():
    """A larger range that is warmer is taken first: it costs less than what it leaves in pieces."""
    extents = Extents()
    extents.add(0, 9 * GRAIN)
    small, _, middle, _, large, _ = [extents.take(n * GRAIN) for n in (1, 1, 2, 1, 3, 1)]
    extents.give(small._replace(warmth=PRESENT))
    extents.give(middle._replace(warmth=MAPPED))
    extents.give(large._replace(warmth=MAPPED))
    assert extents.take(GRAIN) == Extent(middle.start, GRAIN, MAPPED)
    assert extents.take(3 * GRAIN) == large._replace(warmth=MAPPED)
    assert extents.take(GRAIN) == Extent(middle.start + GRAIN, GRAIN, MAPPED)
    assert extents.take(GRAIN) == small._replace(warmth=PRESENT)
    assert extents.take(GRAIN) is None


def test_nothing_is_cooled_that_may_be_kept():
    """The largest goes first, and none when just as much is warm as may be."""
    extents = Extents()
    extents.add(0, 6 * GRAIN)
    taken = [extents.take(n * GRAIN) for n in (1, 1, 3, 1)]
    for extent in (taken[0], taken[2]):
        extents.give(extent._replace(warmth=PRESENT))
    assert extents.cool(4 * GRAIN) == []
    assert extents.cool(4 * GRAIN - 1) == [taken[2]._replace(warmth=PRESENT)]
    assert extents.cool(GRAIN) == []
    assert extents.idle == GRAIN


def test_nothing_to_begin_with():
    """Without a window there is nothing to take and nothing to cool."""
    extents = Extents()
    assert extents.take(GRAIN) is None
    assert extents.cool(0) == []
    assert extents.end == extents.idle == extents.used == 0
