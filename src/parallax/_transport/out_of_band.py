"""Large objects outside the pickle stream, where pickle would copy them into the stream.

``bytes``, ``bytearray`` and ``array.array`` have no out-of-band form; NumPy copies non-contiguous
arrays twice, PyTorch writes tensors as a file. Where a bounded search finds a large object, a
pickler class with ``persistent_id`` is used, the only hook that pickle's C code calls for
``bytes``. The hook is called for every object, 0.1 us each, so that class is not used otherwise.

A ``memoryview`` of any size arrives as a view of the received memory, with its format, shape and
content, read-only if it was. A non-contiguous one is copied once. The format does not mention the
byte order any more if that is the native one.

    payload = mark | pickle, in which a large object is the persistent id (kind, ..., buffer)

Guarantees: what the search misses is pickled correctly in the stream; an object that is met twice
is one object afterwards, as with pickle's memo; sending imports nothing; what can be resized is
copied, because its owner could not resize it while a view of its memory exists.
"""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from itertools import islice
from types import MethodType

from parallax._core.light_stdlib import Any, PickleBuffer, Unpickler
from parallax._shm.registry import any_shared, strided_part

#: Smaller objects stay in the stream. Alone, an object pays from 32 KB on; among a thousand small
#: objects, for each of which the hook is called, from 128 KB on.
MIN_OUT_OF_BAND_BYTES = 1 << 16

#: First byte of such a payload. A pickle begins with 0x80.
OUT_OF_BAND_MARK = b"\x01"

#: Objects that the search visits at most. More finds more large objects, and delays the others: a
#: visit takes 50 ns, and pickling a number 10 ns.
MAX_VISITED = 60

#: Entries visited of a dict or a short list, and of a longer list.
MAX_ENTRIES, SAMPLED_ENTRIES = 8, 4

_BYTES, _BYTEARRAY, _ARRAY, _VIEW, _NUMPY, _TORCH, _PART, _AGAIN = range(8)

#: Types without content that could be large.
_SCALARS = frozenset({int, float, str, bool, type(None), complex, range, type, type(len)})

#: Package, name and kind of types that are looked for only if the package is loaded.
_OPTIONAL_TYPES = (
    ("array", "array", _ARRAY),
    ("numpy", "ndarray", _NUMPY),
    ("torch", "Tensor", _TORCH),
)

#: How pickle writes the names of NumPy's types of dates.
_DATE_TYPES = (b"\x8c\x02M8", b"\x8c\x02m8")


def _kinds_by_type() -> dict[type, int]:
    """The types of which large objects travel outside the stream."""
    kinds: dict[type, int] = {bytes: _BYTES, bytearray: _BYTEARRAY, memoryview: _VIEW}
    for package, name, kind in _OPTIONAL_TYPES:
        found = getattr(sys.modules.get(package), name, None)
        if isinstance(found, type):
            kinds[found] = kind
    return kinds


def has_large_buffers(obj: Any) -> bool:
    """Whether a bounded search finds a large object in a list of items, an argument or a result."""
    try:
        return _search([obj])
    except Exception:  # noqa: BLE001 - another thread changed it, or its class raises
        return False


def _search(todo: list[Any]) -> bool:
    kinds: dict[type, int] = {}
    for this in todo:  # which grows meanwhile
        kind = type(this)
        if kind in _SCALARS:
            continue
        if kind is tuple or kind is list:
            if len(this) <= MAX_ENTRIES:
                todo += this
            else:
                todo += this[:: len(this) // SAMPLED_ENTRIES]
                todo.append(this[-1])
        elif kind is dict:
            todo += islice(this.values(), MAX_ENTRIES)
        elif kind is bytes or kind is bytearray:
            if len(this) >= MIN_OUT_OF_BAND_BYTES:
                return True
        else:
            kinds = kinds or _kinds_by_type()
            if kind in kinds:
                if _kind(this, kinds[kind]) is not None:
                    return True
            elif kind is partial:
                todo += (*this.args, *this.keywords.values())
            elif kind is MethodType:
                todo.append(this.__self__)
            elif kind.__dictoffset__ and type(inside := this.__dict__) is dict:
                todo += islice(inside.values(), MAX_ENTRIES)
        if len(todo) > MAX_VISITED:
            del todo[MAX_VISITED:]
    return False


def _kind(obj: Any, kind: int, least: int | None = None) -> int | None:
    """The kind of an object of ``least`` or the usual bytes; None if it stays in the stream."""
    least = MIN_OUT_OF_BAND_BYTES if least is None else least
    if kind == _NUMPY:
        if obj.dtype.hasobject:
            return None
        if (any_shared() or obj.nbytes >= least) and strided_part(obj) is not None:
            return _PART
        return _NUMPY if obj.nbytes >= least and not _has_buffer(obj) else None
    if kind == _VIEW:
        return _VIEW
    if kind == _TORCH:
        return _TORCH if _is_plain_tensor(obj) else None
    if kind == _ARRAY:
        # To create one of type "u" is deprecated.
        large = len(obj) * obj.itemsize >= least and obj.typecode != "u"
        return _ARRAY if large else None
    return kind if len(obj) >= least else None


def _has_buffer(array: Any) -> bool:
    """Whether NumPy itself pickles an array out of band."""
    if not array.flags.forc:
        return False
    try:
        memoryview(array)
    except (ValueError, BufferError):  # the buffer protocol does not know all types: dates
        return False
    return True


def _is_plain_tensor(tensor: Any) -> bool:
    torch = sys.modules["torch"]
    nbytes = tensor.element_size() * tensor.nelement()
    # PyTorch 1 has only ``storage``, of which PyTorch 2 warns.
    storage = getattr(tensor, "untyped_storage", None) or tensor.storage
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor.__dict__
        and nbytes >= MIN_OUT_OF_BAND_BYTES
        # An expanded tensor shows the same memory many times; PyTorch sends it once.
        and storage().nbytes() >= nbytes
    )


def has_date_arrays(pickle: bytes) -> bool:
    """Whether a large pickle contains arrays of dates, which lie deep inside of data frames."""
    return len(pickle) >= MIN_OUT_OF_BAND_BYTES and any(name in pickle for name in _DATE_TYPES)


@lru_cache(maxsize=8)
def make_pickler(base: Any, *, arrays: bool = False) -> Any:
    """A class that sends large objects, or only ``arrays`` of any size, outside the stream."""
    least = 1 if arrays else None

    class OutOfBandPickler(base):  # type: ignore[misc]
        payload_mark = OUT_OF_BAND_MARK

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            #: number and object by identity, for all that were sent; keeps the identities valid.
            self._sent: dict[int, tuple[int, Any]] = {}
            self._kinds = _kinds_by_type()
            if arrays:
                self._kinds = {t: k for t, k in self._kinds.items() if k == _NUMPY}

        def persistent_id(self, obj: Any) -> Any:
            try:
                if type(obj) in _SCALARS:
                    return None
                kind = self._kinds.get(type(obj))
                if kind is None:
                    return None
                known = self._sent.get(id(obj))
                if known is not None:
                    return _AGAIN, known[0]
                kind = _kind(obj, kind, least)
                parts = None if kind is None else _parts(kind, obj)
            except Exception:  # noqa: BLE001 - then the object is pickled as usual
                return None
            if parts is not None:
                self._sent[id(obj)] = len(self._sent), obj
            return parts

    return OutOfBandPickler


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
        # As bytes, because the buffer protocol does not know all types of elements.
        flat = (whole if order == "C" else whole.T).reshape(-1).view(sys.modules["numpy"].uint8)
        return kind, PickleBuffer(flat), obj.dtype, obj.shape, None, 0, order
    if kind == _TORCH:
        torch = sys.modules["torch"]
        flat = obj.contiguous().reshape(-1).view(torch.uint8).numpy()
        return kind, PickleBuffer(flat), obj.dtype, tuple(obj.shape)
    return kind, PickleBuffer(bytes(obj))  # of bytes, that is the object itself


def reduce_repeating(array: Any) -> Any:
    """How an array that repeats its memory is pickled without the hook; else NotImplemented."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(array) is not numpy.ndarray or array.dtype.hasobject:
        return NotImplemented
    try:
        part = strided_part(array) if array.nbytes >= MIN_OUT_OF_BAND_BYTES else None
    except (BufferError, TypeError, ValueError):  # what it is a view of has no buffer
        return NotImplemented
    return NotImplemented if part is None else (_make_numpy, part)


def reduce_view(view: memoryview) -> Any:
    """How a memoryview is pickled without the hook; ``NotImplemented`` if it cannot be."""
    like = view_parts(view)
    return NotImplemented if like is None else (make_view, like)


def view_parts(view: memoryview) -> tuple[Any, ...] | None:
    """The arguments of ``make_view`` for an equal view, if any; TypeError if it has objects."""
    form: Any = view.format
    if form[0] in ("=", "<" if sys.byteorder == "little" else ">"):
        form = form[1:]
    try:
        like = memoryview(bytes(view.itemsize)).cast(form).itemsize == view.itemsize
    except ValueError:
        like = False
    if not like or not (view.nbytes or view.ndim == 1):
        # Only NumPy makes views of other types, and of no elements in several dimensions.
        np = sys.modules.get("numpy")
        if np is None:
            return None
        form = np.asarray(view).dtype
        if form.hasobject:
            raise TypeError(f"cannot pickle a memoryview of format {view.format!r}")
    whole = PickleBuffer(view if view.c_contiguous else bytearray(view))
    return whole, form, view.shape, view.readonly


def loads_out_of_band(payload: Any, buffers: Any) -> Any:
    return _OutOfBandUnpickler(_Source(payload), buffers=buffers).load()


class _Source:
    """A payload as a file. The unpickler reads the memory itself, where a file would copy it."""

    def __init__(self, payload: Any) -> None:
        self._left = memoryview(payload)[1:]

    def peek(self, _: int) -> memoryview:
        return self._left

    def read(self, size: int) -> memoryview:
        part, self._left = self._left[:size], self._left[size:]
        return part

    def readline(self) -> memoryview:
        return self.read(bytes(self._left).find(b"\n") + 1)


class _OutOfBandUnpickler(Unpickler):
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
    view: Any = memoryview(content).cast("B")
    if not isinstance(form, str):
        view = memoryview(_make_numpy(content, form, shape))
    elif form != "B" or len(shape) != 1:
        view = view.cast(form, shape) if view.nbytes else view.cast(form)
    made: memoryview = view.toreadonly() if readonly else view
    return made


def _make_numpy(
    content: Any, dtype: Any, shape: Any, strides: Any = None, offset: int = 0, order: Any = "C"
) -> Any:
    import numpy as np

    return np.ndarray(shape, dtype, content, offset, strides, order)


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
    _PART: _make_numpy,
}
