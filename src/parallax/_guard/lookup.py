"""Inspects the program's objects without running any of its code.

Guarantees: no property, `__getattr__`, `__len__`, `__eq__` or `__class__` of the program's classes
is run, and `resolve` never raises: what cannot be found out is `UNKNOWN_OBJECT`.
Assumes: a class is not changed between two scans; types of values and code of functions may be.
"""

from __future__ import annotations

import builtins
import functools
import operator
import os
import sys
import types
from collections import deque
from itertools import islice

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.own_code import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final


class Sentinel:
    """A named constant that equals nothing else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


# An object that cannot be found without running code, or is not there yet.
UNKNOWN_OBJECT: Final[Any] = Sentinel("UNKNOWN_OBJECT")
# What `class_lookup` gives for a name that no class has, and the constant of a non-constant value.
NO_ATTRIBUTE: Final[Any] = Sentinel("NO_ATTRIBUTE")
_FROZEN_BUILTINS: Final = frozenset({
    int, float, complex, bool, str, bytes, type(None), range, slice, type(...),
    type(NotImplemented),
})  # fmt: skip
# By name, because importing these modules takes longer than importing the whole package.
_FROZEN_NAMES: Final = frozenset({
    ("re", "Pattern"), ("re", "Match"), ("datetime", "datetime"), ("datetime", "date"),
    ("datetime", "time"), ("datetime", "timedelta"), ("datetime", "timezone"),
    ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib", "PurePosixPath"),
    ("pathlib", "PureWindowsPath"), ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"), ("zoneinfo", "ZoneInfo"), ("ipaddress", "IPv4Address"),
    ("ipaddress", "IPv6Address"), ("_struct", "Struct"), ("operator", "itemgetter"),
    ("operator", "attrgetter"),
})  # fmt: skip


def is_a(obj: object, cls: type | tuple[type, ...]) -> bool:
    """`isinstance` that never asks the object for its `__class__`, which may be a property."""
    return issubclass(type(obj), cls)


def is_frozen(obj: object) -> bool:
    """Whether the object, and all that can be reached from it, cannot be changed."""
    kind = type(obj)
    if kind in _FROZEN_BUILTINS:
        return True
    module = type.__getattribute__(kind, "__module__")
    if module == "numpy":
        return kind.__name__ != "ndarray" and any(c.__name__ == "generic" for c in mro_of(kind))
    return (module, kind.__name__) in _FROZEN_NAMES if type(module) is str else False


def mro_of(cls: type) -> tuple[type, ...]:
    """The classes in which attributes of an instance are looked up."""
    order: tuple[type, ...] = type.__getattribute__(cls, "__mro__")
    return order


def class_lookup(cls: type, name: str) -> Any:
    """The raw entry of a class or of one of its bases, or `NO_ATTRIBUTE`."""
    for base in mro_of(cls):
        space = type.__getattribute__(base, "__dict__")
        if name in space:
            return space[name]
    return NO_ATTRIBUTE


def top_module(obj: object) -> str:
    """The top-level package in which a class or function was defined, without an underscore."""
    look_up: Any = type.__getattribute__ if is_a(obj, type) else object.__getattribute__
    try:
        module = look_up(obj, "__module__")
    except AttributeError:
        return ""
    return module.partition(".")[0].lstrip("_") if type(module) is str else ""


def _normal(path: str) -> str:
    return path.replace("\\", "/").lower()


# The standard library is found by the folder of one of its modules, because importing `sysconfig`
# takes longer than importing all of the guard. This package is named because it is outside
# site-packages while it is being developed.
_INSTALLED_PREFIXES: Final = tuple(
    _normal(place).rstrip("/") + "/" for place in (os.path.dirname(os.__file__), FOLDER) if place
)


@functools.lru_cache(maxsize=4096)
def is_own_code(filename: str) -> bool:
    """Whether code of this file belongs to the program rather than to an installed package."""
    path = _normal(filename)
    return not (
        path.startswith(("<frozen", "<__array_function__", *_INSTALLED_PREFIXES))
        or "/site-packages/" in path
        or "/dist-packages/" in path
    )


def is_own_function(obj: object) -> bool:
    """Whether the object is a Python function of the program."""
    return type(obj) is types.FunctionType and is_own_code(obj.__code__.co_filename)


def called_method(fn: Any, item: object) -> Any:
    """The method of the program that an ``operator.methodcaller`` calls; else the callable."""
    if type(fn) is not operator.methodcaller:
        return fn
    reduced: Any = fn.__reduce__()
    made, args = reduced[:2]
    name = args[0] if made is operator.methodcaller else made.args[0]
    method = resolve(type(item), "attr", name)
    return method if is_own_function(method) else fn


def is_own_class(cls: type) -> bool:
    """Whether a class belongs to the program."""
    name = type.__getattribute__(cls, "__module__")
    if type(name) is not str or name == "builtins":
        return False
    if name == "__main__":  # which in a worker is another module
        return True
    module = sys.modules.get(name)
    if module is not None and is_a(module, types.ModuleType):
        file = object.__getattribute__(module, "__dict__").get("__file__")
        if type(file) is str:
            return is_own_code(file)
    return name.partition(".")[0] not in sys.stdlib_module_names


# Elements that are looked at: to find a mutable one, and to find all kinds. Smaller: the sample is
# less telling; larger: each scan of code that uses large containers takes longer.
_MAX_SAMPLED: Final = 8
_MAX_COMPARED: Final = 64
_C_DESCRIPTORS: Final = (types.GetSetDescriptorType, types.MemberDescriptorType)


def instance_dict(obj: object) -> dict[str, Any] | None:
    """The `__dict__` of an object, unless its class gives that name another meaning."""
    if type(class_lookup(type(obj), "__dict__")) not in _C_DESCRIPTORS:
        return None
    space = object.__getattribute__(obj, "__dict__")
    return space if is_a(space, dict) else None


def _get_attr(obj: Any, name: str) -> Any:
    if is_a(obj, types.ModuleType):
        return object.__getattribute__(obj, "__dict__").get(name, UNKNOWN_OBJECT)
    if is_a(obj, type):
        found = class_lookup(obj, name)
        return UNKNOWN_OBJECT if found is NO_ATTRIBUTE else found
    raw = class_lookup(type(obj), name)
    if type(raw) is types.MemberDescriptorType:
        return raw.__get__(obj, type(obj))
    if is_a(raw, property) or type(raw) is types.GetSetDescriptorType:
        return UNKNOWN_OBJECT
    space = instance_dict(obj)
    if space is not None and name in space:
        return space[name]
    return UNKNOWN_OBJECT if raw is NO_ATTRIBUTE else raw


def _get_item(obj: Any, key: Any) -> Any:
    if is_a(obj, dict):
        known = type(key) in _FROZEN_BUILTINS  # hashing and comparing others may run code
        return dict.get(obj, key, UNKNOWN_OBJECT) if known else UNKNOWN_OBJECT
    if is_a(obj, list):
        return list.__getitem__(obj, key)
    if is_a(obj, tuple):
        return tuple.__getitem__(obj, key)
    return _get_elem(obj, None)


def _content(obj: Any) -> Iterator[Any]:
    """The elements of a container of a builtin type, iterated without code of the program."""
    if is_a(obj, list):
        return list.__iter__(obj)
    if is_a(obj, tuple):
        return tuple.__iter__(obj)
    if is_a(obj, dict):
        return iter(dict.values(obj))
    return iter(obj if type(obj) in (deque, set, frozenset) else ())


def _get_elem(obj: Any, _: Any) -> Any:
    """One element as a sample of the others: a mutable one, if there is one."""
    kind = type(obj)
    if kind in (bytearray, memoryview) or (kind.__module__, kind.__name__) == ("array", "array"):
        return 0
    if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
        # A row of a matrix is a view of it; an element of a vector is a number.
        if obj.dtype.hasobject:
            return UNKNOWN_OBJECT
        return obj if obj.ndim > 1 else 0
    best = UNKNOWN_OBJECT
    for element in islice(_content(obj), _MAX_SAMPLED):
        best = element
        if not is_frozen(element):
            break
    return best


def _get_kin(obj: Any, index: int) -> Any:
    """The element number `index` among those that differ from the sample in type or in code."""
    if not is_a(obj, (list, tuple, dict)):
        return UNKNOWN_OBJECT
    seen = [mark_of(_get_elem(obj, None))]
    for element in islice(_content(obj), _MAX_COMPARED):
        mark = mark_of(element)
        if is_frozen(element) or any(mark is known for known in seen):
            continue
        if len(seen) > index:
            return element
        seen.append(mark)
    return UNKNOWN_OBJECT


def _get_name(space: Any, name: str) -> Any:
    if name in space:
        return space[name]
    found = space.get("__builtins__", builtins)
    return found.get(name, UNKNOWN_OBJECT) if is_a(found, dict) else _get_attr(found, name)


def _get_free(func: Any, name: str) -> Any:
    return func.__closure__[func.__code__.co_freevars.index(name)].cell_contents


def _unwrap_descriptor(obj: Any, _: Any) -> Any:
    if is_a(obj, (staticmethod, classmethod)):
        return obj.__func__
    if is_a(obj, property):
        return obj.fget
    return obj.func if is_a(obj, functools.cached_property) else UNKNOWN_OBJECT


_RESOLVERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "attr": _get_attr,
    "item": _get_item,
    "elem": _get_elem,
    "kin": _get_kin,
    "name": _get_name,
    "free": _get_free,
    "globals": lambda func, _: func.__globals__,
    "default": lambda func, index: func.__defaults__[index],
    "kwdefault": lambda func, name: func.__kwdefaults__[name],
    "self": lambda method, _: method.__self__,
    "func": lambda method, _: method.__func__,
    "partial": lambda part, _: part.func,
    "bound": lambda part, index: part.args[index],
    "bound name": lambda part, name: part.keywords[name],
    "wrapped": lambda obj, _: (instance_dict(obj) or {}).get("__wrapped__", UNKNOWN_OBJECT),
    "unwrap": _unwrap_descriptor,
    "type": lambda obj, _: type(obj),
    "import": lambda _, name: sys.modules.get(name, UNKNOWN_OBJECT),
    "class": lambda _, cls: cls,
    "deep": lambda _, __: UNKNOWN_OBJECT,
}


def resolve(obj: Any, kind: str, key: Any) -> Any:
    """One step of a path: the object it leads to now, or `UNKNOWN_OBJECT`. Never raises."""
    if obj is UNKNOWN_OBJECT:
        return UNKNOWN_OBJECT
    try:
        return _RESOLVERS[kind](obj, key)
    except Exception:  # noqa: BLE001 - an empty cell, a shrunk list: nothing to be known
        return UNKNOWN_OBJECT


_CODE_LIKE: Final = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    type,
    types.ModuleType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    staticmethod,
    classmethod,
)
# The classes of a function under @parallel, and of such a method looked up on an object.
_DECORATED: Final = ("ParallelFunction", "_Bound")
_CODE_LIKE_NAMES: Final = (
    "_lru_cache_wrapper",
    "ufunc",
    "_ArrayFunctionDispatcher",
    "lazy_import",  # a module that is to be, from Python 3.15 on
    *_DECORATED,
)


def is_code_like(obj: object) -> bool:
    """Whether a value is a function, class or module rather than data."""
    kind = type(obj)
    return issubclass(kind, _CODE_LIKE) or kind.__name__ in _CODE_LIKE_NAMES


def is_lru_cache(obj: object) -> bool:
    """Whether the object is a function under `functools.lru_cache`."""
    return type(obj).__name__ == "_lru_cache_wrapper"


def is_decorated(obj: object) -> bool:
    """Whether the object is a function or method under `@parallel`: a partial without arguments."""
    return type(obj).__name__ in _DECORATED and is_a(obj, functools.partial)


def is_seeded(obj: object) -> bool:
    """Whether the object is a callable with `seed=`: a partial that takes a number more."""
    return type(obj).__name__ == "Seeded" and is_a(obj, functools.partial)


def mark_of(obj: Any) -> Any:
    """What an analysis relies on: the code of a function, a class itself, else the type."""
    kind = type(obj)
    if kind is types.FunctionType:
        return obj.__code__
    if kind is types.MethodType:
        return obj.__func__
    if is_a(obj, (type, types.ModuleType)) or kind is types.BuiltinFunctionType:
        return obj
    return UNKNOWN_OBJECT if obj is UNKNOWN_OBJECT else kind


def slot_value(member: Any, obj: Any) -> Any:
    """What is in a slot; None if nothing is."""
    try:
        return member.__get__(obj, type(obj))
    except AttributeError:
        return None


def is_cache_name(name: str) -> bool:
    """Whether libraries keep what they have computed under such a name."""
    return "cache" in name or "memo" in name
