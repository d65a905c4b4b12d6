"""What the user shares by name: which memory of this process lies in shared memory already.

A buffer that lies there is sent by telling where, whatever object it belongs to now: the array that
was shared, a slice of it, a column of a table.

Guarantees: nothing is looked up, and nothing is imported, in a process that shares nothing.
"""

from __future__ import annotations

import os
from _weakref import ref  # without weakref, which takes 0.7 ms to load

from parallax._core.light_stdlib import PickleBuffer
from parallax._shm.copying import address_of
from parallax._shm.sender import WRITE

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from parallax._shm.sender import Ref, Slab, SlabSender

__all__ = ["any_shared", "expose", "find_shared", "is_shared_writable", "strided_part"]

#: address -> (bytes, slab), as long as there is an object over it.
_shared: dict[int, tuple[int, Slab]] = {}
#: the references that tell of the end of that object, by their identities, and its address.
_held: dict[int, tuple[ref[Any], int]] = {}
#: slabs that a forked copy of this process may look at: never used again.
_pinned: list[Slab] = []


def expose(sender: SlabSender, slab: Slab, *, readonly: bool) -> memoryview:
    """The memory of a slab in this process; it stays as long as anything refers to it.

    Args:
        sender: what the slab belongs to.
        slab: it.
        readonly: nobody may write to it.
    """
    import ctypes

    window, offset = sender.mapping(slab)
    exporter = (ctypes.c_ubyte * slab.nbytes).from_buffer(window, offset)
    address = ctypes.addressof(exporter)
    _shared[address] = slab.nbytes, slab
    alive = ref(exporter, _dropped)
    _held[id(alive)] = alive, address
    view = PickleBuffer(exporter).raw()
    return view.toreadonly() if readonly else view


def find_shared(part: memoryview) -> tuple[Slab, Ref] | None:
    """Where a buffer lies in memory that was shared by name; None if it does not."""
    if not _shared:
        return None
    address = address_of(part)
    found = _around(address) if address is not None else None
    if found is None or address is None:
        return None
    start, slab = found
    return slab, slab.ref(address - start, part.nbytes)


def is_shared_writable(obj: Any) -> bool:
    """Whether what is written to an array is seen by all processes: it was shared as "rw"."""
    if not _shared:
        return False
    interface = getattr(obj, "__array_interface__", None)
    if isinstance(interface, dict):
        address = int(interface["data"][0])
    else:
        try:
            found = address_of(memoryview(obj))
        except (TypeError, ValueError):
            return False
        if found is None:
            return False
        address = found
    around = _around(address)
    return around is not None and around[1].mode == WRITE


def strided_part(array: Any) -> tuple[Any, ...] | None:
    """What an array that is not in one piece shows of memory that was shared by name.

    NumPy pickles it as a copy, and what a worker writes to that is lost.

    Args:
        array: an ``ndarray``.

    Returns:
        The memory that it lies in, and its type, shape, strides and first byte there; None if it
        is in one piece or its memory is not shared.
    """
    if array.flags.forc or not array.size:
        return None
    first = int(array.__array_interface__["data"][0])
    spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    low = first + sum(span for span in spans if span < 0)
    high = first + sum(span for span in spans if span > 0) + array.itemsize
    if _around(low) is None:
        return None
    base = array
    while type(base) is type(array) and base.base is not None:
        base = base.base
    memory = PickleBuffer(base).raw()
    start = address_of(memory)
    if start is None or low < start or high > start + memory.nbytes:
        return None
    part = PickleBuffer(memory[low - start : high - start])
    return part, array.dtype, array.shape, array.strides, first - low


def any_shared() -> bool:
    """Whether anything is shared by name now."""
    return bool(_shared)


def _around(address: int) -> tuple[int, Slab] | None:
    """The slab that an address is in, and where it begins in this process."""
    for start, (nbytes, slab) in list(_shared.items()):
        if start <= address < start + max(1, nbytes):
            return start, slab
    return None


def _dropped(alive: ref[Any]) -> None:
    found = _held.pop(id(alive), None)
    if found is not None:
        _shared.pop(found[1], None)


def _before_fork() -> None:
    # The copy sees the same memory and will not tell when it has done with it.
    _pinned.extend(slab for _, slab in list(_shared.values()) if slab not in _pinned)


if hasattr(os, "register_at_fork"):
    # The copy's own workers know nothing of this memory: what it sends them is copied.
    os.register_at_fork(before=_before_fork, after_in_child=_shared.clear)
