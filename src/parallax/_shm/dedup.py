"""Arrays that one call sends more than once: written to shared memory the first time.

Guarantees: an array is known again by the memory that it shows, and forgotten when the memory may
be another's: its owner is referred to weakly. Nothing is remembered from one call to the next, so
an array that changed between them is sent anew. One that is changed *during* a call is sent anew if
that shows in a sample of its bytes; items that are on their way may see either, as in threads.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

from parallax._shm.copying import address_of
from parallax._shm.sender import Slab, SlabSender

__all__ = ["Deduplicator"]

#: Bytes that are compared to see whether a buffer has changed: they cost 20 us.
COMPARED_BYTES = 256

#: Buffers that were sent once and are kept in case they come again; and their bytes, of which the
#: newest is not counted. An array that goes with every item comes again at once.
MAX_RECENT_BUFFERS, MAX_RECENT_BYTES = 4, 1 << 26


class _Known:
    """A buffer that was sent."""

    def __init__(self, owner: Any, slab: Slab, sample: bytes) -> None:
        self.owner = owner
        self.slab = slab
        self.sample = sample
        self.times = 1


class Deduplicator:
    """The buffers of one call's items."""

    def __init__(self, sender: SlabSender) -> None:
        """Begin a call.

        Args:
            sender: where buffers are written to.
        """
        self._sender = sender
        self._recent: OrderedDict[tuple[int, int], _Known] = OrderedDict()
        self._proven: dict[tuple[int, int], _Known] = {}
        #: bytes that were sent once although they were wanted several times, and bytes that were
        #: wanted again.
        self.bytes_once = 0
        self.bytes_spared = 0

    def slab(self, data: memoryview) -> Slab | None:
        """The slab with a buffer's content; None if there is no memory for it."""
        owner = _owner(data.obj)
        whole = type(owner) is bytes and data.nbytes == len(owner)
        address = id(owner) if whole else address_of(data)
        if owner is None or address is None:
            return self._sender.put(data)
        key = address, data.nbytes
        known = self._proven.get(key) or self._recent.get(key)
        sample = bytes(data[:: max(1, data.nbytes // COMPARED_BYTES)])
        if known is not None and known.owner() is owner and known.sample == sample:
            if known.times == 1:
                self._recent.pop(key, None)
                self._proven[key] = known
                self.bytes_once += data.nbytes
            known.times += 1
            self.bytes_spared += data.nbytes
            return known.slab
        slab = self._sender.put(data)
        if slab is not None:
            if type(owner) is bytes:  # never changes, and cannot be referred to weakly
                self._recent[key] = _Known(lambda: owner, slab, sample)
            else:
                self._proven.pop(key, None)
                alive = weakref.ref(owner, lambda _: self._forget(key))
                self._recent[key] = _Known(alive, slab, sample)
            while len(self._recent) > MAX_RECENT_BUFFERS or self._recent_bytes() > MAX_RECENT_BYTES:
                self._recent.popitem(last=False)
        return slab

    def clear(self) -> None:
        """The call is over."""
        self._recent.clear()
        self._proven.clear()

    def _recent_bytes(self) -> int:
        # At once, because the collector may take some out at any moment.
        sizes = [known.slab.nbytes for known in tuple(self._recent.values())]
        return sum(sizes[:-1])

    def _forget(self, key: tuple[int, int]) -> None:
        self._recent.pop(key, None)
        self._proven.pop(key, None)


def _owner(obj: Any) -> Any:
    """What keeps the memory of a buffer alive; None if that may change or go unseen."""
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
