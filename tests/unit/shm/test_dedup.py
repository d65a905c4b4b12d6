"""Buffers that one call sends again: known by their memory, never taken for others."""

from __future__ import annotations

import array
import gc
import mmap
import pickle

import numpy as np
import pytest
from helpers.effort import examples
from helpers.shm import block, content, failing, slab_sender, usage
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._shm import dedup as dedup_module
from parallax._shm.dedup import COMPARED_BYTES, MAX_RECENT_BUFFERS, Deduplicator
from parallax._transport.codec import encode

NBYTES = 3 * (1 << 16)


def filled(seed=0, nbytes=NBYTES):
    return np.frombuffer(bytearray(block(nbytes, seed)), np.uint8)


def raw(obj):
    """As the codec sends an object."""
    return pickle.PickleBuffer(obj).raw()


def sent(obj):
    """The buffer that an array is pickled with."""
    buffers = []
    pickle.dumps(obj, 5, buffer_callback=buffers.append)
    return buffers[0].raw()


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_same_array(order):
    """It is written once, however often it comes, and counted."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        matrix = np.array(filled().reshape(-1, 64), order=order)
        slabs = [dedup.slab(sent(matrix)) for _ in range(4)]
        assert len({id(slab) for slab in slabs}) == 1
        assert content(ours, slabs[0]) == bytes(sent(matrix))
        assert (dedup.bytes_once, dedup.bytes_spared) == (NBYTES, 3 * NBYTES)


def test_views_of_one_array():
    """The same memory is the same buffer, whatever object shows it; any other is not."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        base = filled()
        first = dedup.slab(sent(base))
        same = [base[:], base.view(np.int64), base.reshape(3, -1), base.reshape(2, -1, order="F")]
        same += [base.reshape(3, -1).T]
        assert all(dedup.slab(sent(view)) is first for view in same)
        other = [base[1:], base[:-1], base[8:-8]]
        slabs = [dedup.slab(sent(view)) for view in other]
        assert first not in slabs
        assert [content(ours, slab) for slab in slabs] == [bytes(sent(view)) for view in other]


@pytest.mark.parametrize(
    "make", [bytes, lambda data: array.array("B", data), lambda data: memoryview(filled())]
)
def test_other_objects(make):
    """Bytes, arrays of the standard library and views are known again, too."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        obj = make(block(NBYTES))
        slab = dedup.slab(raw(obj))
        assert dedup.slab(raw(obj)) is slab
        assert content(ours, slab) == bytes(obj)
        assert dedup.slab(raw(make(block(NBYTES)))) is not slab


def test_memory_that_nobody_watches():
    """A bytearray may move its memory unseen: it is written each time."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        data = bytearray(block(NBYTES))
        one, two = dedup.slab(memoryview(data)), dedup.slab(memoryview(data))
        assert one is not two
        assert dedup.bytes_spared == 0


@pytest.mark.parametrize("view", [memoryview, raw])
def test_parts_of_bytes(view):
    """Parts of the same length are not each other."""
    data = bytes(NBYTES) + b"x" + bytes(NBYTES)
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        for start in (0, 1, 2, 1, 0, NBYTES + 1):
            part = view(memoryview(data)[start : start + NBYTES])
            assert content(ours, dedup.slab(part)) == data[start : start + NBYTES]


def test_parts_of_bytes_in_objects():
    """Nor are they when the codec finds them."""
    data = bytes(NBYTES) + b"x" + bytes(NBYTES)
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        parts = [memoryview(data)[start : start + NBYTES] for start in (0, 1, 2, 1)]
        parts += [np.frombuffer(part, np.uint8) for part in parts]
        for part in parts:
            (buffer,) = encode((part,)).buffers
            assert content(ours, dedup.slab(buffer)) == bytes(part)


def test_another_owner_at_the_same_address():
    """Memory that is used again by another array is another buffer."""
    memory = mmap.mmap(-1, NBYTES)
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        for seed in (1, 2):
            owner = np.frombuffer(memory, np.uint8)
            owner[:] = seed
            slab = dedup.slab(sent(owner))
            assert dedup.slab(sent(owner)) is slab
            assert set(content(ours, slab)) == {seed}
            del owner, slab
        one, two = np.frombuffer(memory, np.uint8), np.frombuffer(memory, np.uint8)
        slab = dedup.slab(sent(one))
        assert dedup.slab(sent(two)) is not slab
        assert dedup.slab(sent(two)) is dedup.slab(sent(two))
        del one, two
    memory.close()


def test_changed_meanwhile():
    """An array in which a change shows is written anew, and known again after that."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        data = filled()
        before = dedup.slab(sent(data))
        assert dedup.slab(sent(data)) is before
        data += 1
        after = dedup.slab(sent(data))
        assert after is not before
        assert content(ours, after) == data.tobytes()
        assert dedup.slab(sent(data)) is after
        data[NBYTES // COMPARED_BYTES * 5] += 1
        assert content(ours, dedup.slab(sent(data))) == data.tobytes()


def test_collected():
    """Nothing is kept of an array that is gone, proven or not; and nothing keeps the array."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        for times in (1, 3):
            data = filled()
            for _ in range(times):
                dedup.slab(sent(data))
            assert usage(ours)[0] == NBYTES
            del data
            gc.collect()
            assert usage(ours)[0] == 0


def test_few_are_kept_in_case():
    """Of buffers that came once only the newest few are; those that came again all are."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        proven = [filled(n) for n in range(2 * MAX_RECENT_BUFFERS)]
        for data in proven:
            dedup.slab(sent(data))
            dedup.slab(sent(data))
        once = [filled(n) for n in range(3 * MAX_RECENT_BUFFERS)]
        for data in once:
            dedup.slab(sent(data))
        assert usage(ours)[0] == (2 + 1) * MAX_RECENT_BUFFERS * NBYTES
        spared = dedup.bytes_spared
        dedup.slab(sent(once[-1]))
        dedup.slab(sent(proven[0]))
        assert dedup.bytes_spared == spared + 2 * NBYTES
        dedup.slab(sent(once[0]))
        assert dedup.bytes_spared == spared + 2 * NBYTES
        dedup.clear()
        assert usage(ours)[0] == 0


@pytest.mark.parametrize("others", [0, 1, 2])
def test_little_is_kept_in_case(monkeypatch, others):
    """Their bytes are limited; only the newest is kept however large it is."""
    monkeypatch.setattr(dedup_module, "MAX_RECENT_BYTES", others * NBYTES)
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        kept = [filled(n) for n in range(4)]
        for data in kept:
            dedup.slab(sent(data))
        assert usage(ours)[0] == (others + 1) * NBYTES
        assert dedup.slab(sent(kept[-1])) is dedup.slab(sent(kept[-1]))
        assert dedup.bytes_spared == 2 * NBYTES


def test_bytes_are_kept_as_long_as_they_are_recent():
    """They cannot be referred to weakly; those that came again stay until the call is over."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        for n in range(3 * MAX_RECENT_BUFFERS):
            dedup.slab(memoryview(block(NBYTES, n)))
        assert usage(ours)[0] == MAX_RECENT_BUFFERS * NBYTES
        dedup.clear()
        assert usage(ours)[0] == 0


def test_no_room(monkeypatch):
    """Then there is no slab, nothing is remembered, and it is tried again."""
    with slab_sender() as ours:
        dedup = Deduplicator(ours)
        data = filled()
        with monkeypatch.context() as patch:
            patch.setattr(ours.segment, "write", failing(OSError("full")))
            assert dedup.slab(sent(data)) is None
            assert dedup.slab(sent(data)) is None
        assert dedup.bytes_spared == 0
        assert content(ours, dedup.slab(sent(data))) == data.tobytes()


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_never_stale(data):
    """Whatever is sent, changed and dropped: a slab holds what its buffer shows."""
    with slab_sender() as ours:
        dedup, arrays = Deduplicator(ours), [filled(0)]
        for seed in range(1, data.draw(st.integers(2, 25))):
            what = data.draw(st.sampled_from(["new", "view", "change", "drop", "send", "send"]))
            place = data.draw(st.integers(0, len(arrays) - 1))
            one = arrays[place]
            if what == "new":
                arrays.append(filled(seed))
            elif what == "view":
                cut = data.draw(st.integers(0, 3))
                arrays.append(one[cut : len(one) - data.draw(st.integers(0, 3))])
            elif what == "change":
                one += seed
            elif what == "drop" and len(arrays) > 1:
                del arrays[place]
            del one
            for this in data.draw(st.lists(st.sampled_from(range(len(arrays))), max_size=4)):
                assert content(ours, dedup.slab(sent(arrays[this]))) == arrays[this].tobytes()
        arrays.clear()
        assert usage(ours)[0] == 0
