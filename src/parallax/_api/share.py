"""Shared memory by name: what the user puts there once, for many calls.

Purpose: ``share``, ``shared_empty`` and ``shared_copy``. What they return is an ordinary object
whose memory happens to lie where worker processes can map it; the codec sees that when it is sent.
Guarantees: nothing has a name outside this process; memory goes with the last object over it.
"""

from __future__ import annotations

import math
import operator
import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from parallax._shm.arena import arena_sender, unavailable_reason
from parallax._shm.buffers import READ, WRITE
from parallax._shm.registry import expose
from parallax._shm.sender import SlabSender
from parallax._transport.encoded import dump
from parallax._transport.out_of_band import loads_out_of_band, make_pickler, make_view, view_parts

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.typing import ArrayLike, DTypeLike

T = TypeVar("T")

_MODES = {"r": READ, "rw": WRITE}


def share(obj: T, *, mode: Literal["r", "rw"] = "r") -> T:
    """Put an object's memory where worker processes can map it.

    Returns an equal object of the same type. It can be used like the original one; when it, or a
    part of it, goes to worker processes (captured by a function, as an argument, inside other
    objects), nothing is copied: they map the same memory. That is worth while for what many calls
    use; within one call, what a function captures and arguments that come again are sent once
    anyway.

    Args:
        obj: an object with large buffers: a NumPy array, a pandas object, a memoryview, or a
            container or class instance with such in it. What else is in it is copied as usual.
        mode: "r": nobody can write to it, neither here nor in a worker. "rw": it is really shared,
            what one process writes is seen by all; nothing keeps two of them from writing to the
            same place at once.

    Returns:
        The object in shared memory, which is given back when nothing refers to it any more.

    Raises:
        ValueError: there is nothing in it that can be shared, or the mode is unknown.
        OSError: there is no memory for it.
    """
    if mode not in _MODES:
        raise ValueError(f'mode is {mode!r}; it must be "r" or "rw"')
    if isinstance(obj, memoryview):
        parts = view_parts(obj)
        if parts is None:
            raise ValueError(f"a memoryview of format {obj.format!r} cannot be made anew")
        whole, form, shape, _ = parts
        view: Any = make_view(_put(_sender(), whole.raw(), mode), form, shape, mode == "r")
        return view  # type: ignore[no-any-return]
    buffers: list[pickle.PickleBuffer] = []
    payload = _pickled(obj, buffers)
    if not buffers:
        raise ValueError(
            f"there is nothing in this {type(obj).__name__} that can be shared: it has no NumPy "
            "array, or memoryview, whose memory could lie elsewhere (of bytes, share "
            "memoryview(data)). Let the function capture it instead: then it is sent once per call"
        )
    sender = _sender()
    views = [_put(sender, buffer.raw(), mode) for buffer in buffers]
    shared: T = loads_out_of_band(payload, views)
    return shared


def shared_empty(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> ndarray[Any, Any]:
    """A new array that this process and its workers share, filled with zeros.

    What a worker writes to it, or to a slice of it, is seen here. So results can be written in
    place, where copying them back would take longer than computing them::

        image = shared_empty((height, width))

        def fill(row):
            image[row] = compute(row)

        parallel_map(fill, range(height))

    Args:
        shape: elements along each axis.
        dtype: the elements' type; one without Python objects in it.

    Raises:
        ImportError: NumPy is not installed.
        ValueError: elements of this type cannot be shared.
        OSError: there is no memory for it.
    """
    import numpy as np

    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError(
            f"dtype {kind} holds references to Python objects of this process, which mean nothing "
            "in another one; use a dtype of numbers, or return such values from the function"
        )
    lengths = shape if isinstance(shape, Iterable) else (shape,)
    axes = tuple(operator.index(length) for length in lengths)
    if any(length < 0 for length in axes):
        raise ValueError("negative dimensions are not allowed")
    nbytes = math.prod((kind.itemsize, *axes))
    sender = _sender()
    view = expose(sender, sender.reserve(nbytes, WRITE), readonly=False)
    array: ndarray[Any, Any] = np.ndarray(axes, kind, buffer=view)
    return array


def shared_copy(array: ArrayLike) -> ndarray[Any, Any]:
    """A copy of an array that this process and its workers share; see ``shared_empty``.

    Args:
        array: an array, or what NumPy makes one of. The copy is in C order.

    Raises:
        ImportError: NumPy is not installed.
        ValueError: its elements cannot be shared.
        OSError: there is no memory for it.
    """
    import numpy as np

    source = np.asarray(array)
    copy: ndarray[Any, Any] = shared_empty(source.shape, source.dtype)
    copy[...] = source
    return copy


def _sender() -> SlabSender:
    sender = arena_sender()
    if sender is None:
        raise OSError(f"there is no shared memory to be had ({unavailable_reason()})")
    return sender


def _put(sender: SlabSender, data: memoryview, mode: str) -> memoryview:
    """A copy of a buffer in shared memory, as long as it is referred to."""
    slab = sender.reserve(data.nbytes, _MODES[mode])
    view = expose(sender, slab, readonly=False)
    if data.nbytes:
        view[:] = data
    return view.toreadonly() if mode == "r" else view


def _pickled(obj: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    try:
        return dump(make_pickler(pickle.Pickler, arrays=True), obj, buffers.append)
    except Exception:  # noqa: BLE001 - anything a __reduce__ raises; cloudpickle has the last word
        buffers.clear()
        import cloudpickle

        return dump(make_pickler(cloudpickle.Pickler, arrays=True), obj, buffers.append)
