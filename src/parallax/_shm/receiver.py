"""Big buffers out of shared memory: the receiver's side.

A *receiver* maps the windows of another process's segment and makes views of what it is lent. When
the last array over a view has been dropped, the slab is given back.

In a worker mappings are private (copy-on-write): an item may write to what it was given, and
neither the parent nor a sibling sees it. In the parent they are shared: the worker has no use for a
result that it has sent, and pages that are written to need not be copied.

Guarantees: a view stays right as long as anything refers to it, also after a fork of this process
and after the end of the sender; every buffer is given back once, whether it was looked at or not,
or when the channel is closed if it is shared by name and was looked at by a process that forked.
Assumptions: a mapping is never closed, only dropped: memory that an array still shows must not go.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque

from parallax._core.light_stdlib import NamedTuple, PickleBuffer
from parallax._shm.segment import LINUX, PAGE_BYTES, Segment, populate, refresh, round_to_pages
from parallax._shm.sender import COPY, MIN_SHARED_BYTES, READ, WRITE, Ref

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

__all__ = ["SlabReceiver"]

#: Bytes that may wait to be reused until their sender hears of it. More goes back to the system.
MAX_UNREPORTED_BYTES = 1 << 26


class _View(NamedTuple):
    """A buffer in use, and where it is mapped."""

    ref: Ref
    window: mmap.mmap
    offset: int
    #: the object that stands for it in this process.
    alive: weakref.ref[Any]


class SlabReceiver:
    """Views of one sender's segment."""

    def __init__(self, segment: Segment, *, private: bool) -> None:
        """Take over a segment.

        Args:
            segment: the sender's.
            private: what is written here is seen by nobody else.
        """
        self._segment = segment
        self._private = private
        #: mapped windows by first byte and whether they are private.
        self._windows: dict[tuple[int, bool], mmap.mmap] = {}
        #: what is in use, by the identity of the reference that tells of its end.
        self._views: dict[int, _View] = {}
        #: how many views there are of a buffer, by its first byte.
        self._users: dict[int, int] = {}
        #: first bytes of slabs, as often as they are to be given back; see ``told``.
        self.returns: deque[int] = deque()
        self._waiting = 0
        self._abandoned = False
        self._owner = os.getpid()
        _all.add(self)

    def is_valid(self, ref: Ref) -> bool:
        """Whether a sender can have said so: it is in its window, and that is in the segment."""
        end = ref.window + ref.length
        return (
            ref.window <= ref.slab <= ref.position <= ref.position + ref.nbytes <= end
            and (end <= self._segment.size() or not isinstance(self._segment.handle, int))
            and not (ref.window | ref.slab) % PAGE_BYTES
            and (ref.mode in {READ, WRITE} or (ref.mode == COPY and not ref.position % PAGE_BYTES))
        )

    def view(self, ref: Ref) -> memoryview | bytearray:
        """The memory of a buffer that was lent; given back when nothing refers to it any more.

        Raises:
            OSError: it is not there any more.
        """
        if self._abandoned or (
            # One of several in a slab, which must not be kept for it alone.
            not self._private and ref.nbytes < MIN_SHARED_BYTES and ref.mode == COPY
        ):
            return self.copy(ref)
        try:
            return self._view(ref)
        except (OSError, ImportError):  # no room for another mapping, a Python without ctypes
            return self.copy(ref)

    def copy(self, ref: Ref) -> bytearray:
        """The same in memory of our own; it is given back at once.

        Raises:
            OSError: it is not there any more.
        """
        if self._abandoned:
            raise OSError("the memory was given up when its sender was")
        data = bytearray(ref.nbytes)
        if not self._segment.read(ref.position, data):
            window = self._window(ref, private=False)
            data[:] = memoryview(window)[ref.position - ref.window :][: ref.nbytes]
        self.give_back(ref)
        return data

    def give_back(self, ref: Ref) -> None:
        """Give back what was not looked at."""
        self.returns.append(ref.slab)

    def take_returns(self) -> list[int]:
        """What is to be given back, for the sender to be told now.

        Returns:
            First bytes of slabs; one more where its memory went back to the system meanwhile.
        """
        told = []
        while self.returns:
            told.append(self.returns.popleft())
        self._waiting = 0
        return told

    def abandon(self) -> None:
        """The sender is gone: only what is in use here is kept. Idempotent."""
        if self._abandoned or os.getpid() != self._owner:
            return
        self._abandoned = True
        # Its views and it refer to each other only: together they would be collected in silence,
        # and nobody would close the segment.
        _orphans.add(self)
        self._windows.clear()
        if self._views and not self._private:
            # What it had not told us of, or was reusing, would stay as long as any view does.
            at = 0
            live = sorted((v.ref.position, v.ref.nbytes) for v in list(self._views.values()))
            for position, nbytes in [*live, (self._segment.size(), 0)]:
                if position > at:
                    self._segment.punch_hole(at, position - at)
                at = max(at, round_to_pages(position + nbytes))
        self._close_if_unused()

    def make_private(self) -> None:
        """Make what is in use this process's own memory: it is about to be forked.

        The copy of this process will know nothing of lending. What it sees must not be reused, and
        what one of both writes must not be seen by the other, as with all other memory.
        """
        for key, view in list(self._views.items()):
            ref = view.ref
            if view.alive() is None:
                continue
            if ref.mode != COPY:
                # It stays lent: the copy may look at it for long, and will not tell.
                self._views.pop(key, None)
                continue
            # From now on nobody else's buffer may be looked for in this mapping.
            self._windows.pop((ref.window, self._private), None)
            size = round_to_pages(ref.nbytes)
            if not self._private and not _remap(view, size, self._segment):
                continue
            if not populate(view.window, view.offset, size, write=True):
                touched = memoryview(view.window)[view.offset : view.offset + size]
                for page in range(0, size, mmap.PAGESIZE):
                    touched[page] = touched[page]
            if self._views.pop(key, None) is not None:
                self._release(view)
        self._close_if_unused()

    # -- parts ---------------------------------------------------------------------------------

    def _view(self, ref: Ref) -> memoryview:
        import ctypes

        private = self._private and ref.mode == COPY
        if private and (not LINUX or self._users.get(ref.position)):
            # What another item has written to its copy is not for this one to see.
            if not isinstance(self._segment.handle, int):
                raise OSError("only whole windows can be mapped")
            window, offset = (
                self._segment.map(ref.position, round_to_pages(ref.nbytes), private=True),
                0,
            )
        else:
            window, offset = self._window(ref, private=private), ref.position - ref.window
        # NumPy asks the object behind a memoryview for its memory, so that object has to be one
        # of its own for each buffer: that its memory is not in use any more shows by its end.
        exporter = (ctypes.c_ubyte * ref.nbytes).from_buffer(window, offset)
        self._users[ref.position] = self._users.get(ref.position, 0) + 1
        alive = weakref.ref(exporter, self._ended)
        self._views[id(alive)] = _View(ref, window, offset, alive)
        view = PickleBuffer(exporter).raw()
        return view.toreadonly() if ref.mode == READ else view

    def _window(self, ref: Ref, *, private: bool) -> mmap.mmap:
        window = self._windows.get((ref.window, private))
        if window is None:
            window = self._segment.map(ref.window, ref.length, private=private)
            self._windows[ref.window, private] = window
        return window

    def _ended(self, alive: weakref.ref[Any]) -> None:
        """The last array over a view was dropped. From any thread, at any moment."""
        view = self._views.pop(id(alive), None)
        if view is None or os.getpid() != self._owner:
            return
        if self._private and view.ref.mode == COPY:
            # What was written is dropped: the next one there sees what its sender wrote.
            refresh(view.window, view.offset, round_to_pages(view.ref.nbytes))
        self._release(view)

    def _release(self, view: _View) -> None:
        ref = view.ref
        users = self._users.get(ref.position, 1) - 1
        if users:
            self._users[ref.position] = users
        else:
            self._users.pop(ref.position, None)
        note = ref.slab
        if not users and not self._private and ref.mode == COPY:
            self._waiting += ref.nbytes
            if self._abandoned or self._waiting > MAX_UNREPORTED_BYTES:
                self._waiting -= ref.nbytes
                self._segment.punch_hole(ref.position, round_to_pages(ref.nbytes))
                note += 1
        self.returns.append(note)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._abandoned and not self._views:
            self._segment.close()
            _orphans.discard(self)


def _remap(view: _View, size: int, segment: Segment) -> bool:
    """Make part of a shared mapping a private one in place; False if that cannot be done."""
    import ctypes

    if not isinstance(segment.handle, int):
        return False
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_ssize_t,
    )
    address = ctypes.addressof(ctypes.c_ubyte.from_buffer(view.window, view.offset))
    flags = mmap.MAP_PRIVATE | _MAP_FIXED
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    found = call(address, size, protection, flags, segment.handle, view.ref.position)
    return bool(found == address)


#: Of mmap(2), which replaces what is mapped at that address without a moment in between.
_MAP_FIXED = 0x10

_all: weakref.WeakSet[SlabReceiver] = weakref.WeakSet()
#: those whose sender is gone while something of it is in use.
_orphans: set[SlabReceiver] = set()


def _before_fork() -> None:
    for receiver in list(_all):
        receiver.make_private()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
