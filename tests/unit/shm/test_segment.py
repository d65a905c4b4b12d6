"""Where shared memory comes from: what is tried, and what is said if there is none."""

from __future__ import annotations

import errno
import mmap
import os
import sys
import tempfile
import threading

import pytest
from helpers.shm import block, held, lending, linux

from parallax._shm import segment
from parallax._shm.segment import PAGE, Store, make_store, pages

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
def store():
    made = make_store()
    made.grow(16 * PAGE)
    yield made
    made.close()


# -- where it is -------------------------------------------------------------------------------


@linux
def test_anonymous_memory():
    """On Linux it has no name, and no device can be full."""
    made = make_store()
    assert made.roomy
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
        monkeypatch.setattr(segment, "_MEMORY", str(tmp_path / "missing"))
    elif folder == "read-only":
        monkeypatch.setattr(segment, "_MEMORY", "/proc")  # where nobody can make a file
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(os.listdir(tmp_path))
    with lending(private=True) as (ours, borrower):
        assert not ours.store.roomy  # a device can be full
        assert os.fstat(ours.store.handle).st_nlink == 0
        assert os.fstat(ours.store.handle).st_mode & 0o777 == 0o600
        slab = None
        for seed in range(3):
            del slab
            slab = ours.put(memoryview(block(5 * PAGE, seed)))
            view = borrower.view(slab.ref())
            assert view == block(5 * PAGE, seed)
            view[0] = 1
            del view
            ours.trim(0)
        assert set(os.listdir(tmp_path)) == before
        del slab
        ours.trim(0)
        assert ours.resources() == (0, 0)


@pytest.mark.usefixtures("no_memfd")
def test_read_only_folders(monkeypatch):
    """Then there is none, and it is said what was tried."""
    monkeypatch.setattr(segment, "_MEMORY", os.curdir)
    monkeypatch.setattr(os, "memfd_create", refuse("no memory"), raising=False)
    monkeypatch.setattr(tempfile, "mkstemp", refuse("read-only folder"))
    monkeypatch.setattr(segment, "WINDOWS", False)
    with pytest.raises(OSError) as raised:
        make_store()
    assert "memfd_create" in str(raised.value)
    assert "no memory" in str(raised.value)
    tried = 2 if sys.platform == "linux" else 1
    assert str(raised.value).count("read-only folder") == tried


@posix
@pytest.mark.usefixtures("no_memfd")
def test_no_temporary_folder(monkeypatch, tmp_path):
    """Not one that can be written to: that is an OSError as well."""
    monkeypatch.setattr(segment, "_MEMORY", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(OSError, match="No usable temporary directory"):
        make_store()


def test_tags(monkeypatch):
    """On Windows it is a tag that cannot be guessed; nothing is reserved or read by it."""
    monkeypatch.setattr(segment, "WINDOWS", True)
    one, two = make_store(), make_store()
    assert isinstance(one.handle, str)
    assert len(one.handle) > 32
    assert one.handle != two.handle
    assert one.duplicate().handle == one.handle
    assert not one.write(0, memoryview(b"x"))
    assert not one.read(0, bytearray(1))
    one.grow(1 << 40)
    one.reserve(0, 1 << 40)
    assert one.size() == 0
    one.close()
    assert isinstance(one.handle, str)


# -- what can be done with it ------------------------------------------------------------------


def test_mappings_and_writes_are_the_same_memory(store):
    """Whatever it is written by; a private mapping is seen by nobody else."""
    window = store.map(PAGE, 4 * PAGE)
    private = store.map(PAGE, 4 * PAGE, private=True)
    assert store.write(2 * PAGE + 3, memoryview(b"written"))
    assert window[PAGE + 3 : PAGE + 10] == private[PAGE + 3 : PAGE + 10] == b"written"
    private[PAGE + 3] = 0
    window[0] = 5
    data = bytearray(3 * PAGE)
    assert store.read(0, data)
    assert data[2 * PAGE + 3 : 2 * PAGE + 10] == b"written"
    assert data[PAGE] == 5


def test_beyond_its_end(store):
    """There is nothing to be mapped, and nothing to be read."""
    with pytest.raises(OSError):
        store.map(16 * PAGE, PAGE)
    with pytest.raises(OSError):
        store.map(0, 17 * PAGE)
    assert not store.read(15 * PAGE, bytearray(2 * PAGE))
    store.grow(8 * PAGE)
    assert store.size() == 16 * PAGE
    assert not store.punch(20 * PAGE, PAGE)


def test_pieces(monkeypatch, store):
    """What is large goes by pieces."""
    monkeypatch.setattr(segment, "PIECE", PAGE - 7)
    data, back = block(3 * PAGE + 5), bytearray(3 * PAGE + 5)
    assert store.write(11, memoryview(data))
    assert store.read(11, back)
    assert back == data


def test_short_writes(monkeypatch, store):
    """A system that takes less than it is given is given the rest."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:100], at))
    assert store.write(7, memoryview(block(999)))
    back = bytearray(999)
    assert store.read(7, back)
    assert back == block(999)


@linux
def test_memory_is_reserved_and_given_back(store):
    """Reserved pages are there; those that are given back are zeros, whoever has them mapped."""
    store.reserve(2 * PAGE, 4 * PAGE)
    assert held(store) == 4 * PAGE
    window = store.map(0, 8 * PAGE)
    window[2 * PAGE : 6 * PAGE] = b"x" * (4 * PAGE)
    assert store.punch(3 * PAGE, 2 * PAGE)
    assert held(store) == 2 * PAGE
    expected = b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE
    assert window[2 * PAGE : 6 * PAGE] == expected


@linux
def test_reserved_without_fallocate(monkeypatch, store):
    """Where there is no such call zeros are written: at most what was asked for."""
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(segment, "PIECE", 2 * PAGE)
    store.reserve(PAGE, 5 * PAGE)
    assert held(store) == 5 * PAGE
    assert store.size() == 16 * PAGE


@linux
def test_punching_that_fails(monkeypatch, store):
    """It is told that the memory is there still."""
    monkeypatch.setattr(store, "map", refuse("no mapping"))
    assert not store.punch(0, PAGE)


def test_closed():
    """Mappings live on; a closed store shows no other memory."""
    made = make_store()
    made.grow(PAGE)
    window = made.map(0, PAGE)
    window[0] = 7
    made.close()
    made.close()
    assert window[0] == 7
    if os.name == "posix":
        for use in (
            lambda: made.map(0, PAGE),
            lambda: made.map(0, PAGE, private=True),
            lambda: made.write(0, memoryview(b"x")),
            lambda: made.read(0, bytearray(1)),
            made.size,
        ):
            with pytest.raises(OSError):
                use()
        assert not made.punch(0, PAGE)


def test_duplicates(store):
    """Each is closed by itself."""
    other = store.duplicate()
    assert isinstance(other, Store)
    store.write(0, memoryview(b"same"))
    store.close()
    window = other.map(0, PAGE)
    assert window[:4] == b"same"
    other.close()


@linux
def test_refresh_and_populate(monkeypatch, store):
    """A private page shows the store's again; pages of a private mapping become one's own."""
    private = store.map(0, 4 * PAGE, private=True)
    private[:2] = b"ab"
    assert segment.refresh(private, 0, PAGE)
    assert private[:2] == b"\0\0"
    if segment.populate(private, 0, 2 * PAGE, write=True):  # Linux 5.14
        store.write(0, memoryview(b"x" * (4 * PAGE)))
        assert private[0] == 0
        assert private[2 * PAGE] == ord("x")
    monkeypatch.setattr(segment, "_POPULATE_WRITE", 9999)
    assert not segment.populate(private, 0, PAGE, write=True)
    monkeypatch.setattr(segment, "LINUX", False)
    assert not segment.refresh(private, 0, PAGE)
    assert not segment.populate(private, 0, PAGE, write=True)


def test_pages():
    """Whole pages, none for nothing."""
    assert [pages(n) for n in (0, 1, PAGE - 1, PAGE, PAGE + 1)] == [0, PAGE, PAGE, PAGE, 2 * PAGE]
    assert PAGE == mmap.PAGESIZE


def test_more_than_there_is_room_for(monkeypatch):
    """An error, before the out-of-memory killer comes."""
    from parallax._shm import sender

    monkeypatch.setattr(sender, "room", lambda: 1 << 26)
    store = make_store()
    lender = sender.Lender(store, threading.Lock())
    with pytest.raises(OSError, match="more than there is room for"):
        lender.reserve(1 << 27, sender.WRITE)
    assert lender.put(memoryview(bytearray(1 << 27))) is None
    kept = lender.put(memoryview(bytearray(1 << 25)))
    assert kept is not None
    del kept
    lender.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_room_is_what_the_system_says():
    import psutil

    from parallax._shm.segment import room

    assert 0 < room() <= psutil.virtual_memory().total
