"""The memory of this process that the user shares: which of it lies in shared memory already.

A buffer in that memory is sent by its position, whatever object shows it now: the shared array, a
slice of it, a column of a table.

Guarantees: in a process that shares nothing, nothing is looked up and nothing is imported.
"""

from __future__ import annotations

import os
import sys
from _weakref import ref  # without weakref, which takes 0.7 ms to load
from collections.abc import Callable

from parallax._core.light_stdlib import TYPE_CHECKING, Any, PickleBuffer
from parallax._shm.buffers import WRITE, SlabRef, address_of

if TYPE_CHECKING:
    from parallax._shm.sender import Slab, SlabSender

#: slabs by address, as long as an object over them exists.
_shared: dict[int, Slab] = {}
#: by identity: the weak reference that reports the end of such an object, and the address.
_exporters: dict[int, tuple[ref[Any], int]] = {}
#: slabs that a forked copy of this process may look at. They are never reused.
_pinned: list[Slab] = []


def expose(sender: SlabSender, slab: Slab, *, readonly: bool) -> memoryview:
    """The memory of a slab in this process, valid as long as anything refers to the view."""
    import ctypes

    window, offset = sender.mapping(slab.extent)
    exporter = (ctypes.c_ubyte * slab.nbytes).from_buffer(window, offset)
    address = ctypes.addressof(exporter)
    _shared[address] = slab
    alive = ref(exporter, _dropped)
    _exporters[id(alive)] = alive, address
    view = PickleBuffer(exporter).raw()
    return view.toreadonly() if readonly else view


def find_shared(part: memoryview) -> tuple[Slab, SlabRef] | None:
    """The slab that contains a buffer, and the position; None if the buffer is not shared."""
    if not _shared:
        return None
    address = address_of(part)
    if address is None or (found := _containing(address)) is None:
        return None
    start, slab = found
    return slab, slab.ref(address - start, part.nbytes)


def is_shared_writable(obj: Any) -> bool:
    """Whether all processes see what is written to an array: it was shared as "rw"."""
    if not _shared:
        return False
    interface = getattr(obj, "__array_interface__", None)
    address: int | None
    if isinstance(interface, dict):
        address = int(interface["data"][0])
    else:
        try:
            address = address_of(memoryview(obj))
        except (TypeError, ValueError):
            return False
    found = None if address is None else _containing(address)
    return found is not None and found[1].mode == WRITE


def strided_part(array: Any) -> tuple[Any, ...] | None:
    """How to rebuild a non-contiguous array over shared memory, or one that repeats its memory.

    NumPy pickles such an array as a copy. What a worker writes to a copy is lost, and the copy of a
    broadcast number, or of sliding windows, may be gigabytes. None for any other array. Returns the
    memory with the elements, dtype, shape and strides, and the offset of the first element.
    """
    if array.flags.forc or not array.size:
        return None
    first = int(array.__array_interface__["data"][0])
    spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    low = first + sum(span for span in spans if span < 0)
    high = first + sum(span for span in spans if span > 0) + array.itemsize
    if 2 * (high - low) > array.nbytes and _containing(low) is None:
        return None
    base = array
    while (inner := getattr(base, "base", None)) is not None:  # there is more than arrays
        base = inner
    if getattr(getattr(base, "dtype", None), "kind", "") in {"m", "M"}:
        base = base.view("i8")  # the buffer protocol does not know dates
    memory = PickleBuffer(base).raw()
    start = address_of(memory)
    if start is None or low < start or high > start + memory.nbytes:
        return None
    memory = memory if array.flags.writeable else memory.toreadonly()
    part = PickleBuffer(memory[low - start : high - start])
    return part, array.dtype, array.shape, array.strides, first - low


def any_shared() -> bool:
    return bool(_shared)


def _containing(address: int) -> tuple[int, Slab] | None:
    """The slab that contains an address, with its own address in this process."""
    for start, slab in list(_shared.items()):
        if start <= address < start + max(1, slab.nbytes):
            return start, slab
    return None


def _dropped(alive: ref[Any], ending: Callable[[], bool] = sys.is_finalizing) -> None:
    if ending():
        return  # this module may be empty already
    found = _exporters.pop(id(alive), None)
    if found is not None:
        _shared.pop(found[1], None)


def _before_fork() -> None:
    # The copy sees the same memory, and does not say when it is done with it.
    _pinned.extend(slab for slab in list(_shared.values()) if slab not in _pinned)


if hasattr(os, "register_at_fork"):
    # Workers of the copy do not have this memory: the copy sends them its content.
    os.register_at_fork(before=_before_fork, after_in_child=_shared.clear)
