"""Buffers: the address of their memory, and references to buffers in shared memory."""

from __future__ import annotations

import sys

from parallax._core.light_stdlib import Any, NamedTuple

#: Buffers from this size on have a slab of their own. Less is as quick through a socket (two cores,
#: there and back: they are level at 400 to 700 KB).
MIN_SHARED_BYTES = 1 << 19

#: How a receiver may use a buffer: as its own copy, for reading, or to write what all see.
COPY, READ, WRITE = 0, 1, 2


class SlabRef(NamedTuple):
    #: first byte and length of the window.
    window: int
    length: int
    #: first byte of the slab, by which it is returned.
    slab: int
    #: first byte and length of the buffer.
    position: int
    nbytes: int
    #: COPY, READ or WRITE.
    mode: int


def address_of(part: memoryview) -> int | None:
    """The address of a buffer's memory; None if it is not contiguous or cannot be determined."""
    obj: Any = part.obj
    interface = getattr(obj, "__array_interface__", None)
    if (
        isinstance(interface, dict)
        and interface["strides"] is None
        and part.contiguous
        and part.nbytes == obj.nbytes  # the whole array
    ):
        return int(interface["data"][0])
    if not part.contiguous or not part.nbytes:
        return None
    if not part.readonly:
        import ctypes

        return ctypes.addressof(ctypes.c_ubyte.from_buffer(part))
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    return int(numpy.frombuffer(part, numpy.uint8).__array_interface__["data"][0])
