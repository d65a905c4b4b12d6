"""Objects that pickle copies into its stream although they are one block of memory.

``bytes``, ``bytearray`` and ``array.array`` have no out-of-band form; NumPy arrays that are not in
one piece are copied twice, PyTorch tensors are written as a file. Where a look finds a large one,
the object is pickled by a class that sends them beside the stream. Its hook is ``persistent_id``:
the only one that pickle's C code calls for ``bytes``. It is called for every object, 0.1 us each,
so it is not used otherwise.

    payload = MARK | pickle, in which a large object is the persistent id (kind, ..., buffer)

Guarantees: what the look misses is still pickled rightly, in the stream; an object that is met
twice is one object afterwards, as with pickle's memo; nothing is imported to send it.
"""

from __future__ import annotations

import io
import sys

from ._lean import PickleBuffer, Unpickler
from ._shares import anything, part_of

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

__all__ = ["BULK", "MARK", "has_bulk", "is_hidden", "loads_bulk", "make_pickler"]

#: Bytes of an object from which it is sent beside the stream. Below, a copy is cheaper.
BULK = 1 << 16

#: First byte of such a payload. A pickle begins with 0x80.
MARK = b"\x01"

#: Objects that the look goes through at most, and entries of a long list. More finds more of them,
#: and holds up what has none.
LOOK, SAMPLE = 100, 16

_BYTES, _BYTEARRAY, _ARRAY, _VIEW, _NUMPY, _TORCH, _PART, _AGAIN = range(8)

#: Types in which there is nothing to look for.
_PLAIN = frozenset({int, float, str, bool, type(None), complex, range, type, type(len)})


def has_bulk(obj: Any) -> bool:
    """Whether a bounded look finds something large in an object.

    Args:
        obj: a list of items, a tuple of arguments, a result.
    """
    todo = [obj]
    for this in todo:  # which grows meanwhile
        kind = type(this)
        if kind in _PLAIN:
            continue
        if kind is tuple or kind is list:
            todo += this if len(this) <= SAMPLE else this[:: len(this) // SAMPLE]
        elif kind is dict:
            if this:
                todo += [*this.values()][:SAMPLE]
        elif kind is bytes or kind is bytearray:
            if len(this) >= BULK:
                return True
        elif _kind(this) is not None:
            return True
        else:
            inside = getattr(this, "__dict__", None)
            if type(inside) is dict and not isinstance(this, type):
                todo += [*inside.values()][:SAMPLE]
        if len(todo) > LOOK:
            del todo[LOOK:]
    return False


def _kind(obj: Any, least: int | None = None) -> int | None:
    """Which kind of large object something is; None if it is none.

    Args:
        obj: any object.
        least: bytes from which it is large; None for the usual.
    """
    kind = type(obj)
    least = BULK if least is None else least
    if kind is bytes:
        return _BYTES if len(obj) >= least else None
    if kind is bytearray:
        return _BYTEARRAY if len(obj) >= least else None
    if kind is memoryview:
        return _VIEW
    name = kind.__module__
    if name == "array":
        large = kind.__name__ == "array" and len(obj) * obj.itemsize >= least
        return _ARRAY if large and obj.typecode not in {"u", "w"} else None
    if name == "numpy":
        if kind is not sys.modules["numpy"].ndarray or obj.dtype.hasobject:
            return None
        if anything() and part_of(obj) is not None:
            return _PART
        return _NUMPY if obj.nbytes >= least and not _has_buffer(obj) else None
    if name == "torch" and kind is sys.modules["torch"].Tensor:
        return _TORCH if _is_plain_tensor(obj) else None
    return None


def _has_buffer(array: Any) -> bool:
    """Whether NumPy pickles an array beside the stream by itself."""
    if not array.flags.forc:
        return False
    try:
        memoryview(array)
    except (ValueError, BufferError):  # not all types are known to the buffer protocol: dates
        return False
    return True


def _is_plain_tensor(tensor: Any) -> bool:
    torch = sys.modules["torch"]
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor.__dict__
        and tensor.element_size() * tensor.nelement() >= BULK
    )


def is_hidden(pickle: bytes) -> bool:
    """Whether a large pickle has arrays of dates in it, which lie deep inside of data frames."""
    return len(pickle) >= BULK and any(name in pickle for name in _DATES)


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

        def persistent_id(self, obj: Any) -> Any:
            if type(obj) in _PLAIN:
                return None
            kind = _kind(obj, least)
            if kind is None or (arrays and kind not in {_NUMPY, _PART}):
                return None
            known = self._sent.get(id(obj))
            if known is not None:
                return _AGAIN, known[0]
            self._sent[id(obj)] = len(self._sent), obj
            return _parts(kind, obj)

    return BulkPickler


def _parts(kind: int, obj: Any) -> tuple[Any, ...]:
    if kind == _ARRAY:
        return kind, PickleBuffer(obj), obj.typecode
    if kind == _VIEW:
        whole = obj if obj.c_contiguous else memoryview(obj.tobytes()).cast("B")
        return kind, PickleBuffer(whole), obj.format, obj.shape, obj.readonly
    if kind == _PART:
        part = part_of(obj)
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
    return kind, PickleBuffer(obj)


def loads_bulk(payload: Any, buffers: Any) -> Any:
    """Rebuild an object.

    Args:
        payload: bytes, beginning with ``MARK``.
        buffers: the memory of what went beside the stream.
    """
    return _BulkUnpickler(io.BytesIO(memoryview(payload)[1:]), buffers=buffers).load()


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


def _make_view(content: Any, form: str, shape: tuple[int, ...], *readonly: bool) -> Any:
    view: Any = memoryview(content)
    view = view.cast("B")
    if not view.nbytes and len(shape) != 1:  # such as only other libraries make
        import numpy as np

        nothing: Any = np.empty(shape, np.dtype(form))
        return memoryview(nothing)
    if form != "B" or len(shape) != 1:
        view = view.cast(form, shape) if view.nbytes else view.cast(form)
    return view.toreadonly() if any(readonly) else view


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
    _VIEW: _make_view,
    _NUMPY: _make_numpy,
    _TORCH: _make_torch,
    _PART: _make_part,
}
