"""Buffers that one call sends more than once: written to shared memory the first time only.

Guarantees: a buffer is recognized by its memory, and forgotten as soon as that memory may belong to
another object: its owner is referenced weakly. Nothing is remembered from one call to the next, so
an array that changed in between is sent again. An array that changes *during* a call is sent again
if a sample of its bytes shows the change; items on their way may see either content, as in threads.
"""

from __future__ import annotations

import weakref

from parallax._core.light_stdlib import Any, NamedTuple
from parallax._shm.buffers import address_of
from parallax._shm.sender import Slab, SlabSender

#: Bytes that are compared to detect a change of a buffer; they cost 20 us.
COMPARED_BYTES = 256

#: Buffers that were sent once and are kept in case they come again. An array that goes with every
#: item comes again at once.
MAX_RECENT_BUFFERS = 4

#: Bytes of these buffers, without the newest. More holds memory that is hardly ever sent again.
MAX_RECENT_BYTES = 1 << 26


class _SentBuffer(NamedTuple):
    owner: Any
    slab: Slab
    sample: bytes


class Deduplicator:
    """The buffers of one call's items."""

    def __init__(self, sender: SlabSender) -> None:
        self._sender = sender
        # Dictionaries: an OrderedDict breaks when owners are dropped in other threads meanwhile.
        self._recent: dict[tuple[int, int], _SentBuffer] = {}
        self._repeated: dict[tuple[int, int], _SentBuffer] = {}
        #: bytes of buffers that were sent once and needed several times.
        self.bytes_once = 0
        #: bytes that were not sent again.
        self.bytes_spared = 0

    def slab(self, data: memoryview) -> Slab | None:
        """The slab with a buffer's content; None if there is no memory for it."""
        owner = _owner(data.obj)
        whole = type(owner) is bytes and data.nbytes == len(owner)
        address = id(owner) if whole else address_of(data)
        if owner is None or address is None:
            return self._sender.put(data)
        key = address, data.nbytes
        known = self._repeated.get(key) or self._recent.get(key)
        sample = bytes(data[:: max(1, data.nbytes // COMPARED_BYTES)])
        if known is not None and known.owner() is owner and known.sample == sample:
            if self._recent.pop(key, None) is not None:
                self._repeated[key] = known
                self.bytes_once += data.nbytes
            self.bytes_spared += data.nbytes
            return known.slab
        slab = self._sender.put(data)
        if slab is not None:
            if type(owner) is bytes:  # immutable, and has no weak references
                self._recent[key] = _SentBuffer(lambda: owner, slab, sample)
            else:
                self._repeated.pop(key, None)
                alive = weakref.ref(owner, lambda _: self._forget(key))
                self._recent[key] = _SentBuffer(alive, slab, sample)
            self._forget_oldest()
        return slab

    def clear(self) -> None:
        """Drop all slabs: the call is over."""
        self._recent.clear()
        self._repeated.clear()

    def _forget_oldest(self) -> None:
        # A copy, because entries may be removed at any moment.
        *older, _ = list(self._recent)
        nbytes = 0
        for number, key in enumerate(reversed(older), 2):
            sent = self._recent.get(key)
            nbytes += sent.slab.nbytes if sent is not None else 0
            if number > MAX_RECENT_BUFFERS or nbytes > MAX_RECENT_BYTES:
                self._recent.pop(key, None)

    def _forget(self, key: tuple[int, int]) -> None:
        self._recent.pop(key, None)
        self._repeated.pop(key, None)


def _owner(obj: Any) -> Any:
    """The object that keeps a buffer's memory alive; None if it cannot be watched."""
    if type(obj) is bytes:
        return obj
    base = getattr(obj, "base", None)
    while base is not None and type(base) is type(obj):
        obj, base = base, getattr(base, "base", None)
    try:
        weakref.ref(obj)
    except TypeError:
        return None
    return obj
