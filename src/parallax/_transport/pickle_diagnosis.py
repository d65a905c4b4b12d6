"""Which part of an object cannot be pickled, and why: for the error after a failed encode."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from parallax._core.lazy_import import traceback
from parallax._core.light_stdlib import Any
from parallax._transport.codec import encode, encode_reply

#: Levels of nesting that are searched.
MAX_DIAGNOSIS_DEPTH = 12

#: The reason where nothing is found that cannot be encoded.
UNKNOWN_REASON = "it could not be pickled"


def find_unpicklable(obj: Any, name: str, *, reply: bool = False) -> tuple[str, str]:
    """The path to the innermost part that cannot be encoded, and the serializer's message."""
    encoder = encode_reply if reply else encode
    reason = _failure(obj, encoder)
    path = name
    seen: set[int] = set()
    for _ in range(MAX_DIAGNOSIS_DEPTH):
        seen.add(id(obj))
        for step, part in _parts(obj):
            if id(part) in seen:
                continue
            message = _failure(part, encoder)
            if message:
                path, obj, reason = path + step, part, message
                break
        else:
            break
    return path, reason or UNKNOWN_REASON


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
