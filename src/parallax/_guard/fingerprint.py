"""A cheap fingerprint of the state that the guard watches while the first items run.

Guarantees: runs no code of the program. A fingerprint holds the objects and not only their ids, so
that an object at a reused address is not taken for the old one. A change deep inside may be missed;
the guard then says "in the code, not seen yet", which keeps the callable in the process, too.
"""

from __future__ import annotations

import operator
import types
from collections import deque
from itertools import islice

from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.lookup import UNKNOWN_OBJECT, instance_dict, is_a, is_frozen, mro_of, resolve

if TYPE_CHECKING:
    import zlib
    from collections.abc import Iterable
    from typing import Any, Final, TypeAlias
else:
    zlib = lazy_module("zlib")

# The steps from the callable or an argument to an object.
Path: TypeAlias = "tuple[tuple[str, Any], ...]"
# Objects to be compared by identity, and figures to be compared by value.
State: TypeAlias = "tuple[list[Any], list[Any]]"

# Bigger containers are sampled at both ends. Larger: watching costs more than short items do.
_MAX_WHOLE_ITEMS: Final = 64
_SAMPLED_PER_END: Final = 16
_MAX_WHOLE_BYTES: Final = 8192


def unwatchable() -> State:
    """The state of what cannot be watched: it differs from any other, so each item changes it."""
    return [], [_never_equal()]


def _never_equal() -> float:
    # A new NaN each time, because lists that are compared take identical elements for equal.
    return float("nan")


def follow(path: Path, fn: Any, args: tuple[Any, ...]) -> Any:
    """The object at a path now, or the last one before a step that names no single object."""
    kind, key = path[0]
    obj = fn if kind == "fn" else args[key] if key < len(args) else UNKNOWN_OBJECT
    for kind, key in path[1:]:
        if kind in ("elem", "kin", "deep"):
            return obj
        held, obj = obj, resolve(obj, kind, key)
        if obj is UNKNOWN_OBJECT:
            # Absent, or not to be looked up without running code.
            return held
    return obj


def fingerprint(path: Path, fn: Any, args: tuple[Any, ...]) -> State:
    """The state of the object at a path."""
    if not path:
        return unwatchable()
    refs: list[Any] = []
    figures: list[Any] = []
    _add(follow(path, fn, args), refs, figures, 0)
    return refs, figures


def differs(old: State, new: State) -> bool:
    """Whether two fingerprints of one path show a change."""
    if old[1] != new[1] or len(old[0]) != len(new[0]):
        return True
    return not all(map(operator.is_, old[0], new[0]))


def _add(obj: Any, refs: list[Any], figures: list[Any], depth: int) -> None:
    refs.append(obj)
    content: Iterable[Any]
    if obj is UNKNOWN_OBJECT or is_frozen(obj):
        return
    if is_a(obj, list):
        size = list.__len__(obj)
        content = list.__iter__(obj) if size <= _MAX_WHOLE_ITEMS else _both_ends(obj, size)
    elif is_a(obj, dict):
        size = dict.__len__(obj)
        content = dict.values(obj)
        if size > _MAX_WHOLE_ITEMS:
            last = next(reversed(obj)) if type(obj) is dict else None
            content = [*islice(content, _SAMPLED_PER_END), last]
    elif is_a(obj, (tuple, set, frozenset, deque)):
        size = len(obj) if type(obj) in (tuple, set, frozenset, deque) else 0
        content = islice(iter(obj), _MAX_WHOLE_ITEMS) if size else ()
    else:
        _add_other(obj, refs, figures, depth)
        return
    figures.append(size)
    held = list(content)
    refs += held
    if depth == 0:
        for child in held[:_SAMPLED_PER_END]:
            if not is_frozen(child):
                _add(child, refs, figures, 1)


def _both_ends(obj: list[Any], size: int) -> list[Any]:
    get = list.__getitem__
    return [*get(obj, slice(0, _SAMPLED_PER_END)), *get(obj, slice(size - _SAMPLED_PER_END, size))]


def _add_other(obj: Any, refs: list[Any], figures: list[Any], depth: int) -> None:
    kind = type(obj)
    if is_a(obj, types.ModuleType):
        return
    if is_a(obj, type):
        refs += list(type.__getattribute__(obj, "__dict__").values())[: 2 * _MAX_WHOLE_ITEMS]
        return
    if kind in (bytearray, memoryview) or kind.__name__ in ("array", "ndarray"):
        figures.append(_bytes_of(obj))
        return
    if kind.__name__ == "SimpleQueue" and kind.__module__ == "_queue":
        figures.append(obj.qsize())
        return
    space = instance_dict(obj)
    names = [
        raw
        for cls in mro_of(kind)
        for raw in type.__getattribute__(cls, "__dict__").values()
        if type(raw) is types.MemberDescriptorType
    ]
    if space is None and not names:
        figures.append(_never_equal())
        return
    held = list(dict.values(space))[: 2 * _MAX_WHOLE_ITEMS] if space is not None else []
    for member in names:
        try:
            held.append(member.__get__(obj, kind))
        except AttributeError:
            held.append(UNKNOWN_OBJECT)
    figures.append(len(held))
    refs += held
    if depth == 0:
        for child in held[:_MAX_WHOLE_ITEMS]:
            if is_a(child, (list, dict, set, deque)):
                _add(child, refs, figures, 1)


def _bytes_of(obj: Any) -> Any:
    try:
        view = memoryview(obj)
        if not view.c_contiguous:
            return _never_equal()
        flat = view.cast("B")
        size = len(flat)
        if size <= _MAX_WHOLE_BYTES:
            return (size, zlib.crc32(flat))
        # Whole words at even distances: a stride of single bytes would sample low bytes only.
        step = size // (_MAX_WHOLE_BYTES // 64)
        parts = b"".join(flat[at : at + 64] for at in range(0, size - 64, step))
        return (size, zlib.crc32(parts))
    except (TypeError, ValueError, BufferError):
        return _never_equal()
