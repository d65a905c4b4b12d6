"""Where shared memory comes from: what is tried, and what is said if there is none."""

from __future__ import annotations

import errno
import mmap
import os
import sys
import tempfile
import threading

import pytest
from helpers.shm import block, duplicate, held, linux, sender_and_receiver, usage

from parallax._shm import segment
from parallax._shm.segment import PAGE_BYTES, Segment, create_segment, round_to_pages

posix = pytest.mark.skipif(os.name != "posix", reason="made of descriptors elsewhere")


def refuse(words):
    """Stands for a function of the system that fails."""

    def function(*args, **kwargs):
        raise OSError(errno.EROFS, words)

    return function


@pytest.fixture
def no_memfd(monkeypatch):
    """A system without memory that lies in no file system."""
    monkeypatch.delattr(os, "memfd_create", raising=False)


@pytest.fixture
def memory():
    made = create_segment()
    made.grow(16 * PAGE_BYTES)
    yield made
    made.close()


# -- where it is -------------------------------------------------------------------------------


@linux
def test_anonymous_memory():
    """On Linux it has no name, and no device can be full."""
    made = create_segment()
    assert made.anonymous
    assert os.readlink(f"/proc/self/fd/{made.handle}").startswith("/memfd:parallax")
    assert not os.get_inheritable(made.handle)
    assert held(made) == made.size() == 0
    made.close()


@posix
@pytest.mark.usefixtures("no_memfd")
@pytest.mark.parametrize("folder", ["usual", "missing", "read-only"])
def test_files(monkeypatch, tmp_path, folder):
    """Elsewhere a file that is gone at once: in memory if it can be, in the temporary folder."""
    if folder == "missing":
        monkeypatch.setattr(segment, "_MEMORY_FOLDER", str(tmp_path / "missing"))
    elif folder == "read-only":
        monkeypatch.setattr(segment, "_MEMORY_FOLDER", "/proc")  # where nobody can make a file
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(os.listdir(tmp_path))
    with sender_and_receiver(private=True) as (ours, receiver):
        assert not ours.segment.anonymous  # a device can be full
        assert os.fstat(ours.segment.handle).st_nlink == 0
        assert os.fstat(ours.segment.handle).st_mode & 0o777 == 0o600
        slab = None
        for seed in range(3):
            del slab
            slab = ours.put(memoryview(block(5 * PAGE_BYTES, seed)))
            view = receiver.view(slab.ref())
            assert view == block(5 * PAGE_BYTES, seed)
            view[0] = 1
            del view
            ours.trim(0)
        assert set(os.listdir(tmp_path)) == before
        del slab
        ours.trim(0)
        assert usage(ours) == (0, 0)


@pytest.mark.usefixtures("no_memfd")
def test_read_only_folders(monkeypatch):
    """Then there is none, and it is said what was tried."""
    monkeypatch.setattr(segment, "_MEMORY_FOLDER", os.curdir)
    monkeypatch.setattr(os, "memfd_create", refuse("no memory"), raising=False)
    monkeypatch.setattr(tempfile, "mkstemp", refuse("read-only folder"))
    monkeypatch.setattr(segment, "WINDOWS", False)
    with pytest.raises(OSError) as raised:
        create_segment()
    assert "memfd_create" in str(raised.value)
    assert "no memory" in str(raised.value)
    tried = 2 if sys.platform == "linux" else 1
    assert str(raised.value).count("read-only folder") == tried


@posix
@pytest.mark.usefixtures("no_memfd")
def test_no_temporary_folder(monkeypatch, tmp_path):
    """Not one that can be written to: that is an OSError as well."""
    monkeypatch.setattr(segment, "_MEMORY_FOLDER", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(OSError, match="No usable temporary directory"):
        create_segment()


def test_tags(monkeypatch):
    """On Windows it is a tag that cannot be guessed; nothing is reserved or read by it."""
    monkeypatch.setattr(segment, "WINDOWS", True)
    one, two = create_segment(), create_segment()
    assert isinstance(one.handle, str)
    assert len(one.handle) > 32
    assert one.handle != two.handle
    assert duplicate(one).handle == one.handle
    assert not one.write(0, memoryview(b"x"))
    assert not one.read(0, bytearray(1))
    one.grow(1 << 40)
    one.reserve(0, 1 << 40)
    assert one.size() == 0
    one.close()
    assert isinstance(one.handle, str)


# -- what can be done with it ------------------------------------------------------------------


def test_mappings_and_writes_are_the_same_memory(memory):
    """Whatever it is written by; a private mapping is seen by nobody else."""
    window = memory.map(PAGE_BYTES, 4 * PAGE_BYTES)
    private = memory.map(PAGE_BYTES, 4 * PAGE_BYTES, private=True)
    assert memory.write(2 * PAGE_BYTES + 3, memoryview(b"written"))
    assert (
        window[PAGE_BYTES + 3 : PAGE_BYTES + 10]
        == private[PAGE_BYTES + 3 : PAGE_BYTES + 10]
        == b"written"
    )
    private[PAGE_BYTES + 3] = 0
    window[0] = 5
    data = bytearray(3 * PAGE_BYTES)
    assert memory.read(0, data)
    assert data[2 * PAGE_BYTES + 3 : 2 * PAGE_BYTES + 10] == b"written"
    assert data[PAGE_BYTES] == 5


def test_beyond_its_end(memory):
    """There is nothing to be mapped, and nothing to be read."""
    with pytest.raises(OSError):
        memory.map(16 * PAGE_BYTES, PAGE_BYTES)
    with pytest.raises(OSError):
        memory.map(0, 17 * PAGE_BYTES)
    assert not memory.read(15 * PAGE_BYTES, bytearray(2 * PAGE_BYTES))
    memory.grow(8 * PAGE_BYTES)
    assert memory.size() == 16 * PAGE_BYTES
    assert not memory.punch_hole(20 * PAGE_BYTES, PAGE_BYTES)


def test_pieces(monkeypatch, memory):
    """What is large goes by pieces."""
    monkeypatch.setattr(segment, "COPY_PIECE_BYTES", PAGE_BYTES - 7)
    data, back = block(3 * PAGE_BYTES + 5), bytearray(3 * PAGE_BYTES + 5)
    assert memory.write(11, memoryview(data))
    assert memory.read(11, back)
    assert back == data


def test_short_writes(monkeypatch, memory):
    """A system that takes less than it is given is given the rest."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:100], at))
    assert memory.write(7, memoryview(block(999)))
    back = bytearray(999)
    assert memory.read(7, back)
    assert back == block(999)


@linux
def test_memory_is_reserved_and_given_back(memory):
    """Reserved pages are there; those that are given back are zeros, whoever has them mapped."""
    memory.reserve(2 * PAGE_BYTES, 4 * PAGE_BYTES)
    assert held(memory) == 4 * PAGE_BYTES
    window = memory.map(0, 8 * PAGE_BYTES)
    window[2 * PAGE_BYTES : 6 * PAGE_BYTES] = b"x" * (4 * PAGE_BYTES)
    assert memory.punch_hole(3 * PAGE_BYTES, 2 * PAGE_BYTES)
    assert held(memory) == 2 * PAGE_BYTES
    expected = b"x" * PAGE_BYTES + bytes(2 * PAGE_BYTES) + b"x" * PAGE_BYTES
    assert window[2 * PAGE_BYTES : 6 * PAGE_BYTES] == expected


@linux
def test_reserved_without_fallocate(monkeypatch, memory):
    """Where there is no such call zeros are written: at most what was asked for."""
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(segment, "COPY_PIECE_BYTES", 2 * PAGE_BYTES)
    memory.reserve(PAGE_BYTES, 5 * PAGE_BYTES)
    assert held(memory) == 5 * PAGE_BYTES
    assert memory.size() == 16 * PAGE_BYTES


@linux
def test_punching_that_fails(monkeypatch, memory):
    """It is told that the memory is there still."""
    monkeypatch.setattr(memory, "map", refuse("no mapping"))
    assert not memory.punch_hole(0, PAGE_BYTES)


def test_closed():
    """Mappings live on; a closed memory shows no other memory."""
    made = create_segment()
    made.grow(PAGE_BYTES)
    window = made.map(0, PAGE_BYTES)
    window[0] = 7
    made.close()
    made.close()
    assert window[0] == 7
    if os.name == "posix":
        for use in (
            lambda: made.map(0, PAGE_BYTES),
            lambda: made.map(0, PAGE_BYTES, private=True),
            lambda: made.write(0, memoryview(b"x")),
            lambda: made.read(0, bytearray(1)),
            made.size,
        ):
            with pytest.raises(OSError):
                use()
        assert not made.punch_hole(0, PAGE_BYTES)


def test_duplicates(memory):
    """Each is closed by itself."""
    other = duplicate(memory)
    assert isinstance(other, Segment)
    memory.write(0, memoryview(b"same"))
    memory.close()
    window = other.map(0, PAGE_BYTES)
    assert window[:4] == b"same"
    other.close()


@linux
def test_refresh_and_populate(monkeypatch, memory):
    """A private page shows the memory's again; pages of a private mapping become one's own."""
    private = memory.map(0, 4 * PAGE_BYTES, private=True)
    private[:2] = b"ab"
    assert segment.discard_writes(private, 0, PAGE_BYTES)
    assert private[:2] == b"\0\0"
    if segment.populate(private, 0, 2 * PAGE_BYTES):  # Linux 5.14
        memory.write(0, memoryview(b"x" * (4 * PAGE_BYTES)))
        assert private[0] == 0
        assert private[2 * PAGE_BYTES] == ord("x")
    monkeypatch.setattr(segment, "_POPULATE_WRITE", 9999)
    assert not segment.populate(private, 0, PAGE_BYTES)
    monkeypatch.setattr(segment, "LINUX", False)
    assert not segment.discard_writes(private, 0, PAGE_BYTES)
    assert not segment.populate(private, 0, PAGE_BYTES)


def test_pages():
    """Whole pages, none for nothing."""
    assert [round_to_pages(n) for n in (0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1)] == [
        0,
        PAGE_BYTES,
        PAGE_BYTES,
        PAGE_BYTES,
        2 * PAGE_BYTES,
    ]
    assert PAGE_BYTES == mmap.PAGESIZE


@linux
def test_more_than_there_is_memory(monkeypatch):
    """An error, before the out-of-memory killer comes."""
    from parallax._core import memory as system_memory
    from parallax._shm import sender
    from parallax._shm.buffers import WRITE

    monkeypatch.setattr(system_memory, "memory_available", lambda: 1 << 26)
    memory = create_segment()
    slab_sender = sender.SlabSender(memory, threading.Lock())
    with pytest.raises(OSError, match="more than the available memory"):
        slab_sender.reserve(1 << 27, WRITE)
    assert slab_sender.put(memoryview(bytearray(1 << 27))) is None
    kept = slab_sender.put(memoryview(bytearray(1 << 25)))
    assert kept is not None
    del kept
    slab_sender.close()
