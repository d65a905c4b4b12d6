"""Checksums of buffers, whole or of samples."""

from __future__ import annotations

from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.lookup import top_module
from parallax._shm.registry import is_shared_writable

if TYPE_CHECKING:
    import zlib
    from typing import Any, Final
else:
    zlib = lazy_module("zlib")

#: Pieces that are sampled, and their length. Whole words: single bytes would be low bytes only.
SAMPLED_PIECES: Final = 128
PIECE_BYTES: Final = 64


def checksum(obj: Any, *, whole: bool) -> int:
    """The checksum of a buffer; 0 of memory that all processes share."""
    view = memoryview(obj)
    if not view.nbytes or is_shared_writable(obj) or _is_mapped(obj):
        return 0
    if not view.contiguous:
        return checksum(view.obj if type(obj) is memoryview else obj.base, whole=whole)
    flat = view if view.format == "B" and view.ndim == 1 else _flat(obj, view)
    if whole:
        return zlib.crc32(flat)
    size = flat.nbytes
    pieces = [flat[at : at + PIECE_BYTES] for at in range(0, size, 1 + size // SAMPLED_PIECES)]
    return zlib.crc32(b"".join((*pieces, flat[-PIECE_BYTES:])))


def _flat(obj: Any, view: memoryview) -> memoryview:
    try:
        return view.cast("B")
    except (TypeError, ValueError):  # structures of NumPy
        return memoryview(obj.reshape(-1).view("u1"))


def _is_mapped(obj: Any) -> bool:
    """Whether memory is a mapping of the program's own, which may be the same for all processes."""
    for _ in range(8):
        top = top_module(type(obj))
        if top in ("mmap", "multiprocessing") or "_wrapper" in getattr(obj, "__dict__", ()):
            return True
        obj = obj.obj if type(obj) is memoryview else getattr(obj, "base", None)
        if obj is None:
            return False
    return False
