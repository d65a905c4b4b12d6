"""The sender's side of shared memory: slabs hold what they were given, and all of it comes back."""

from __future__ import annotations

import errno
import gc
import os
import threading

import pytest
from helpers.effort import examples
from helpers.shm import (
    Child,
    TaggedSegment,
    block,
    content,
    elsewhere,
    failing,
    forks,
    held,
    linux,
    slab_sender,
    usage,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._shm import sender
from parallax._shm.allocator import GRAIN_BYTES, MAPPED, RESIDENT, UNBACKED
from parallax._shm.buffers import COPY, READ, WRITE, SlabRef
from parallax._shm.segment import COPY_PIECE_BYTES, PAGE_BYTES, round_to_pages

SIZES = [
    1,
    PAGE_BYTES - 1,
    PAGE_BYTES,
    PAGE_BYTES + 1,
    GRAIN_BYTES,
    5 * GRAIN_BYTES + 17,
    COPY_PIECE_BYTES + GRAIN_BYTES + 5,
]

FULL = OSError(errno.ENOSPC, "No space left on device")


def put(ours, data):
    """Put and check."""
    slab = ours.put(memoryview(data))
    assert content(ours, slab) == data
    return slab


@pytest.mark.parametrize("nbytes", SIZES)
def test_reuse_after_every_warmth(nbytes):
    """A slab that is used again holds what it was given last, however warm it was found."""
    with slab_sender() as ours:
        starts, found = set(), []
        for seed in range(4):
            slab = put(ours, block(nbytes, seed))
            starts.add(slab.extent.start)
            found.append(slab.extent.residency)
            del slab
        ours.trim(0)
        found.append(put(ours, block(nbytes, 5)).extent.residency)
        assert len(starts) == 1
        assert found == [RESIDENT, MAPPED, MAPPED, MAPPED, RESIDENT]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("way", ["old kernel", "no pwrite", "not Linux", "tags"])
@pytest.mark.parametrize("nbytes", SIZES)
def test_systems_that_can_do_less(monkeypatch, way, nbytes, large):
    """Old kernels cannot map pages at once, others write by mapping: the content is the same."""
    if way == "old kernel":
        monkeypatch.setattr(sender, "populate", lambda *_, **__: False)
    elif way == "no pwrite":
        monkeypatch.delattr(os, "pwrite")
    elif way == "not Linux":
        elsewhere(monkeypatch)
    monkeypatch.setattr(sender, "MIN_THREADED_COPY_BYTES", GRAIN_BYTES)
    with slab_sender(TaggedSegment() if way == "tags" else None, threads=large) as ours:
        for seed in range(3):
            put(ours, bytearray(block(nbytes, seed + 50)))
            put(ours, block(nbytes, seed))
            ours.trim(0)


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_anything_in_any_order(data):
    """Slabs keep their content whatever is put, reserved, dropped and trimmed beside them."""
    with pytest.MonkeyPatch.context() as patch, slab_sender(keep=8 * GRAIN_BYTES) as ours:
        patch.setattr(sender, "MIN_WINDOW_BYTES", 4 * GRAIN_BYTES)  # so that there are many windows
        live = []
        for seed in range(data.draw(st.integers(1, 30))):
            what = data.draw(st.sampled_from(["put", "put", "reserve", "drop", "drop", "trim"]))
            size = data.draw(st.sampled_from(SIZES[:-1]))
            if what == "put":
                live.append((ours.put(memoryview(block(size, seed))), block(size, seed)))
            elif what == "reserve":
                live.append((ours.reserve(size, WRITE), bytes(size)))
            elif what == "drop" and live:
                slab = live.pop(data.draw(st.integers(0, len(live) - 1)))[0]
                if data.draw(st.booleans()):  # its receiver gave the memory to the system
                    extent = slab.extent
                    ours.segment.punch_hole(extent.start, extent.size)
                    slab.extent = extent._replace(residency=UNBACKED)
                del slab
            elif what == "trim":
                ours.trim(data.draw(st.sampled_from([0, 3 * GRAIN_BYTES])))
            assert [content(ours, slab) for slab, _ in live] == [data for _, data in live]
            used, idle = usage(ours)
            assert used == sum(slab.extent.size for slab, _ in live)
            assert idle <= 8 * GRAIN_BYTES
            assert held(ours.segment) <= used + idle
        live.clear()
        ours.trim(0)
        assert usage(ours) == (0, 0)
        assert held(ours.segment) == 0


def test_parts():
    """Several buffers in one slab begin a page each; where each lies is told by its place."""
    parts = [block(n, n) for n in (PAGE_BYTES + 1, 20_000, 1, 3 * PAGE_BYTES)]
    with slab_sender() as ours:
        for _ in range(3):
            slab = ours.put(*map(memoryview, parts))
            at = 0
            for part in parts:
                ref = slab.ref(at, len(part))
                window, length = ours.extents.window_at(slab.extent.start)
                assert ref == SlabRef(
                    window, length, slab.extent.start, ref.slab + at, len(part), COPY
                )
                assert content(ours, slab)[at : at + len(part)] == part
                at += round_to_pages(len(part))
            del slab


def test_memory_behind_the_data_is_there():
    """A larger buffer in the same slab later finds memory for all of it, as it was told."""
    with slab_sender() as ours:
        ours.put(memoryview(b"x"))
        assert held(ours.segment) == GRAIN_BYTES if os.name == "posix" else True
        put(ours, block(GRAIN_BYTES))


@pytest.mark.parametrize("way", ["usual", "cannot punch", "tags", "old kernel"])
def test_reserved_memory_is_zeros(monkeypatch, way):
    """Also where other data was before, and where memory cannot be given back."""
    if way == "old kernel":
        monkeypatch.setattr(sender, "populate", lambda *_, **__: False)
    segment = TaggedSegment() if way == "tags" else None
    nbytes = COPY_PIECE_BYTES + 3 * GRAIN_BYTES + 1
    with slab_sender(segment) as ours:
        if way == "cannot punch":
            monkeypatch.setattr(ours.segment, "punch_hole", lambda *_: False)
        for uses in (0, 1, 2):
            for trim in (False, True):
                for seed in range(uses):
                    put(ours, block(nbytes, seed))
                if trim:
                    ours.trim(0)
                slab = ours.reserve(nbytes, READ)
                assert slab.mode == READ
                assert content(ours, slab) == bytes(nbytes)
                window, offset = ours.mapping(slab.extent)
                window[offset : offset + nbytes] = block(nbytes, 9)
                assert content(ours, slab) == block(nbytes, 9)
                del slab


# -- giving back -------------------------------------------------------------------------------


@linux
def test_memory_beyond_what_is_kept_goes_back():
    """At once when a slab is dropped; the rest when it is asked for."""
    keep = 16 * GRAIN_BYTES
    with slab_sender(keep=keep) as ours:
        slabs = [ours.put(memoryview(block(4 * GRAIN_BYTES, n))) for n in range(16)]
        assert held(ours.segment) == 64 * GRAIN_BYTES
        while slabs:
            slabs.pop()
            used, idle = 4 * GRAIN_BYTES * len(slabs), ours.extents.free_resident_bytes
            assert idle <= keep
            assert held(ours.segment) == used + idle
        assert ours.extents.free_resident_bytes > 0
        ours.trim(0)
        assert held(ours.segment) == ours.extents.free_resident_bytes == 0


@linux
def test_surplus_waits_for_the_trimmer():
    """With a trimmer that says so, memory is kept until it is trimmed."""

    class Trimmer:
        waits = True

        def on_allocate(self, *, large):
            asked.append(large)

        def keeps_surplus(self):
            return self.waits

    asked, trimmer = [], Trimmer()
    with slab_sender(keep=2 * GRAIN_BYTES, trimmer=trimmer) as ours:
        put(ours, block(GRAIN_BYTES))
        put(ours, block(8 * GRAIN_BYTES))
        assert asked == [False, True]
        assert ours.extents.free_resident_bytes == held(ours.segment) >= 8 * GRAIN_BYTES
        trimmer.waits = False
        put(ours, block(GRAIN_BYTES))
        assert held(ours.segment) <= 2 * GRAIN_BYTES


def test_leaving():
    """Who wants to go is told when the last slab is dropped, and no sooner."""
    with slab_sender() as ours:
        left = []
        one, two = (ours.put(memoryview(b"x")) for _ in range(2))
        ours.on_unused = lambda: left.append(1)
        del one
        assert not left
        del two
        assert len(left) == 1


def test_dropped_after_the_end():
    """A slab may outlive its slab_sender."""
    with slab_sender() as ours:
        slab, reserved = ours.put(memoryview(block(GRAIN_BYTES))), ours.reserve(GRAIN_BYTES, WRITE)
        window, offset = ours.mapping(reserved.extent)
    ours.close()
    assert ours.put(memoryview(b"x")) is None
    assert "is closed" in str(ours.last_error)
    with pytest.raises(OSError, match="is closed"):
        ours.reserve(1, WRITE)
    del slab
    assert ours.put(memoryview(b"x")) is None
    window[offset] = 7
    del reserved
    assert window[offset] == 7
    assert ours.segment.handle == -1


# -- no memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("method", ["write", "map", "grow", "reserve"])
@pytest.mark.parametrize("error", [FULL, OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_no_room(monkeypatch, method, error, threads):
    """The answer is None and the reason; nothing is used by it, and the next one works."""
    monkeypatch.setattr(sender, "MIN_THREADED_COPY_BYTES", GRAIN_BYTES)
    with slab_sender(threads=threads) as ours:
        data = bytearray(block(5 * GRAIN_BYTES // 2))  # the end of its slab is reserved
        with monkeypatch.context() as patch:
            patch.setattr(ours.segment, method, failing(error))
            assert ours.put(memoryview(data)) is None
        assert ours.last_error is error
        assert error.__traceback__ is None  # it would keep the data
        assert usage(ours) == (0, 0)
        assert held(ours.segment) == 0
        put(ours, data)


@linux
def test_no_room_half_way(monkeypatch):
    """What was written before the device was full goes back to the system."""
    with slab_sender() as ours:
        write = ours.segment.write

        def full(position, data):
            write(position, data[:GRAIN_BYTES])
            raise FULL

        with monkeypatch.context() as patch:
            patch.setattr(ours.segment, "write", full)
            assert (
                ours.put(memoryview(block(4 * GRAIN_BYTES)), memoryview(block(GRAIN_BYTES))) is None
            )
        assert held(ours.segment) == 0
        assert usage(ours) == (0, 0)
        put(ours, block(4 * GRAIN_BYTES, 1))


@pytest.mark.parametrize("method", ["reserve", "map", "grow"])
def test_no_room_to_reserve(monkeypatch, method):
    """Here it is an error, because the user asked for this very memory."""
    with slab_sender() as ours:
        with monkeypatch.context() as patch:
            patch.setattr(ours.segment, method, failing(FULL))
            with pytest.raises(OSError, match="No space"):
                ours.reserve(GRAIN_BYTES, WRITE)
        assert usage(ours) == (0, 0)
        assert content(ours, ours.reserve(GRAIN_BYTES, WRITE)) == bytes(GRAIN_BYTES)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted(monkeypatch, error):
    """Whatever ends a copy half way, its slab is free again."""
    with slab_sender() as ours:
        with monkeypatch.context() as patch:
            patch.setattr(ours.segment, "write", failing(error))
            with pytest.raises(error):
                ours.put(memoryview(block(GRAIN_BYTES)))
            patch.setattr(ours.segment, "reserve", failing(error))
            with pytest.raises(error):
                ours.reserve(GRAIN_BYTES, WRITE)
        assert usage(ours) == (0, 0)
        put(ours, block(GRAIN_BYTES))


# -- from anywhere -----------------------------------------------------------------------------


def test_dropped_while_the_lock_is_held():
    """By another thread, or by the collector in the midst of it: nobody waits for the lock."""
    with slab_sender(keep=0) as ours:
        slabs = [ours.put(memoryview(block(GRAIN_BYTES, n))) for n in range(2)]
        with ours._lock:
            slabs.pop()
            thread = threading.Thread(target=slabs.pop)
            thread.start()
            thread.join(5)
            assert not thread.is_alive()
        assert usage(ours) == (0, 0)
        assert held(ours.segment) == 0


def test_collected_while_a_slab_is_taken(monkeypatch):
    """What comes back meanwhile is given to the system without another call."""

    class Cycle:
        pass

    with slab_sender(keep=0) as ours:
        cycle = Cycle()
        cycle.itself, cycle.slab = cycle, ours.put(memoryview(block(GRAIN_BYTES)))
        del cycle
        allocate = ours.extents.allocate

        def collecting(size):
            gc.collect()
            return allocate(size)

        monkeypatch.setattr(ours.extents, "allocate", collecting)
        slab = ours.put(memoryview(block(GRAIN_BYTES, 1)))
        assert ours.extents.used_bytes == slab.extent.size
        assert held(ours.segment) == slab.extent.size
        assert content(ours, slab) == block(GRAIN_BYTES, 1)


def test_last_slab_dropped_while_trimming(monkeypatch):
    """It is not missed by who waits for it to leave."""
    with slab_sender() as ours:
        slabs, left = [ours.put(memoryview(b"x"))], []
        with monkeypatch.context() as patch:
            release = ours.extents.release_memory
            patch.setattr(
                ours.extents, "release_memory", lambda keep: (slabs.clear(), release(keep))[1]
            )
            ours.on_unused = lambda: left.append(1)
            ours.trim(0)
        assert left == [1]


def test_many_threads():
    """Slabs are put and dropped by several threads at once, and each finds its own content."""
    with slab_sender(keep=4 * GRAIN_BYTES) as ours:
        wrong, start = [], threading.Barrier(4)

        def work(seed):
            start.wait(5)
            mine = []
            for n in range(40):
                data = block(GRAIN_BYTES * (1 + n % 3) - n, seed * 50 + n)
                mine.append((ours.put(memoryview(data)), data))
                wrong.extend(n for slab, data in mine if content(ours, slab) != data)
                if n % 4 == 3:
                    del mine[::2]

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        used, idle = usage(ours)
        assert used == 0
        assert idle <= 4 * GRAIN_BYTES
        assert held(ours.segment) <= idle


@forks
def test_a_forked_copy_gives_nothing_back():
    """The memory is its parent's, who still uses it."""
    with slab_sender(keep=0) as ours:
        slabs = [ours.put(memoryview(block(GRAIN_BYTES)))]
        with Child(slabs.clear, lambda: ours.trim(0)) as child:
            child.step()
            child.step()
        assert content(ours, slabs[0]) == block(GRAIN_BYTES)
