"""The module-level state of the program that a callable reads, captured for its workers.

What a small value holds is packed for each call. A large one is packed once, and remembered for as
long as a worker lives that was sent it (``Kept``); later calls compare it, which is quicker, and
send nothing to a worker that has it.

Guarantees: nothing is sent from here. A change between two calls is seen wherever it is in flat
containers, in nested ones of plain types up to ``MAX_WHOLE_BYTES``, and in buffers; deep inside of
larger ones, and of other objects, by samples.
"""

from __future__ import annotations

import marshal
import sys
from _weakref import ref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FunctionType

from parallax._core.lazy_import import zlib
from parallax._core.light_stdlib import Any
from parallax._guard.digest import Walk
from parallax._guard.events import is_handle
from parallax._transport import codec
from parallax._transport.module_state import (
    Key,
    Packed,
    code_digest,
    entries_of,
    find_holder,
    pack,
    pack_code,
    pack_kind,
)

#: Bytes of module-level values that are packed for each call of an executor. More cost more, with
#: less fewer changes inside of them are seen.
MAX_REPACKED_BYTES = 1 << 12

#: Bytes of a packed value from which on it is remembered. Smaller ones are packed within 0.5 ms.
MIN_KEPT_BYTES = 1 << 16

#: Bytes of a packed value, buffers not counted, up to which all of a nested one is compared in each
#: call: about 20 ms, and of objects that are no plain containers. More take longer.
MAX_WHOLE_BYTES, MAX_OBJECTS_BYTES = 1 << 22, 1 << 19

#: Entries of a flat container, and bytes of buffers, up to which all are compared: 10 and 100 ms.
MAX_FLAT_ENTRIES, MAX_BUFFER_BYTES = 5_000_000, 1 << 28

#: Steps of the walk through what is compared by samples; see ``digest``.
SAMPLE_STEPS = 5000

#: Entries of a container that are pickled to see whether all can be.
TRIED_ENTRIES = 128

_SIMPLE_TYPES = frozenset({int, float, complex, bool, type(None), str, bytes})
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})

_kept: dict[Key, ref[Kept]] = {}


class Kept:
    """A large value that was packed, and what shows that it is still the same."""

    def __init__(self, value: Any, packed: Packed) -> None:
        self.value = value
        self.packed = packed._replace(payload=b"", buffers=[], slabs={}, source=self)
        size = len(packed.payload)
        self._probe = _probe_for(value, size, size + sum(b.nbytes for b in packed.buffers))
        self._mark = self._probe(value) if self._probe is not None else type(value)(value)

    def holds(self) -> bool:
        try:
            if self._probe is None:
                return bool(self._mark == self.value)
            return bool(self._probe(self.value) == self._mark)
        except Exception:  # noqa: BLE001 - whatever an __eq__ or a __reduce__ raises
            return False


def _probe_for(value: Any, size: int, total: int) -> Callable[[Any], Any] | None:
    """What makes a figure of a value to compare; None if a shallow copy is to be compared."""
    kind = type(value)
    if kind in _SIMPLE_TYPES:
        return type
    if kind in _CONTAINERS:
        if len(value) <= MAX_FLAT_ENTRIES:
            kinds = set(map(type, value))
            if kind is dict:
                kinds.update(map(type, value.values()))
            if kinds <= _SIMPLE_TYPES:
                return _entries_in_order if kind is dict else None
        if size <= MAX_WHOLE_BYTES and not issubclass(kind, (set, frozenset)):
            try:
                _marshaled(value)
            except ValueError:  # there are other objects inside
                pass
            else:
                return _marshaled
    whole = size <= MAX_OBJECTS_BYTES and total <= MAX_BUFFER_BYTES
    return _encoded if whole else _sampled


def _entries_in_order(value: Any) -> tuple[list[Any], list[Any]]:
    return list(value), list(value.values())


def _marshaled(value: Any) -> int:
    return hash(marshal.dumps(value))


def _encoded(value: Any) -> list[int]:
    encoded = codec.encode(value, shared=True, aliases=False)
    parts: tuple[Any, ...] = encoded.payload, *encoded.buffers
    return [zlib.crc32(part) for part in parts]


def _sampled(value: Any) -> tuple[int, int]:
    return Walk({}).digest(value, SAMPLE_STEPS)


def _pack(key: Key, value: Any) -> Packed:
    kept = _kept[key]() if key in _kept else None
    if kept is not None and kept.value is value and kept.holds():
        return kept.packed
    packed = pack(key, value)
    if len(packed.payload) + sum(b.nbytes for b in packed.buffers) < MIN_KEPT_BYTES:
        return packed
    if kept is not None and kept.value is value and kept.packed.digest == packed.digest:
        return packed._replace(source=kept)
    kept = Kept(value, packed)
    _kept[key] = ref(kept)
    return packed._replace(source=kept)


def unportable(reads: Iterable[Key]) -> str:
    """Why a module-level value cannot travel, tried by samples; "" if all can."""
    for key, value, needed in _entries(reads, {}):
        if not needed or is_handle(value) or code_digest(value) is not None:
            continue
        try:
            codec.encode(samples(value, TRIED_ENTRIES), shared=True)
        except Exception as error:  # noqa: BLE001 - whatever a __reduce__ raises
            return _stuck(key, error)
    return ""


def samples(value: Any, most: int) -> Any:
    """A value, with about so many entries only of what is a large container of a plain type."""
    if type(value) not in _CONTAINERS or len(value) <= most or not most:
        return value
    if type(value) in {list, tuple}:
        part = most // 3
        picked = [*value[:part], *value[:: 1 + len(value) // part], *value[-part:]]
    else:
        picked = [*islice(value, most)]
        if type(value) is dict:
            picked += islice(value.values(), most)
    return [samples(each, most // 4) for each in picked]


def _stuck(key: Key, error: Exception) -> str:
    return f"the global {'.'.join(key)} cannot be pickled ({error})"


def capture_state(
    reads: Iterable[Key], known: dict[Key, tuple[Any, Packed]] | None = None
) -> tuple[tuple[Packed, ...], str]:
    """The values of names now, ``known`` ones if large; and why one cannot travel, or ""."""
    found: list[Packed] = []
    stuck = ""
    code: dict[str, dict[str, Any]] = {}
    for key, value, needed in _entries(reads, code):
        module, name = key
        before = None if known is None else known.get(key)
        if before and before[0] is value and len(before[1].payload) > MAX_REPACKED_BYTES:
            found.append(before[1])
            continue
        digest = code_digest(value)
        if digest is not None and _stands_at(value, key):
            if not issubclass(type(value), type) and _plainly_loaded(module):
                code.setdefault(module, {})[name] = digest
            continue
        try:
            make = pack_kind if is_handle(value) else _pack if known is None else pack
            packed = make(key, value)
        except Exception as error:  # noqa: BLE001 - whatever a __reduce__ raises
            if needed:
                stuck = stuck or _stuck(key, error)
            packed = pack_kind(key, value)
        found.append(packed)
        if known is not None:
            known[key] = value, packed
    # Code first: what it restores has attributes.
    packs = [pack_code(module, digests) for module, digests in code.items()]
    return (*packs, *found), stuck


def _entries(
    reads: Iterable[Key], names: dict[str, dict[str, Any]]
) -> Iterator[tuple[Key, Any, bool]]:
    """Named values and their attributes, by name in ``names``; whether workers need them."""
    for key in dict.fromkeys((module, name) for module, name in reads):
        holder, name = find_holder(key)
        if name not in getattr(holder, "__dict__", ()):
            continue
        value = vars(holder)[name]
        if issubclass(type(value), (type, FunctionType)) and _stands_at(value, key):
            entries = entries_of(value)
            # In a key of its own: a function has a digest besides.
            names.setdefault(key[0], {})[f"{key[1]} "] = [attribute for attribute, _ in entries]
            for attribute, entry in entries:
                yield (key[0], f"{key[1]}.{attribute}"), entry, False
            if issubclass(type(value), type):
                continue
        yield key, value, True


def _stands_at(value: Any, key: Key) -> bool:
    """Whether code is what its own name leads to."""
    value = getattr(value, "__func__", value)
    value = getattr(value, "fget", value)
    return (getattr(value, "__module__", None), getattr(value, "__qualname__", None)) == key


def _plainly_loaded(module: str) -> bool:
    """Whether no import hook made a module's code (pytest, typeguard), which workers may lack."""
    loader = getattr(getattr(sys.modules.get(module), "__spec__", None), "loader", None)
    return type(loader).__module__ in {"_frozen_importlib_external", "zipimport"}
