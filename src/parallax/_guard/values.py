"""Where the values inside a call come from.

An abstract value says which objects it may be (`origins`: outer ones, named by a path from the
callable, or ones made in the call) and which outer objects its content was computed from (`deps`).
Values only ever grow when joined, up to a bound, so that an analysis over them comes to an end.
"""

from __future__ import annotations

import types
from typing import Any, Final, NamedTuple

from parallax._guard.lookup import (
    MISSING,
    UNKNOWN,
    Sentinel,
    is_a,
    is_code_like,
    is_frozen,
    mark_of,
    resolve,
)

__all__ = [
    "CHANCE", "CLASS_VALUE", "ELEM", "EMPTY", "PLAIN", "Cell", "Fresh", "Func", "Method", "Origin",
    "Outer", "Super", "Value", "dependencies", "elements", "inner", "join", "step_for", "value_of",
]  # fmt: skip

# A linked list walked in a loop would give ever longer paths. Smaller: deep state is blamed on its
# holder; larger: more passes over loops that walk a structure.
_MAX_DEPTH: Final = 7
# Values that may be many things, as in a table of handlers. Smaller: a finding may name another
# target than a reader would; larger: the sets grow quadratically where such tables meet.
_MAX_ORIGINS: Final = 24
_MAX_DEPS: Final = 32
# Kinds of elements told apart in one container, as in a table of handlers.
_MAX_KINDS: Final = 16


class Outer:
    """An object that was there before the call, named by its path from the callable.

    `obj` is what the path leads to during this scan, and is dropped after it.
    """

    __slots__ = (
        "children",
        "cls",
        "depth",
        "index",
        "is_item",
        "key",
        "kind",
        "label",
        "loaded",
        "mark",
        "obj",
        "parent",
        "peeked",
        "scanned",
        "trail",
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
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.is_item: bool = kind == "arg" or (parent is not None and parent.is_item)
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

    __slots__ = ("cls", "fields", "read", "tag")

    def __init__(self, cls: Any = None, tag: Any = "") -> None:
        self.cls = cls  # its class where the program's own methods may matter
        self.tag = tag  # which of the things made by one instruction it is
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
CHANCE: Final[Any] = Sentinel("CHANCE")
ELEM: Final = ("elem", None)
# Marks `__build_class__`, which is pushed by its own instruction.
CLASS_VALUE: Final = Value(EMPTY, EMPTY, Sentinel("BUILD_CLASS"))


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


def elements(node: Outer) -> Value:
    """What an unknown element of an outer container may be: one of each kind that it holds."""
    result = value_of(node.child("elem"))
    if not is_a(node.obj, (list, dict, tuple)):
        return result
    for number in range(_MAX_KINDS):
        if resolve(node.obj, "kin", number) is UNKNOWN:
            break
        result = join(result, value_of(node.child("kin", number)))
    return result


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
            result = join(result, elements(origin))
        elif type(origin) is Fresh:
            origin.read = True
            for (kind, _), field in origin.fields.items():
                if kind != "attr":
                    result = join(result, field)
    if deps:
        result = Value(result.origins, result.deps | deps)
    return result


def step_for(key: Value) -> tuple[str, Any]:
    """The field of a container that a key selects."""
    if key.const is MISSING or type(key.const) not in (str, int, bool, bytes, type(None)):
        return ELEM
    return ("item", key.const)
