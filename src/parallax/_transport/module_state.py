"""Module-level state of the program, packed by the caller and compared with what a worker has.

A worker imports modules anew. A value that the import has made there as well stays the worker's
own, with its identity. One that differs is replaced by the caller's, once, and comes back when the
caller has the first one again. What has changed in the worker since then is the worker's own.

Guarantees: nothing of the program is imported for this; what cannot be carried is told only where
the worker has nothing like it.
"""

from __future__ import annotations

import itertools
import sys

from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple, dumps, loads
from parallax._transport import codec

try:
    from _blake2 import blake2b  # hashlib loads OpenSSL
except ImportError:
    from hashlib import blake2b

if TYPE_CHECKING:
    from typing import Any

    from parallax._transport.codec import Encoded

    #: A module and a name in it, with dots for an attribute of a class there.
    Key = tuple[str, str]

#: Bytes of a value up to which it is compared. Hashing more takes longer than sending it.
MAX_COMPARED_BYTES = 1 << 24

#: Types that stand for what is not there yet, as in ``connection = None``.
_PLACEHOLDERS = frozenset({type(None), bool, int, float, str, bytes, tuple, list, dict})

_ABSENT = object()
_serials = itertools.count()


class Packed(NamedTuple):
    """One value of the caller's."""

    key: Key
    #: equal for equal values; of its own where they are not compared.
    digest: bytes
    #: the frame that carries it: its payload, buffers, and their slabs once they are sent.
    payload: bytes
    buffers: list[memoryview]
    slabs: dict[int, Any]


def pack(key: Key, value: Any) -> Packed:
    """Pack a value; one that cannot be pickled as the name of its type.

    Raises:
        Exception: whatever the pickler raised.
    """
    encoded = codec.encode(value, shared=True)
    digest = _digest(encoded) or b"#%d" % next(_serials)
    head = (key, _kind(value), digest, encoded.payload)
    return Packed(key, digest, dumps(head, 5), encoded.buffers, {})


def pack_kind(key: Key, value: Any) -> Packed:
    """Pack the name of a value's type only: workers have a lock, or a file, of their own."""
    kind = _kind(value)
    return Packed(key, kind.encode(), dumps((key, kind, b"", None), 5), [], {})


class ModuleState:
    """The caller's module-level state in a worker."""

    def __init__(self) -> None:
        #: what has come and was not compared yet: kind, digest, payload and buffers.
        self._pending: dict[Key, tuple[str, bytes, bytes | None, Any]] = {}
        #: what the import has made, with its digest.
        self._own: dict[Key, tuple[bytes, Any]] = {}
        self._replaced: set[Key] = set()
        self._refused: dict[Key, str] = {}

    @property
    def open(self) -> bool:
        """Whether anything is left for ``settle``."""
        return bool(self._pending or self._refused)

    def take(self, payload: Any, buffers: Any) -> None:
        """Take a frame of ``Packed``."""
        key, *rest = loads(payload)
        self._refused.pop(key, None)
        self._pending[key] = *rest, buffers

    def settle(self, keys: list[Key]) -> None:
        """Compare what has come for modules that are imported by now, as far as it is among keys.

        Raises:
            TypeError: the program has a value that the import does not make, and cannot be carried.
        """
        for key in keys:
            if key in self._pending and key[0] in sys.modules:
                self._compare(key, *self._pending.pop(key))
            if key in self._refused:
                raise TypeError(self._refused[key])

    def _compare(
        self, key: Key, kind: str, digest: bytes, payload: bytes | None, buffers: Any
    ) -> None:
        holder, name = find_holder(key)
        own = vars(holder).get(name, _ABSENT) if holder is not None else _ABSENT
        alike = own is not _ABSENT and (_kind(own) == kind or type(own) not in _PLACEHOLDERS)
        if payload is None:
            if not alike:
                self._refuse(key, kind, own)
            return
        compared = not digest.startswith(b"#")
        if key not in self._own and compared:
            self._own[key] = digest_of(own) if own is not _ABSENT else b"", own
        if compared and digest == self._own[key][0]:
            if key in self._replaced:
                setattr(holder, name, self._own[key][1])
                self._replaced.discard(key)
            return
        try:
            value = codec.decode(payload, buffers)
        except Exception:  # noqa: BLE001 - it may be bound to the process that made it
            if not alike:
                self._refuse(key, kind, own)
            return
        if holder is not None:
            setattr(holder, name, value)
            self._replaced.add(key)

    def _refuse(self, key: Key, kind: str, own: Any) -> None:
        has = "has none" if own is _ABSENT else f"has {own!r:.40}"
        self._refused[key] = f"{'.'.join(key)} is a {kind} that cannot travel; a worker {has}"


def find_holder(key: Key) -> tuple[Any, str]:
    """What has the value, a module or a class, and its name there."""
    module, path = key
    *classes, name = path.split(".")
    holder: Any = sys.modules.get(module)
    for each in classes:
        holder = getattr(holder, each, None)
    return holder, name


def digest_of(value: Any) -> bytes:
    """The digest of a value here; b"" if it has none."""
    try:
        return _digest(codec.encode(value, shared=True))
    except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
        return b""


def _digest(encoded: Encoded) -> bytes:
    if encoded.nbytes > MAX_COMPARED_BYTES:
        return b""
    found = blake2b(encoded.payload, digest_size=16)
    for buffer in encoded.buffers:
        found.update(buffer)
    return found.digest()


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
