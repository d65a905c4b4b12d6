"""Objects that pickle copies into its stream although they are one block of memory.

``bytes``, ``bytearray`` and ``array.array`` have no out-of-band form; NumPy arrays that are not in
one piece are copied twice, PyTorch tensors are written as a file. Where a look finds a large one,
the object is pickled by a class that sends them beside the stream. Its hook is ``persistent_id``:
the only one that pickle's C code calls for ``bytes``. It is called for every object, 0.1 us each,
so it is not used otherwise.

A ``memoryview`` of any size arrives as one over the memory that came, with its format, shape and
content, read-only if it was. One that was not in one piece is copied once. A byte order that is
this machine's own is not mentioned in the format any more.

    payload = mark | pickle, in which a large object is the persistent id (kind, ..., buffer)

Guarantees: what the look misses is still pickled rightly, in the stream; an object that is met
twice is one object afterwards, as with pickle's memo; nothing is imported to send it; what can be
resized is copied, because its owner could not resize it as long as somebody looks at its memory.
"""

from __future__ import annotations

import sys
from itertools import islice

from parallax._core.light_stdlib import PickleBuffer, Unpickler
from parallax._shm.registry import any_shared, strided_part

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MIN_OUT_OF_BAND_BYTES",
    "OUT_OF_BAND_MARK",
    "has_large_buffers",
    "is_hidden",
    "loads_out_of_band",
    "make_pickler",
    "make_view",
    "reduce_view",
    "view_parts",
]

#: Bytes of an object from which it is sent beside the stream. Alone that pays from 32 KB on; among
#: a thousand small objects, for each of which the hook is called, from 128 KB.
MIN_OUT_OF_BAND_BYTES = 1 << 16

#: First byte of such a payload. A pickle begins with 0x80.
OUT_OF_BAND_MARK = b"\x01"

#: Objects that the look goes through at most; entries of a short list or a dict; of a long list.
#: More finds more of them, and holds up what has none: 50 ns each, and a number is pickled in 10.
LOOK, SAMPLE, FEW = 60, 8, 4

_BYTES, _BYTEARRAY, _ARRAY, _VIEW, _NUMPY, _TORCH, _PART, _AGAIN = range(8)

#: Types in which there is nothing to look for.
_PLAIN = frozenset({int, float, str, bool, type(None), complex, range, type, type(len)})

#: The package, the name and the kind of types that are looked for only where the package is loaded.
_ELSEWHERE = (("array", "array", _ARRAY), ("numpy", "ndarray", _NUMPY), ("torch", "Tensor", _TORCH))


def _wanted() -> dict[type, int]:
    """The types of which large objects are sent beside the stream, with their kinds."""
    found: dict[type, int] = {bytes: _BYTES, bytearray: _BYTEARRAY, memoryview: _VIEW}
    for package, name, kind in _ELSEWHERE:
        this = getattr(sys.modules.get(package), name, None)
        if isinstance(this, type):
            found[this] = kind
    return found


def has_large_buffers(obj: Any) -> bool:
    """Whether a bounded look finds something large in an object.

    Args:
        obj: a list of items, a tuple of arguments, a result.
    """
    try:
        return _look([obj])
    except Exception:  # noqa: BLE001 - changed by another thread, or of a class with ideas of its own
        return False


def _look(todo: list[Any]) -> bool:
    wanted: dict[type, int] = {}
    for this in todo:  # which grows meanwhile
        kind = type(this)
        if kind in _PLAIN:
            continue
        if kind is tuple or kind is list:
            if len(this) <= SAMPLE:
                todo += this
            else:
                todo += this[:: len(this) // FEW]
                todo.append(this[-1])
        elif kind is dict:
            todo += islice(this.values(), SAMPLE)
        elif kind is bytes or kind is bytearray:
            if len(this) >= MIN_OUT_OF_BAND_BYTES:
                return True
        else:
            wanted = wanted or _wanted()
            if kind in wanted:
                if _kind(this, wanted[kind]) is not None:
                    return True
            elif kind.__dictoffset__ and type(inside := this.__dict__) is dict:
                todo += islice(inside.values(), SAMPLE)
        if len(todo) > LOOK:
            del todo[LOOK:]
    return False


def _kind(obj: Any, kind: int, least: int | None = None) -> int | None:
    """Which kind of large object something is; None if it is none.

    Args:
        obj: an object of a type that is wanted.
        kind: what objects of its type usually are.
        least: bytes from which it is large; None for the usual.
    """
    least = MIN_OUT_OF_BAND_BYTES if least is None else least
    if kind == _NUMPY:
        if obj.dtype.hasobject:
            return None
        if any_shared() and strided_part(obj) is not None:
            return _PART
        return _NUMPY if obj.nbytes >= least and not _has_buffer(obj) else None
    if kind == _VIEW:
        return _VIEW
    if kind == _TORCH:
        return _TORCH if _is_plain_tensor(obj) else None
    if kind == _ARRAY:
        # Making one of type "u" anew is deprecated.
        large = len(obj) * obj.itemsize >= least and obj.typecode != "u"
        return _ARRAY if large else None
    return kind if len(obj) >= least else None


def _has_buffer(array: Any) -> bool:
    """Whether NumPy pickles an array beside the stream by itself."""
    if not array.flags.forc:
        return False
    try:
        memoryview(array)
    except (ValueError, BufferError):  # not all types are known to the buffer protocol: dates
        return False
    return True


def _storage(tensor: Any) -> Any:
    # PyTorch 1 has only the other one, of which PyTorch 2 warns.
    return tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()


def _is_plain_tensor(tensor: Any) -> bool:
    torch = sys.modules["torch"]
    nbytes = tensor.element_size() * tensor.nelement()
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor.__dict__
        and nbytes >= MIN_OUT_OF_BAND_BYTES
        # An expanded one shows the same memory many times; PyTorch sends it once.
        and _storage(tensor).nbytes() >= nbytes
    )


def is_hidden(pickle: bytes) -> bool:
    """Whether a large pickle has arrays of dates in it, which lie deep inside of data frames."""
    return len(pickle) >= MIN_OUT_OF_BAND_BYTES and any(name in pickle for name in _DATES)


#: How pickle writes the names of their types.
_DATES = (b"\x8c\x02M8", b"\x8c\x02m8")


def make_pickler(base: Any, *, arrays: bool = False) -> Any:
    """A pickler class that sends large objects beside the stream.

    Args:
        base: the class to make it of: pickle's own, or one of cloudpickle's.
        arrays: only arrays, of whatever size: what need not be copied to be made again.
    """
    least = 1 if arrays else None

    class BulkPickler(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            #: what was sent: the number of each, and the object itself, whose identity is the key.
            self._sent: dict[int, tuple[int, Any]] = {}
            self._wanted = _wanted()
            if arrays:
                self._wanted = {t: k for t, k in self._wanted.items() if k == _NUMPY}

        def persistent_id(self, obj: Any) -> Any:
            try:
                if type(obj) in _PLAIN:
                    return None
                kind = self._wanted.get(type(obj))
                if kind is None:
                    return None
                known = self._sent.get(id(obj))
                if known is not None:
                    return _AGAIN, known[0]
                kind = _kind(obj, kind, least)
                parts = None if kind is None else _parts(kind, obj)
            except Exception:  # noqa: BLE001 - left to its own way of being pickled
                return None
            if parts is not None:
                self._sent[id(obj)] = len(self._sent), obj
            return parts

    return BulkPickler


def _parts(kind: int, obj: Any) -> tuple[Any, ...] | None:
    if kind == _ARRAY:
        return kind, PickleBuffer(obj.tobytes()), obj.typecode
    if kind == _VIEW:
        like = view_parts(obj)
        return like and (kind, *like)
    if kind == _PART:
        part = strided_part(obj)
        assert part is not None
        return kind, *part
    if kind == _NUMPY:
        whole = obj if obj.flags.forc else obj.copy(order="C")
        order = "C" if whole.flags.c_contiguous else "F"
        # As bytes: not all types of elements are known to the buffer protocol.
        flat = (whole if order == "C" else whole.T).reshape(-1).view(sys.modules["numpy"].uint8)
        return kind, PickleBuffer(flat), obj.dtype, obj.shape, order
    if kind == _TORCH:
        torch = sys.modules["torch"]
        flat = obj.contiguous().reshape(-1).view(torch.uint8).numpy()
        return kind, PickleBuffer(flat), obj.dtype, tuple(obj.shape)
    return kind, PickleBuffer(bytes(obj))  # which is the object itself if it is of bytes


def reduce_view(view: memoryview) -> Any:
    """How a memoryview is pickled where there is no hook; ``NotImplemented`` if it is not."""
    like = view_parts(view)
    return NotImplemented if like is None else (make_view, like)


def view_parts(view: memoryview) -> tuple[Any, ...] | None:
    """What ``make_view`` makes an equal one of; None if nothing can.

    Raises:
        TypeError: its elements are references to objects.
    """
    form: Any = view.format
    if form[0] in ("=", "<" if sys.byteorder == "little" else ">"):
        form = form[1:]
    try:
        like = memoryview(bytes(view.itemsize)).cast(form).itemsize == view.itemsize
    except ValueError:
        like = False
    if not like or not (view.nbytes or view.ndim == 1):
        # Other types, and nothing in several dimensions, have views only if they are NumPy's.
        np = sys.modules.get("numpy")
        if np is None:
            return None
        form = np.asarray(view).dtype
        if form.hasobject:
            raise TypeError(f"cannot pickle a memoryview of format {view.format!r}")
    whole = PickleBuffer(view if view.c_contiguous else bytearray(view))
    return whole, form, view.shape, view.readonly


def loads_out_of_band(payload: Any, buffers: Any) -> Any:
    """Rebuild an object.

    Args:
        payload: bytes, beginning with ``OUT_OF_BAND_MARK``.
        buffers: the memory of what went beside the stream.
    """
    return _BulkUnpickler(_Source(payload), buffers=buffers).load()


class _Source:
    """A payload as a file. The unpickler looks at the memory itself, where a file would copy it."""

    def __init__(self, payload: Any) -> None:
        self._left = memoryview(payload)[1:]

    def peek(self, _: int) -> memoryview:
        return self._left

    def read(self, size: int) -> memoryview:
        part, self._left = self._left[:size], self._left[size:]
        return part

    def readline(self) -> memoryview:
        return self.read(bytes(self._left).find(b"\n") + 1)


class _BulkUnpickler(Unpickler):
    def __init__(self, file: Any, *, buffers: Any) -> None:
        super().__init__(file, buffers=buffers)
        self._made: list[Any] = []

    def persistent_load(self, pid: Any) -> Any:
        kind, content, *more = pid
        if kind == _AGAIN:
            return self._made[content]
        made = _MAKE[kind](content, *more)
        self._made.append(made)
        return made


def _make_array(content: Any, typecode: str) -> Any:
    from array import array

    made = array(typecode)
    made.frombytes(content)
    return made


def make_view(content: Any, form: Any, shape: tuple[int, ...], readonly: bool) -> memoryview:
    """A memoryview over memory that came.

    Args:
        content: the memory.
        form: its format, or the type of its elements for NumPy.
        shape: its shape.
        readonly: nobody may write to it.
    """
    view: Any = memoryview(content).cast("B")
    if not isinstance(form, str):
        view = memoryview(_make_numpy(content, form, shape, "C"))
    elif form != "B" or len(shape) != 1:
        view = view.cast(form, shape) if view.nbytes else view.cast(form)
    made: memoryview = view.toreadonly() if readonly else view
    return made


def _make_numpy(content: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    import numpy as np

    return np.ndarray(shape, dtype, content, order=order)


def _make_part(
    content: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> Any:
    import numpy as np

    return np.ndarray(shape, dtype, content, offset, strides)


def _make_torch(content: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    import torch  # type: ignore[import-not-found, unused-ignore]

    return torch.frombuffer(content, dtype=torch.uint8).view(dtype).reshape(shape)


_MAKE: dict[int, Any] = {
    _BYTES: bytes,
    _BYTEARRAY: bytearray,
    _ARRAY: _make_array,
    _VIEW: make_view,
    _NUMPY: _make_numpy,
    _TORCH: _make_torch,
    _PART: _make_part,
}
