"""Large buffers out of shared memory: the receiver's side.

The receiver maps the windows of another process's segment and creates views of the buffers that it
is sent. A slab is returned when the last object over its view has been dropped. In a worker,
mappings are private (copy-on-write): an item may write to its arguments without an effect on the
parent or on another item. In the parent they are shared: the worker does not use a result that it
has sent, and pages that are written to need not be copied.

Guarantees: a view stays valid as long as anything refers to it, also after a fork of this process
and after the end of the sender. Every buffer is returned once, used or not; one that the user
shares, and that a process saw which then forked, when the channel is closed.
Assumptions: a mapping is never closed, only dropped, because an array may still show its memory.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from _thread import RLock
from collections import deque
from collections.abc import Callable

from parallax._core.light_stdlib import Any, NamedTuple, PickleBuffer
from parallax._core.weak_table import WeakTable
from parallax._shm.buffers import COPY, MIN_SHARED_BYTES, READ, WRITE, SlabRef
from parallax._shm.segment import (
    LINUX,
    PAGE_BYTES,
    Segment,
    discard_writes,
    populate,
    round_to_pages,
)

#: Memory of dropped views that waits for reuse by its sender, which does not know yet that the
#: views are gone. Memory beyond that goes back to the system.
MAX_UNREPORTED_BYTES = 1 << 26

#: Of mmap(2): replaces what is mapped at an address, atomically.
_MAP_FIXED = 0x10


class _View(NamedTuple):
    """A buffer in use, and where it is mapped."""

    ref: SlabRef
    window: mmap.mmap
    offset: int
    #: the object that stands for the buffer in this process.
    exporter: weakref.ref[Any]


class SlabReceiver:
    """Views of one sender's segment."""

    def __init__(self, segment: Segment, *, private: bool) -> None:
        self._segment = segment
        self._private = private
        #: mapped windows by first byte and whether they are private.
        self._windows: dict[tuple[int, bool], mmap.mmap] = {}
        #: by the identity of the weak reference that reports the end.
        self._views: dict[int, _View] = {}
        #: the number of views of a buffer, by its first byte.
        self._users: dict[int, int] = {}
        #: first bytes of slabs, once per return; see ``take_returns``.
        self.returns: deque[int] = deque()
        self._unreported_bytes = 0
        self._abandoned = False
        self._owner = os.getpid()
        #: guards views, users and windows. Reentrant: a signal handler may fork in the middle.
        self._lock = RLock()
        #: identities of the weak references whose views have ended and are counted yet.
        self._over: deque[int] = deque()
        _receivers.add(self)

    def is_valid(self, ref: SlabRef) -> bool:
        """Whether a sender can have sent this: the buffer is in its window, and that exists."""
        end = ref.window + ref.length
        return (
            ref.window <= ref.slab <= ref.position <= ref.position + ref.nbytes <= end
            and (end <= self._segment.size() or not isinstance(self._segment.handle, int))
            and not (ref.window | ref.slab) % PAGE_BYTES
            and (ref.mode in {READ, WRITE} or (ref.mode == COPY and not ref.position % PAGE_BYTES))
        )

    def view(self, ref: SlabRef) -> memoryview | bytearray:
        """The memory of a buffer, which is returned when nothing refers to it any more."""
        if self._abandoned or (
            # One of several buffers in a slab, which one result must not keep as a whole.
            not self._private and ref.nbytes < MIN_SHARED_BYTES and ref.mode == COPY
        ):
            return self.copy(ref)
        try:
            with self._lock:
                return self._view(ref)
        except (OSError, ImportError):  # no room for another mapping, a Python without ctypes
            return self.copy(ref)
        finally:
            self._settle()

    def copy(self, ref: SlabRef) -> bytearray:
        """The content of a buffer in memory of this process; the buffer is returned at once."""
        if self._abandoned:
            raise OSError("the memory was given up together with its sender")
        data = bytearray(ref.nbytes)
        if not self._segment.read(ref.position, data):
            window = self._window(ref, private=False)
            data[:] = memoryview(window)[ref.position - ref.window :][: ref.nbytes]
        self.give_back(ref)
        return data

    def give_back(self, ref: SlabRef) -> None:
        """Return a buffer that was not looked at."""
        self.returns.append(ref.slab)

    def take_returns(self) -> list[int]:
        """First bytes of slabs to return; plus one where the system has the memory again."""
        taken = [self.returns.popleft() for _ in range(len(self.returns))]
        self._unreported_bytes = 0
        return taken

    def abandon(self) -> None:
        """Keep only what is in use here: the sender is gone. Idempotent."""
        if self._abandoned or os.getpid() != self._owner:
            return
        with self._lock:
            self._abandoned = True
            # The views and this object refer to each other only. The garbage collector would
            # collect both without a callback, and nothing would close the segment.
            _orphans.add(self)
            self._windows.clear()
            if self._views and not self._private:
                # Everything else in the segment would occupy memory as long as any view lives.
                at = 0
                live = sorted((v.ref.position, v.ref.nbytes) for v in list(self._views.values()))
                for position, nbytes in [*live, (self._segment.size(), 0)]:
                    if position > at:
                        self._segment.punch_hole(at, position - at)
                    at = max(at, round_to_pages(position + nbytes))
            self._close_if_unused()
        self._settle()

    def make_private(self) -> None:
        """Turn all views into private memory of this process, which is about to be forked.

        The copy of this process returns nothing. The memory that it sees must not be reused, and
        as with all other memory, neither process may see what the other one writes.
        """
        if os.getpid() != self._owner:
            return  # a forked copy, whose views are private
        with self._lock:
            self._make_private()
        self._settle()

    def _make_private(self) -> None:
        for key, view in list(self._views.items()):
            ref = view.ref
            if view.exporter() is None:
                continue
            if ref.mode != COPY:
                # The slab stays in use: the copy may look at it for long, and returns nothing.
                self._views.pop(key, None)
                continue
            # No other buffer may be read through this mapping from now on.
            self._windows.pop((ref.window, self._private), None)
            size = round_to_pages(ref.nbytes)
            if not self._private and not _remap(view, size, self._segment):
                continue
            if not populate(view.window, view.offset, size):
                touched = memoryview(view.window)[view.offset : view.offset + size]
                for page in range(0, size, PAGE_BYTES):
                    touched[page] = touched[page]
            if self._views.pop(key, None) is not None:
                self._release(view)
        self._close_if_unused()

    def _view(self, ref: SlabRef) -> memoryview:
        import ctypes

        self._settle_locked()
        private = self._private and ref.mode == COPY
        if private and (not LINUX or self._users.get(ref.position)):
            # This item must not see what another item has written to its copy.
            if not isinstance(self._segment.handle, int):
                raise OSError("only whole windows can be mapped")
            size = round_to_pages(ref.nbytes)
            window, offset = self._segment.map(ref.position, size, private=True), 0
        else:
            window, offset = self._window(ref, private=private), ref.position - ref.window
        # NumPy asks the object behind a memoryview for its memory. So each buffer needs such an
        # object of its own, whose end then shows that the buffer is not in use any more.
        exporter = (ctypes.c_ubyte * ref.nbytes).from_buffer(window, offset)
        self._users[ref.position] = self._users.get(ref.position, 0) + 1
        alive = weakref.ref(exporter, self._ended)
        self._views[id(alive)] = _View(ref, window, offset, alive)
        view = PickleBuffer(exporter).raw()
        return view.toreadonly() if ref.mode == READ else view

    def _window(self, ref: SlabRef, *, private: bool) -> mmap.mmap:
        window = self._windows.get((ref.window, private))
        if window is None:
            window = self._segment.map(ref.window, ref.length, private=private)
            self._windows[ref.window, private] = window
        return window

    def _ended(
        self, alive: weakref.ref[Any], ending: Callable[[], bool] = sys.is_finalizing
    ) -> None:
        """The last object over a view was dropped. Called from any thread at any moment."""
        # As the interpreter ends, modules may be empty already.
        if not ending() and os.getpid() == self._owner:
            self._over.append(id(alive))
            self._settle()

    def _settle(self) -> None:
        """Release the views that have ended, unless a thread is at it or about to."""
        # Nor if this thread has the lock: the collector may have come in the middle of a change.
        owned = self._lock._is_owned  # type: ignore[attr-defined]
        while self._over and not owned() and self._lock.acquire(blocking=False):
            try:
                self._settle_locked()
            finally:
                self._lock.release()

    def _settle_locked(self) -> None:
        while self._over:
            view = self._views.pop(self._over.popleft(), None)
            if view is None:
                continue
            if self._private and view.ref.mode == COPY:
                # The next view of this range has to show what the sender wrote.
                discard_writes(view.window, view.offset, round_to_pages(view.ref.nbytes))
            self._release(view)

    def _release(self, view: _View) -> None:
        ref = view.ref
        users = self._users.pop(ref.position, 1) - 1
        if users:
            self._users[ref.position] = users
        note = ref.slab
        if not users and not self._private and ref.mode == COPY:
            self._unreported_bytes += ref.nbytes
            if self._abandoned or self._unreported_bytes > MAX_UNREPORTED_BYTES:
                self._unreported_bytes -= ref.nbytes
                self._segment.punch_hole(ref.position, round_to_pages(ref.nbytes))
                note += 1
        self.returns.append(note)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._abandoned and not self._views:
            self._segment.close()
            _orphans.discard(self)


def _remap(view: _View, size: int, segment: Segment) -> bool:
    """Make part of a shared mapping a private one in place; False if that is impossible."""
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


_receivers = WeakTable()
#: receivers whose sender is gone while views are in use.
_orphans: set[SlabReceiver] = set()


def _before_fork() -> None:
    for receiver, _ in _receivers.living():
        receiver.make_private()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
