"""Where the values inside a call come from, and what can be said of them without running anything.

An abstract value says which objects it may be (`origins`: outer ones, named by a path from the
callable, or ones made in the call) and which outer objects its content was computed from (`deps`).

Guarantees: looking an object up here runs no code of the program: no property, `__getattr__`,
`__len__`, `__eq__` or `__class__` of its own classes. What cannot be found out is `UNKNOWN`.
Assumes: a class is not changed between two scans; types of values and code of functions may be.
"""

from __future__ import annotations

import builtins
import functools
import sys
import sysconfig
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, Final, NamedTuple

__all__ = [
    "CHANCE", "CLASS_VALUE", "ELEM", "EMPTY", "MISSING", "PLAIN", "UNKNOWN", "Cell", "Fresh",
    "Func", "Method", "Origin", "Outer", "Super", "Value", "class_lookup", "dependencies", "inner",
    "is_code_like",
    "is_a", "is_own_code", "join", "mark_of", "mro_of", "resolve", "top_module", "value_of",
]  # fmt: skip


class _Sentinel:
    """A named constant that equals nothing else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


UNKNOWN: Final[Any] = _Sentinel("UNKNOWN")
MISSING: Final[Any] = _Sentinel("MISSING")

# A linked list walked in a loop would give ever longer paths. Smaller: deep state is blamed on its
# holder; larger: more passes over loops that walk a structure.
_MAX_DEPTH: Final = 7

# Values that may be many things, as in a table of handlers. Smaller: a finding may name another
# target than a reader would; larger: the sets grow quadratically where such tables meet.
_MAX_ORIGINS: Final = 24
_MAX_DEPS: Final = 32

_FROZEN_BUILTINS: Final = frozenset(
    {
        int, float, complex, bool, str, bytes, type(None), range, slice, type(...),
        type(NotImplemented),
    }
)  # fmt: skip
# By name, because importing their modules costs more than the whole package.
_FROZEN_NAMES: Final = frozenset(
    {
        ("re", "Pattern"), ("re", "Match"), ("datetime", "datetime"), ("datetime", "date"),
        ("datetime", "time"), ("datetime", "timedelta"), ("datetime", "timezone"),
        ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"),
        ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib", "PurePosixPath"),
        ("pathlib", "PureWindowsPath"), ("pathlib._local", "PosixPath"),
        ("pathlib._local", "WindowsPath"), ("zoneinfo", "ZoneInfo"), ("ipaddress", "IPv4Address"),
        ("ipaddress", "IPv6Address"), ("_struct", "Struct"), ("operator", "itemgetter"),
        ("operator", "attrgetter"),
    }
)  # fmt: skip


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
    return type.__getattribute__(cls, "__mro__")


def class_lookup(cls: type, name: str) -> Any:
    """The raw entry of a class or of one of its bases, or `MISSING`."""
    for base in mro_of(cls):
        space = type.__getattribute__(base, "__dict__")
        if name in space:
            return space[name]
    return MISSING


def top_module(obj: object) -> str:
    """The top-level package in which a class or function was defined, without an underscore."""
    try:
        if is_a(obj, type):
            module = type.__getattribute__(obj, "__module__")  # type: ignore[arg-type]
        else:
            module = object.__getattribute__(obj, "__module__")
    except AttributeError:
        return ""
    return module.partition(".")[0].lstrip("_") if type(module) is str else ""


# ---------------------------------------------------------------- whose code is it

def _installed_roots() -> tuple[str, ...]:
    found = set()
    for key in ("stdlib", "platstdlib", "purelib", "platlib"):
        path = sysconfig.get_path(key)
        if path:
            found.add(path.replace("\\", "/").lower().rstrip("/") + "/")
    # This package itself, which is outside site-packages while it is being developed.
    found.add(__file__.replace("\\", "/").lower().rpartition("/")[0] + "/")
    return tuple(found)


_INSTALLED: Final = _installed_roots()
_owned: dict[str, bool] = {}


def is_own_code(filename: str) -> bool:
    """Whether code of this file belongs to the program rather than to an installed package."""
    known = _owned.get(filename)
    if known is None:
        path = filename.replace("\\", "/").lower()
        known = not (
            path.startswith(("<frozen", "<__array_function__", *_INSTALLED))
            or "/site-packages/" in path
            or "/dist-packages/" in path
        )
        if len(_owned) > 4096:
            _owned.clear()
        _owned[filename] = known
    return known


def is_own_class(cls: type) -> bool:
    """Whether a class belongs to the program."""
    name = type.__getattribute__(cls, "__module__")
    if type(name) is not str or name == "builtins":
        return False
    module = sys.modules.get(name)
    if module is not None and is_a(module, types.ModuleType):
        file = object.__getattribute__(module, "__dict__").get("__file__")
        if type(file) is str:
            return is_own_code(file)
    return name.partition(".")[0] not in sys.stdlib_module_names


# ---------------------------------------------------------------- static look-ups along a path

_C_DESCRIPTORS: Final = (types.GetSetDescriptorType, types.MemberDescriptorType)


def instance_dict(obj: object) -> dict[str, Any] | None:
    """The `__dict__` of an object, unless its class gives that name another meaning."""
    if type(class_lookup(type(obj), "__dict__")) not in _C_DESCRIPTORS:
        return None
    space = object.__getattribute__(obj, "__dict__")
    return space if is_a(space, dict) else None


def _get_attr(obj: Any, name: str) -> Any:
    if is_a(obj, types.ModuleType):
        return object.__getattribute__(obj, "__dict__").get(name, UNKNOWN)
    if is_a(obj, type):
        found = class_lookup(obj, name)
        return UNKNOWN if found is MISSING else found
    raw = class_lookup(type(obj), name)
    if type(raw) is types.MemberDescriptorType:
        return raw.__get__(obj, type(obj))
    if is_a(raw, property) or type(raw) is types.GetSetDescriptorType:
        return UNKNOWN
    space = instance_dict(obj)
    if space is not None and name in space:
        return space[name]
    return UNKNOWN if raw is MISSING else raw


def _get_item(obj: Any, key: Any) -> Any:
    if is_a(obj, dict):
        return dict.get(obj, key, UNKNOWN) if type(key) in _FROZEN_BUILTINS else UNKNOWN
    if is_a(obj, list):
        return list.__getitem__(obj, key)
    if is_a(obj, tuple):
        return tuple.__getitem__(obj, key)
    return _get_elem(obj, None)


def _get_elem(obj: Any, _: Any) -> Any:
    """One element as a sample of the others, which are taken to be of the same type."""
    if is_a(obj, list):
        return list.__getitem__(obj, 0)
    if is_a(obj, tuple):
        return tuple.__getitem__(obj, 0)
    if is_a(obj, dict):
        return next(iter(dict.values(obj)), UNKNOWN)
    kind = type(obj)
    if kind is deque:
        return obj[0]
    if kind in (set, frozenset):
        return next(iter(obj), UNKNOWN)
    if kind in (bytearray, memoryview):
        return 0
    if kind.__name__ == "array" and kind.__module__ == "array":
        return 0
    if kind.__name__ == "ndarray" and kind.__module__ == "numpy":
        # A row of a matrix is a view of it; an element of a vector is a number.
        if obj.dtype.hasobject:
            return UNKNOWN
        return obj if obj.ndim > 1 else 0
    return UNKNOWN


def _get_name(space: Any, name: str) -> Any:
    if name in space:
        return space[name]
    found = space.get("__builtins__", builtins)
    if is_a(found, dict):
        return found.get(name, UNKNOWN)
    return object.__getattribute__(found, "__dict__").get(name, UNKNOWN)


def _get_free(func: Any, name: str) -> Any:
    return func.__closure__[func.__code__.co_freevars.index(name)].cell_contents


def _get_wrapped(obj: Any, _: Any) -> Any:
    space = instance_dict(obj)
    return UNKNOWN if space is None else space.get("__wrapped__", UNKNOWN)


def _unwrap_descriptor(obj: Any, _: Any) -> Any:
    if is_a(obj, (staticmethod, classmethod)):
        return obj.__func__
    if is_a(obj, property):
        return obj.fget
    return obj.func if is_a(obj, functools.cached_property) else UNKNOWN


_RESOLVERS: Final = {
    "attr": _get_attr,
    "item": _get_item,
    "elem": _get_elem,
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
    "wrapped": _get_wrapped,
    "unwrap": _unwrap_descriptor,
    "type": lambda obj, _: type(obj),
    "import": lambda _, name: sys.modules.get(name, UNKNOWN),
    "class": lambda _, cls: cls,
    "deep": lambda _, __: UNKNOWN,
}


def resolve(obj: Any, kind: str, key: Any) -> Any:
    """One step of a path: the object it leads to now, or `UNKNOWN`. Never raises."""
    if obj is UNKNOWN:
        return UNKNOWN
    try:
        return _RESOLVERS[kind](obj, key)
    except Exception:  # An empty cell, a list that shrank, a missing index: nothing to be known.
        return UNKNOWN


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
_CODE_LIKE_NAMES: Final = ("_lru_cache_wrapper", "ufunc", "_ArrayFunctionDispatcher")


def is_code_like(obj: object) -> bool:
    """Whether a value is a function, class or module rather than data."""
    kind = type(obj)
    return issubclass(kind, _CODE_LIKE) or kind.__name__ in _CODE_LIKE_NAMES


def mark_of(obj: Any) -> Any:
    """What an analysis may depend on: the code of a function, a class itself, else the type."""
    kind = type(obj)
    if kind is types.FunctionType:
        return obj.__code__
    if kind is types.MethodType:
        return obj.__func__
    if is_a(obj, (type, types.ModuleType)) or kind is types.BuiltinFunctionType:
        return obj
    return UNKNOWN if obj is UNKNOWN else kind


# ---------------------------------------------------------------- origins and values

class Outer:
    """An object that was there before the call, named by its path from the callable.

    `obj` is what the path leads to during this scan, and is dropped after it.
    """

    __slots__ = (
        "cls", "children", "depth", "index", "is_item", "key", "kind", "label", "loaded", "mark", "obj",
        "parent", "peeked", "scanned", "trail",
    )  # fmt: skip

    def __init__(
        self, trail: list[Outer], parent: Outer | None, kind: str, key: Any, obj: Any, label: str
    ) -> None:
        self.trail = trail
        self.parent = parent
        self.kind = kind
        self.key = key
        self.obj = obj
        self.mark = mark_of(obj)
        self.cls: Any = None  # the class it will have, where the callable is to create it
        self.label = label
        self.depth = 0 if parent is None else parent.depth + 1
        self.is_item = kind == "arg" or (parent is not None and parent.is_item)
        self.children: dict[tuple[str, Any], Outer] = {}
        # How the analysed code reads it: the slot itself, some element, the whole content.
        self.loaded = self.peeked = self.scanned = False
        self.index = len(trail)
        trail.append(self)

    def child(self, kind: str, key: Any = None) -> Outer:
        """The outer object one step further on."""
        step = (kind, key)
        node = self.children.get(step)
        if node is None:
            if self.kind == "deep":
                return self
            data = kind in ("attr", "item", "elem") and not is_a(self.obj, type)
            if data and self.depth >= _MAX_DEPTH:
                step = (kind, key) = ("deep", None)
                node = self.children.get(step)
                if node is not None:
                    return node
            obj = resolve(self.obj, kind, key)
            node = Outer(self.trail, self, kind, key, obj, self._label_for(kind, key))
            self.children[step] = node
        return node

    def _label_for(self, kind: str, key: Any) -> str:
        if self.is_item:
            return self.label
        if kind in ("name", "free", "kwdefault", "bound name"):
            return str(key)
        if kind == "attr":
            return f"{self.label}.{key}" if self.label else str(key)
        if kind == "self":
            return "self"
        if kind == "import":
            return str(key)
        if kind in ("default", "bound"):
            return f"argument {key + 1}"
        if kind == "type":
            return f"type({self.label})"
        return self.label

    def path(self) -> tuple[tuple[str, Any], ...]:
        """The steps from the root, which is the callable (`fn`) or one argument (`arg`)."""
        steps: list[tuple[str, Any]] = []
        node: Outer | None = self
        while node is not None:
            steps.append((node.kind, node.key))
            node = node.parent
        return tuple(reversed(steps))

    def __repr__(self) -> str:
        return f"<outer {self.label or self.kind}>"


class Fresh:
    """An object made during the call, by one place in the code."""

    __slots__ = ("cls", "fields", "read")

    def __init__(self, cls: Any = None) -> None:
        self.cls = cls  # its class where the program's own methods may matter
        self.fields: dict[tuple[str, Any], Value] = {}
        self.read = False

    def put(self, step: tuple[str, Any], value: Value) -> bool:
        """Note a value stored in it. True if something already read from it is out of date."""
        old = self.fields.get(step)
        new = value if old is None else join(old, value)
        if new is old:
            return False
        self.fields[step] = new
        return self.read and bool(value.origins)


class Cell:
    """A variable shared by a function and the functions inside it."""

    __slots__ = ("outer", "read", "value")

    def __init__(self, outer: Outer | None = None) -> None:
        self.outer = outer  # None for a variable of the call itself
        self.value = PLAIN
        self.read = False

    def put(self, value: Value) -> bool:
        """Note an assignment. True if something already read from it is out of date."""
        new = join(self.value, value) if self.value is not PLAIN else value
        if new is self.value:
            return False
        self.value = new
        return self.read


class Func:
    """A function made during the call."""

    __slots__ = ("cells", "code", "defaults", "kwdefaults", "ns", "used")

    def __init__(self, code: types.CodeType, ns: Outer, cells: dict[str, Cell]) -> None:
        self.code = code
        self.ns = ns
        self.cells = cells
        self.defaults: tuple[Value, ...] = ()
        self.kwdefaults: dict[str, Value] = {}
        self.used = False


class Method(NamedTuple):
    """An attribute that is called on `receiver`; `func` is None where it is not the program's."""

    receiver: Outer | Fresh
    name: str
    func: Outer | None


class Super(NamedTuple):
    """`super()`, inside a method."""

    after: Any
    receiver: Value


Origin = Outer | Fresh | Func | Method | Super


class Value:
    """What is known of one abstract value."""

    __slots__ = ("const", "deps", "origins")

    def __init__(
        self,
        origins: frozenset[Origin],
        deps: frozenset[Any],
        const: Any = MISSING,
    ) -> None:
        self.origins = origins
        self.deps = deps  # Outer, or (Outer, "compared"), or CHANCE
        self.const = const


EMPTY: Final[frozenset[Any]] = frozenset()
PLAIN: Final = Value(EMPTY, EMPTY)
# The dependency of a value that may differ next time though nothing seen has changed.
CHANCE: Final[Any] = _Sentinel("CHANCE")
ELEM: Final = ("elem", None)
# Marks `__build_class__`, which is pushed by its own instruction.
CLASS_VALUE: Final = Value(EMPTY, EMPTY, _Sentinel("BUILD_CLASS"))


def join(a: Value, b: Value) -> Value:
    """A value that may be either. The first one itself where the other adds nothing."""
    if a is b:
        return a
    origins = a.origins
    if not b.origins <= origins:
        origins = _widened(origins, b.origins)
    deps = a.deps
    if not b.deps <= deps and len(deps) < _MAX_DEPS:
        deps |= b.deps
    const = a.const
    if const is not MISSING and not (type(const) is type(b.const) and const == b.const):
        const = MISSING
    if origins is a.origins and deps is a.deps and const is a.const:
        return a
    return Value(origins, deps, const)


def _widened(origins: frozenset[Origin], more: frozenset[Origin]) -> frozenset[Origin]:
    if len(origins) < _MAX_ORIGINS:
        return origins | more
    # A change of such a value is evidence as long as one of its origins is outer.
    if any(type(origin) is Outer for origin in origins):
        return origins
    for origin in more:
        if type(origin) is Outer:
            return origins | {origin}
    return origins


def value_of(node: Outer) -> Value:
    """The value of an outer object: of no interest as an object where it cannot be changed."""
    if is_frozen(node.obj):
        return Value(EMPTY, frozenset((node,)))
    return Value(frozenset((node,)), EMPTY)


def dependencies(*values: Value) -> frozenset[Any]:
    """All that these values are, or were computed from, outside the call."""
    found: set[Any] = set()
    for value in values:
        if value.deps:
            found |= value.deps
        for origin in value.origins:
            if type(origin) is Outer:
                found.add(origin)
            elif type(origin) is Method and type(origin.receiver) is Outer:
                found.add(origin.receiver)
    if len(found) > _MAX_DEPS:
        # Too much to tell apart: it depends on something that may change at any time.
        items = {dep for dep in found if type(dep) is Outer and dep.is_item}
        return frozenset((*list(found)[:_MAX_DEPS], *list(items)[:1], CHANCE))
    return frozenset(found) if found else EMPTY


def inner(value: Value) -> Value:
    """What an element of this value may be."""
    result = PLAIN
    deps = value.deps
    for origin in value.origins:
        if type(origin) is Outer:
            if is_code_like(origin.obj):
                continue
            origin.peeked = True
            result = join(result, value_of(origin.child("elem")))
        elif type(origin) is Fresh:
            origin.read = True
            for (kind, _), field in origin.fields.items():
                if kind != "attr":
                    result = join(result, field)
    if deps:
        result = Value(result.origins, result.deps | deps)
    return result


_KNOWN_DICTS: Final = (dict, defaultdict, OrderedDict, Counter)


def is_known_dict(obj: object) -> bool:
    """Whether iterating over it gives its keys, which cannot be changed."""
    return type(obj) in _KNOWN_DICTS
