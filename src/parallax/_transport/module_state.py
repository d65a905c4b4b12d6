"""Module-level state of the program, packed by the caller and compared with what a worker has.

A worker imports modules anew. A value that the import has made there as well stays the worker's
own, with its identity. One that differs is replaced by the caller's, once, and comes back when the
caller has the first one again. What has changed in the worker since then is the worker's own.

Guarantees: nothing of the program is imported for this; what cannot be carried is told only where
the worker has nothing like it.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FunctionType, MappingProxyType

from parallax._core.light_stdlib import Any, NamedTuple, TypeAlias, dumps, loads
from parallax._core.own_code import FOLDER
from parallax._transport import codec
from parallax._transport.codec import Encoded
from parallax._transport.out_of_band import OUT_OF_BAND_MARK

try:
    from _blake2 import blake2b  # hashlib loads OpenSSL
except ImportError:
    from hashlib import blake2b

#: A module and a name in it, with dots for an attribute of a class there.
Key: TypeAlias = "tuple[str, str]"

#: Bytes of a value up to which it is compared. Hashing more takes longer than sending it.
MAX_COMPARED_BYTES = 1 << 24

#: Types of what is not there yet, as in ``connection = None``, and of code: no other object, like a
#: mock, is an equivalent of these.
_UNLIKE = frozenset(
    {type(None), bool, int, float, str, bytes, tuple, list, dict, type, FunctionType, type(len)}
)

#: Where modules are that are not the program's: the standard library, and parallax.
_INSTALLED = (os.path.dirname(os.__file__), FOLDER)

#: Entries of classes that are neither state nor code of the program.
_NO_ENTRIES = frozenset({"__wrapped__", "__class__", "__base__"})

_ABSENT = object()
_serials = itertools.count()


class Packed(NamedTuple):
    key: Key
    #: equal for equal values; of its own where they are not compared.
    digest: bytes
    #: the frame that carries it: its payload, buffers, and their slabs once they are sent.
    payload: bytes
    buffers: list[memoryview]
    slabs: dict[int, Any]
    #: of code: the names, those of lists of entries with a space behind.
    paths: frozenset[str] = frozenset()
    #: of a large value: what remembers it, as long as this is referred to.
    source: Any = None

    def frame(self) -> tuple[bytes, list[memoryview], dict[int, Any]]:
        """What is sent; made anew of a value that was packed for an earlier call."""
        full = self if self.payload else pack(self.key, self.source.value)
        return full.payload, full.buffers, full.slabs

    def concerns(self, key: Key) -> bool:
        """Whether a value of that name is changed or compared by this code."""
        module, path = key
        parent = f"{path.rpartition('.')[0]} "
        return module == self.key[0] and bool(self.paths & {path, parent})


def pack(key: Key, value: Any) -> Packed:
    encoded = codec.encode(value, shared=True, aliases=False)
    digest = code_digest(value) or _digest(encoded) or b"#%d" % next(_serials)
    head = (key, _kind(value), digest, encoded.payload)
    return Packed(key, digest, dumps(head, 5), encoded.buffers, {})


def pack_code(module: str, digests: dict[str, Any]) -> Packed:
    """Pack digests of code that stands where it was defined, and lists of entries it may have."""
    digest = blake2b(repr(sorted(digests.items())).encode(), digest_size=16).digest()
    key = module, f"#{digest.hex()}"
    payload = dumps((key, "code", digest, digests), 5)
    return Packed(key, digest, payload, [], {}, frozenset(digests))


def pack_kind(key: Key, value: Any) -> Packed:
    """Pack the name of a value's type only: workers have a lock, or a file, of their own."""
    kind = _kind(value)
    return Packed(key, kind.encode(), dumps((key, kind, b"", None), 5), [], {})


class ModuleState:
    """The caller's module-level state in a worker."""

    def __init__(self) -> None:
        #: what has come and was not compared yet: kind, digest, payload and buffers.
        self._pending: dict[Key, tuple[str, bytes, Any, Any]] = {}
        #: what the import has made, with its digest.
        self._own: dict[Key, tuple[bytes, Any]] = {}
        self._replaced: set[Key] = set()
        #: what the program's modules and classes had when they were seen first, and what was seen.
        self._fresh: dict[Key, Any] = {}
        self._seen: set[str] = set()
        self._refused: dict[Key, str] = {}
        #: an import made long ago has other code: a fresh worker may have the caller's.
        self.stale = self._settled = False

    @property
    def open(self) -> bool:
        """Whether anything is left for ``settle``."""
        return bool(self._pending or self._refused)

    def take(self, payload: Any, buffers: Any) -> None:
        key, *rest = loads(payload)
        self._refused.pop(key, None)
        self._pending.pop(key, None)  # for it is the last one now
        self._pending[key] = *rest, buffers

    def note_imports(self) -> None:
        """Note what modules have that were imported since the last time, before items change it."""
        if len(sys.modules) == len(self._seen):
            return
        for module, found in list(sys.modules.items()):
            if module in self._seen:
                continue
            self._seen.add(module)
            file = getattr(found, "__file__", None) or _INSTALLED[0]
            if file.startswith(_INSTALLED) or "-packages" in file:
                continue
            for name, value in list(vars(found).items()):
                self._fresh[module, name] = value
                if issubclass(type(value), type) and _space(value).get("__module__") == module:
                    entries = _space(value).items()
                    self._fresh.update({(module, f"{name}.{k}"): each for k, each in entries})

    def settle(self, keys: list[Key]) -> None:
        """Compare what has come for loaded modules; TypeError if one of ``keys`` cannot travel."""
        for key in [key for key in self._pending if key[0] in sys.modules]:
            self._compare(key, *self._pending.pop(key))
        for key in keys:
            if key in self._refused:
                raise TypeError(self._refused[key])
        self._settled = True

    def _compare(self, key: Key, kind: str, digest: bytes, payload: Any, buffers: Any) -> None:
        if isinstance(payload, dict):
            self._compare_code(key, payload)
            return
        holder, name = find_holder(key)
        own = _found(holder, name)
        alike = own is not _ABSENT and (_kind(own) == kind or type(own) not in _UNLIKE)
        if payload is None:
            if not alike:
                self._refuse(key, kind, own)
            return
        compared = not digest.startswith(b"#")
        if key not in self._own:
            fresh = self._fresh.get(key, own)
            known = compared and fresh is not _ABSENT
            self._own[key] = digest_of(fresh) if known else b"", fresh
        if compared and digest == self._own[key][0]:
            self._restore(key)
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

    def _compare_code(self, key: Key, wanted: dict[str, Any]) -> None:
        """Compare digests of code, and see to it that nothing has entries that it must not have."""
        for path, expected in wanted.items():
            place = key[0], path
            if isinstance(expected, list):
                path = path[:-1]  # noqa: PLW2901 - see ``pack_code``
                for other in [each for each in self._replaced if each[0] == key[0]]:
                    parent, _, entry = other[1].rpartition(".")
                    if parent == path and entry not in expected:
                        self._restore(other)
                continue
            self._restore(place)
            if code_digest(_found(*find_holder(place))) != expected:
                self._refused[key] = f"{'.'.join(place)} is other code than an import makes"
                self.stale = self._settled
                return

    def _restore(self, key: Key) -> None:
        """Have what the import has made."""
        if key in self._replaced:
            self._replaced.discard(key)
            (holder, name), own = find_holder(key), self._own[key][1]
            try:
                delattr(holder, name) if own is _ABSENT else setattr(holder, name, own)
            except (AttributeError, TypeError):  # what it was set on was replaced itself
                return

    def _refuse(self, key: Key, kind: str, own: Any) -> None:
        has = "has none" if own is _ABSENT else f"has {own!r:.40}"
        self._refused[key] = f"{'.'.join(key)} is a {kind} that cannot travel; a worker {has}"


def code_digest(value: Any) -> bytes | None:
    """The digest of a function, of what is made of functions, and of a class; else None."""
    if issubclass(type(value), type):
        names = sorted(name for name in _space(value) if not name.startswith("_"))
        return repr((type.__getattribute__(value, "__qualname__"), names)).encode()
    if issubclass(type(value), (classmethod, staticmethod)):
        value = value.__func__
    if issubclass(type(value), property):
        return b"".join(code_digest(each) or b"-" for each in (value.fget, value.fset, value.fdel))
    if type(value) is not FunctionType:
        inner = _space(value).get("__wrapped__")
        return code_digest(inner) if type(inner) is FunctionType else None
    return _code_digest(value.__code__) + b"".join(map(_code_digest, _wrapped(value)))


def _space(obj: Any) -> Mapping[str, Any]:
    """What is in an object's ``__dict__``; asks no code of the program, which a proxy has."""
    try:
        get = type if issubclass(type(obj), type) else object
        space: Mapping[str, Any] = get.__getattribute__(obj, "__dict__")
    except AttributeError:
        return {}
    return space if type(space) in {dict, MappingProxyType} else {}


def _wrapped(function: FunctionType) -> list[CodeType]:
    """The code of the functions in the closure of a function, as a decorator leaves them there."""
    cells = (getattr(cell, "cell_contents", None) for cell in function.__closure__ or ())
    return [each.__code__ for each in cells if type(each) is FunctionType]


@lru_cache(maxsize=2048)
def _code_digest(code: CodeType) -> bytes:
    return blake2b(repr(_code_parts(code)).encode(), digest_size=16).digest()


def _code_parts(code: CodeType) -> tuple[Any, ...]:
    constants = [
        _code_parts(each)
        if type(each) is CodeType
        else sorted(map(repr, each))
        if type(each) is frozenset
        else each
        for each in code.co_consts
    ]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def entries_of(value: Any) -> list[tuple[str, Any]]:
    """What a class or function of the program has that may have been changed."""
    found = [(name, each) for name, each in list(_space(value).items()) if _may_change(name, each)]
    if type(value) is FunctionType:
        names = ("__defaults__", "__kwdefaults__")
        found += [(name, each) for name in names if (each := getattr(value, name))]
    return found


def _may_change(name: str, value: Any) -> bool:
    if name.startswith("__"):
        return name not in _NO_ENTRIES and bool(code_digest(value))
    return not hasattr(type(value), "__objclass__")


def _found(holder: Any, name: str) -> Any:
    if type(holder) is FunctionType:
        return getattr(holder, name, _ABSENT)
    return vars(holder).get(name, _ABSENT) if hasattr(holder, "__dict__") else _ABSENT


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
        return code_digest(value) or _digest(codec.encode(value, shared=True))
    except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
        return b""


def _digest(encoded: Encoded) -> bytes:
    if encoded.nbytes > MAX_COMPARED_BYTES:
        return b""
    # Which pickler it was depends on what else is shared.
    found = blake2b(encoded.payload.removeprefix(OUT_OF_BAND_MARK), digest_size=16)
    for buffer in encoded.buffers:
        found.update(buffer)
    return found.digest()


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
