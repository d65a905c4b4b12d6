"""Abstract values: where the values inside an analysed call come from.

A `Value` says which objects a variable may hold (`origins`: objects that existed before the call,
named by a path from the callable, or objects made in the call) and which outer objects its content
was computed from (`deps`).

Guarantees: joining makes a value larger, up to a bound, so a fixed-point analysis terminates.
"""

from __future__ import annotations

import functools
import operator

from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple
from parallax._guard.lookup import (
    NO_ATTRIBUTE,
    UNKNOWN_OBJECT,
    Sentinel,
    is_a,
    is_code_like,
    is_frozen,
    is_own_function,
    mark_of,
    resolve,
)

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable
    from typing import Any, Final

EMPTY: Final[frozenset[Any]] = frozenset()
ANY_ELEMENT: Final = ("elem", None)
# The dependency of a value that may differ next time though no observed state has changed.
NONDETERMINISTIC: Final[Any] = Sentinel("NONDETERMINISTIC")
# The dependency of a value that may be the same for different items: `n % 7`, `len(word)`.
FOLDED: Final[Any] = Sentinel("FOLDED")
# Longest path to an object: a linked list walked in a loop has no end. Smaller: changes of deep
# state are reported for the object that holds it; larger: more passes over loops that walk it.
_MAX_PATH_DEPTH: Final = 7
# Objects that one value may be, as in a table of handlers. Smaller: a finding may name another
# target than a reader would; larger: the sets grow quadratically where such tables meet.
_MAX_ORIGINS: Final = 24
_MAX_DEPS: Final = 32
# Kinds of elements told apart in one container. Smaller: some functions in a table of handlers are
# not followed; larger: each look at such a table takes longer.
_MAX_ELEMENT_KINDS: Final = 16


class Outer:
    """An object that existed before the call, named by its path from the callable.

    `obj` is the object at the path during this scan; the reference is dropped after it.
    """

    __slots__ = (
        "children", "cls", "depth", "index", "is_item", "key", "kind", "label", "loaded", "mark",
        "obj", "parent", "peeked", "scanned", "trail",
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
        self.cls: Any = None  # the class of an object that the callable has yet to create
        self.label = label
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.is_item: bool = kind == "arg" or (parent is not None and parent.is_item)
        self.children: dict[tuple[str, Any], Outer] = {}
        # What the analysed code reads: the slot itself, one element, the whole content.
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
            if data and self.depth >= _MAX_PATH_DEPTH:
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
        if kind in ("name", "free", "kwdefault", "bound name", "import"):
            return str(key)
        if kind == "attr":
            return f"{self.label}.{key}" if self.label else str(key)
        if kind == "self":
            # Of a method of the program what its code says; else `random` in `random.gauss`.
            own = self.kind == "fn" or is_own_function(getattr(self.obj, "__func__", None))
            return "self" if own else self.label.rpartition(".")[0] or self.label
        if kind in ("default", "bound"):
            return f"argument {key + 1}"
        if kind == "type":
            return f"type({self.label})"
        return self.label

    def value(self) -> Value:
        """The value of this object; an immutable one is a mere dependency."""
        return Value(deps=frozenset((self,))) if is_frozen(self.obj) else exactly(self)

    def element(self) -> Value:
        """What an unknown element of this container may be: one of each kind in it."""
        result = self.child("elem").value()
        for number in range(_MAX_ELEMENT_KINDS):
            if resolve(self.obj, "kin", number) is UNKNOWN_OBJECT:
                break
            result |= self.child("kin", number).value()
        return result

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
    """An object made during the call, by one instruction."""

    __slots__ = ("cls", "fields", "read", "tag")

    def __init__(self, cls: Any = None, tag: Any = "") -> None:
        self.cls = cls  # the class, where the program's own methods may matter
        self.tag = tag  # tells apart the objects that one instruction makes
        self.fields: dict[tuple[str, Any], Value] = {}
        self.read = False

    def put(self, step: tuple[str, Any], value: Value) -> bool:
        """Store a value in a field; whether values read from this object are now out of date."""
        old = self.fields.get(step)
        new = value if old is None else old | value
        if new is old:
            return False
        self.fields[step] = new
        return self.read and bool(value.origins)


class Cell:
    """A variable shared by a function and the functions inside it."""

    __slots__ = ("outer", "read", "value")

    def __init__(self, outer: Outer | None = None) -> None:
        self.outer = outer  # None for a variable of the call itself
        self.value = PLAIN_VALUE
        self.read = False

    def put(self, value: Value) -> bool:
        """Assign the variable; whether values read from it are now out of date."""
        new = value if self.value is PLAIN_VALUE else self.value | value
        if new is self.value:
            return False
        self.value = new
        return self.read


class Func:
    """A function that can be followed: made during the call, or an outer one made ready for it."""

    __slots__ = ("cells", "code", "defaults", "kwdefaults", "label", "ns", "owner", "used")

    def __init__(
        self, code: types.CodeType, ns: Outer, cells: dict[str, Cell], owner: object = None,
        label: str | None = None,
    ) -> None:  # fmt: skip
        self.code = code
        self.ns = ns
        self.cells = cells
        self.owner = self if owner is None else owner  # calls of one owner share their analysis
        self.label = label or str(getattr(code, "co_qualname", code.co_name))
        self.defaults: tuple[Value, ...] = ()
        self.kwdefaults: dict[str, Value] = {}
        self.used = False


class Method(NamedTuple):
    """A method of `receiver`; `func` is None where the method is not a function of the program."""

    receiver: Outer | Fresh
    name: str
    func: Outer | None


class Super(NamedTuple):
    """The result of `super()`: methods are looked up in the classes after `after`."""

    after: Any
    receiver: Value


Origin = Outer | Fresh | Func | Method | Super


class Value:
    """What is known of one abstract value."""

    __slots__ = ("const", "deps", "origins")

    def __init__(
        self, origins: frozenset[Origin] = EMPTY, deps: frozenset[Any] = EMPTY,
        const: Any = NO_ATTRIBUTE,
    ) -> None:  # fmt: skip
        self.origins = origins
        self.deps = deps  # of Outer, (Outer, "compared") and NONDETERMINISTIC
        self.const = const

    def __or__(self, other: Value) -> Value:
        """A value that may be either of two: this one itself where the other adds nothing."""
        if self is other:
            return self
        origins = self.origins
        if not other.origins <= origins:
            origins = _widened(origins, other.origins)
        deps = self.deps
        if not other.deps <= deps and len(deps) < _MAX_DEPS:
            deps |= other.deps
        const = self.const
        if const is not NO_ATTRIBUTE and not (
            type(const) is type(other.const) and const == other.const
        ):
            const = NO_ATTRIBUTE
        if origins is self.origins and deps is self.deps and const is self.const:
            return self
        return Value(origins, deps, const)

    def element(self) -> Value:
        """What an element of this value may be."""
        result = PLAIN_VALUE
        for origin in self.origins:
            if type(origin) is Outer and not is_code_like(origin.obj):
                origin.peeked = True
                result |= origin.element()
            elif type(origin) is Fresh:
                origin.read = True
                content = (field for (kind, _), field in origin.fields.items() if kind != "attr")
                result = join_all(content, result)
        return result.with_deps(self.deps)

    def step(self) -> tuple[str, Any]:
        """The field of a container that this value selects as a key."""
        if type(self.const) in (str, int, bool, bytes, type(None)):
            return ("item", self.const)
        return ANY_ELEMENT

    def with_deps(self, deps: frozenset[Any]) -> Value:
        """The same value, computed from these objects as well."""
        return Value(self.origins, self.deps | deps, self.const) if deps else self


class Arguments:
    """The arguments of one abstract call."""

    __slots__ = ("named", "positional", "rest")

    def __init__(
        self,
        positional: Iterable[Value] = (),
        named: dict[str, Value] | None = None,
        rest: Value | None = None,
    ) -> None:
        self.positional = list(positional)
        self.named = named or {}
        self.rest = rest  # what each of an unknown number of further arguments may be

    def after(self, *first: Value) -> Arguments:
        """The arguments of a function that takes others first, as a method takes its receiver."""
        return Arguments((*first, *self.positional), self.named, self.rest)

    def values(self) -> list[Value]:
        """The positional and the named arguments."""
        return [*self.positional, *self.named.values()]


PLAIN_VALUE: Final = Value()
# Marks `__build_class__`, which is pushed by an instruction of its own.
CLASS_VALUE: Final = Value(const=Sentinel("BUILD_CLASS"))


def exactly(origin: Origin) -> Value:
    """The value that is this object and no other."""
    return Value(frozenset((origin,)))


def either(values: Iterable[Value | None]) -> Value | None:
    """A value that may be any of these; None if there is none."""
    found = [value for value in values if value is not None]
    return functools.reduce(operator.or_, found) if found else None


def join_all(values: Iterable[Value], first: Value = PLAIN_VALUE) -> Value:
    """A value that may be the first one or any of the others."""
    return functools.reduce(operator.or_, values, first)


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


def dependencies(*values: Value) -> frozenset[Any]:
    """The outer objects that these values are, or were computed from."""
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
        return frozenset((*list(found)[:_MAX_DEPS], *list(items)[:1], NONDETERMINISTIC))
    return frozenset(found) if found else EMPTY


def derived(*values: Value) -> Value:
    """A plain value that was computed from others."""
    deps = dependencies(*values)
    return Value(deps=deps) if deps else PLAIN_VALUE
