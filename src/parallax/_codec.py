"""Objects to and from frames: pickle protocol 5, cloudpickle where plain pickle does not do.

Guarantees: large contiguous buffers (arrays) travel out of band, uncopied by the pickler, and
come back writable. What is defined in ``__main__`` travels by value and comes back as the very
class it was. A failure names the part that does not travel.
Assumptions: plain pickle is five times faster than cloudpickle on small items (measured), so it
goes first; a pickle that mentions ``__main__`` is made again by value, because the worker never
runs the caller's main script.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import cloudpickle
from cloudpickle import cloudpickle as _tracking

__all__ = ["Encoded", "culprit", "decode", "encode", "encode_by_value", "encode_reply", "needs"]

#: Buffers from this many bytes on travel out of band. Below, one more part in a frame costs more
#: than the copy that it saves.
OUT_OF_BAND = 1 << 15


class Encoded(NamedTuple):
    """An object as one pickle and the large buffers it refers to."""

    payload: bytes
    buffers: list[memoryview]

    @property
    def nbytes(self) -> int:
        """All bytes that travel."""
        return len(self.payload) + sum(b.nbytes for b in self.buffers)


class _Keeper:
    """Decides buffer by buffer: True keeps it in band."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True
        self.buffers.append(raw)
        return False


def encode(obj: Any) -> Encoded:
    """Encode an object for a worker.

    Raises:
        Exception: whatever the pickler raised; ``culprit`` then tells where.
    """
    keep = _Keeper()
    try:
        data = pickle.dumps(obj, 5, buffer_callback=keep)
    except Exception:  # noqa: BLE001 - anything a __reduce__ raises; cloudpickle has the last word
        return encode_by_value(obj)
    return Encoded(data, keep.buffers) if b"__main__" not in data else encode_by_value(obj)


def encode_by_value(obj: Any, modules: tuple[ModuleType, ...] = ()) -> Encoded:
    """Encode with cloudpickle: functions and classes of ``__main__`` travel by value.

    Args:
        obj: the object.
        modules: further modules whose functions and classes travel by value, because the worker
            cannot import them.
    """
    keep = _Keeper()
    registered = []
    try:
        for module in modules:
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                registered.append(module)
        return Encoded(cloudpickle.dumps(obj, 5, buffer_callback=keep), keep.buffers)
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def encode_reply(obj: Any) -> Encoded:
    """Encode a result on the worker's side.

    Classes that came from the parent by value go back as a reference to the parent's own class.
    By value they would be a second class there, and would overwrite the first one's attributes.
    """
    keep = _Keeper()
    try:
        data = pickle.dumps(obj, 5, buffer_callback=keep)
        return Encoded(data, keep.buffers)
    except Exception:  # noqa: BLE001 - as in encode
        keep = _Keeper()
    with io.BytesIO() as file:
        _ReplyPickler(file, 5, buffer_callback=keep).dump(obj)
        return Encoded(file.getvalue(), keep.buffers)


def decode(payload: Any, buffers: Any = ()) -> Any:
    """Rebuild an object. The buffers become the memory of its arrays."""
    return pickle.loads(payload, buffers=buffers)


def _tracked_class(tracker_id: str) -> type:
    found: type = _tracking._DYNAMIC_CLASS_TRACKER_BY_ID[tracker_id]
    return found


class _ReplyPickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            tracker_id = _tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj)
            if tracker_id is not None:
                return _tracked_class, (tracker_id,)
        return super().reducer_override(obj)


# -- what went wrong, and what is needed -----------------------------------------------------------


def culprit(obj: Any, name: str, *, reply: bool = False) -> tuple[str, str]:
    """Find the innermost part of an object that cannot be encoded.

    Args:
        obj: an object for which ``encode`` failed.
        name: how to call it, for example "item".
        reply: use the worker's encoder.

    Returns:
        The path to the part, such as ``item.connection['lock']``, and the serializer's words.
    """
    encoder = encode_reply if reply else encode
    reason = _failure(obj, encoder)
    path = name
    seen: set[int] = set()
    for _ in range(12):
        seen.add(id(obj))
        for step, part in _parts(obj):
            if id(part) in seen:
                continue
            words = _failure(part, encoder)
            if words:
                path, obj, reason = path + step, part, words
                break
        else:
            break
    return path, reason or "it could not be pickled"


def _failure(obj: Any, encoder: Any) -> str:
    try:
        encoder(obj)
    except Exception as error:  # noqa: BLE001 - any __reduce__ may raise anything
        return "".join(traceback.format_exception_only(type(error), error)).strip()
    return ""


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    kind = type(obj)
    if kind is dict:
        yield from ((f"[{k!r}]", v) for k, v in obj.items())
        return
    if issubclass(kind, (list, tuple, set, frozenset)):
        yield from ((f"[{i}]", v) for i, v in enumerate(obj))
        return
    closure = getattr(obj, "__closure__", None)
    if closure:
        for name, cell in zip(obj.__code__.co_freevars, closure, strict=False):
            try:
                yield f" closure variable {name!r}", cell.cell_contents
            except ValueError:
                continue
    if hasattr(obj, "__code__") and hasattr(obj, "__globals__"):
        for name in obj.__code__.co_names:
            if name in obj.__globals__ and not isinstance(obj.__globals__[name], ModuleType):
                yield f" global {name!r}", obj.__globals__[name]
    for attribute in ("func", "args", "keywords", "__self__"):
        if attribute in dir(kind) or attribute == "__self__":
            part = getattr(obj, attribute, None)
            if part is not None and not isinstance(part, ModuleType):
                yield f".{attribute}", part
    yield from ((f".{k}", v) for k, v in getattr(obj, "__dict__", {}).items())


def needs(payload: bytes) -> set[str]:
    """Names of the modules that decoding a pickle would import.

    Args:
        payload: a pickle made by ``encode``; very long ones are not read to the end.
    """
    found: set[str] = set()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(payload)):
            if isinstance(argument, str) and len(argument) < 200:
                if argument in sys.modules:
                    found.add(argument)
            if opcode.name == "GLOBAL":
                found.add(str(argument).split(" ", 1)[0])
            if count > 20_000:
                break
    except Exception:  # noqa: BLE001 - a hint only: the worker imports what it needs anyway
        return found
    return found
