"""Calls of functions and methods of installed packages, judged by the tables of `mutators`.

Installed code is not followed: what it changes is known by its name and the type of its receiver.
"""

from __future__ import annotations

import types
from collections import Counter

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.attributes import SPREADING_METHODS
from parallax._guard.builtin_calls import BuiltinCalls
from parallax._guard.lookup import (
    NO_ATTRIBUTE,
    UNKNOWN_OBJECT,
    class_lookup,
    is_a,
    is_decorated,
    is_frozen,
    mro_of,
    top_module,
)
from parallax._guard.mutators import (
    ALIASES,
    ARGUMENT_CHANGES,
    CONTAINER_CALLS,
    DESCRIPTOR_CALLS,
    GETTERS,
    KEEPING_CALLS,
    MUTATING_METHODS,
    PACKAGE_METHODS,
    PROCESS_CALLS,
    PURE_CALLS,
    SWAPPING_CALLS,
    TYPED_METHODS,
    Mutation,
)
from parallax._guard.values import (
    ANY_ELEMENT,
    FOLDED,
    NONDETERMINISTIC,
    PLAIN_VALUE,
    Fresh,
    Outer,
    Value,
    dependencies,
    exactly,
    join_all,
)

if TYPE_CHECKING:
    from typing import Any, Final

    from parallax._guard.frame import AbstractFrame
    from parallax._guard.values import Arguments, Origin

# Functions that do not look at the content of their arguments.
_NO_LOOK: Final = frozenset(
    {"hasattr", "getattr", "vars", "isinstance", "id", "type", "callable", "setattr", "iter"}
)
_VIEWS: Final = frozenset({"values", "items", "keys", "copy"})
_OUTPUTS: Final = {"out": Mutation("take", "overwrites"), "file": MUTATING_METHODS["write"]}


class InstalledCalls(BuiltinCalls):
    """What installed code does to what it is given."""

    def method(
        self, frame: AbstractFrame, receiver: Outer | Fresh, name: str, args: Arguments
    ) -> Value:
        """Call a method that is not a function of the program; what the call returns."""
        one = exactly(receiver)
        if name in ("__enter__", "__aenter__"):
            return self.enter(frame, one)
        if isinstance(receiver, Fresh):
            return self._fresh_method(frame, receiver, name, args)
        if name == "__init_subclass__" or (name == "__init__" and receiver.is_item):
            return PLAIN_VALUE
        self._note_mutation(frame, receiver, name, args)
        self._note_outputs(frame, args)
        spread = [one] if name in SPREADING_METHODS and is_decorated(receiver.obj) else []
        self.callbacks(frame, [*spread, *args.values()], one)
        deps = dependencies(one, *args.values())
        if is_frozen(receiver.obj):
            return frame.fresh("call", deps=deps)
        if name in GETTERS:
            receiver.peeked = True
            key, default = args.positional[:1], args.positional[1:]
            found = self.element(frame, receiver, key[0]) if key else receiver.element()
            found = join_all((found, *default))
            self.read(frame, deps | found.deps)
            return found.with_deps(deps)
        if name in _VIEWS or name in ("__iter__", "elements", "most_common"):
            return _view(frame, name, one, deps)
        if name in ALIASES:
            return Value(one.origins, deps)
        if name == "__getattribute__" and args.positional:
            attribute = args.positional[0].const
            if type(attribute) is str:
                return self.attribute(frame, one, attribute)
        if name not in PURE_CALLS:
            deps |= {NONDETERMINISTIC}
        return frame.fresh("call", deps=deps)

    def _note_mutation(
        self, frame: AbstractFrame, receiver: Outer, name: str, args: Arguments
    ) -> None:
        change = _mutation_by(receiver.obj, name)
        if change is None and args.named.get("inplace", PLAIN_VALUE).const is True:
            change = Mutation("slot", "changes in place")
        if change is not None:
            keyed = name in ("__setitem__", "setdefault") and len(args.positional) > 0
            slot = self.slot(receiver, args.positional[0]) if keyed else None
            stored = name == "__setitem__" and len(args.positional) > 1
            self.note(frame, receiver, change, slot, args.positional[1] if stored else None)
        elif name not in GETTERS:
            receiver.scanned = True

    def _fresh_method(
        self, frame: AbstractFrame, receiver: Fresh, name: str, args: Arguments
    ) -> Value:
        one = exactly(receiver)
        positional = args.positional
        deps = dependencies(*args.values())
        self._note_outputs(frame, args)
        self.callbacks(frame, args.values(), one)
        if name in ("append", "add", "appendleft", "put", "push", "insert", "setdefault"):
            for value in positional[-1:]:
                if value.origins:
                    frame.store(receiver, ANY_ELEMENT, value)
        elif name in ("extend", "update", "extendleft", "__ior__"):
            for value in positional:
                frame.store(receiver, ANY_ELEMENT, value.element())
        elif name == "__setitem__" and len(positional) > 1:
            frame.store(receiver, positional[0].step(), positional[1])
        if name in GETTERS:
            receiver.read = True
            return join_all((one.element(), *positional[1:])).with_deps(deps)
        if name in _VIEWS:
            return _view(frame, name, one, deps)
        if name in ALIASES:
            return Value(one.origins, deps)
        return frame.fresh("call", deps=deps)

    def _note_outputs(self, frame: AbstractFrame, args: Arguments) -> None:
        """Record what goes to the arguments `out` and `file`."""
        for name, change in _OUTPUTS.items():
            for origin in args.named[name].origins if name in args.named else ():
                for node in _outer_parts(origin):
                    self.note(frame, node, change)

    def external(self, frame: AbstractFrame, module: str, name: str, args: Arguments) -> Value:
        """Call a function or class that is not the program's own; what the call returns."""
        positional = args.positional
        changed = self._note_changed_argument(frame, module, name, positional)
        tables = ("take", PROCESS_CALLS), ("swap", SWAPPING_CALLS), ("keep", KEEPING_CALLS)
        for shape, table in tables:
            if (process := table.get((module, name))) is not None:
                self.note(frame, None, (shape, process[0]), target=process[1])
        use = DESCRIPTOR_CALLS.get((module, name), "")
        if use and _from_outside(positional):
            self.note(frame, None, (use, "uses"), target="a descriptor")
        self._note_outputs(frame, args)
        values = [*positional, *(v for key, v in args.named.items() if key not in _OUTPUTS)]
        if args.rest is not None:
            values.append(args.rest)
        for k, value in enumerate(values):
            for origin in value.origins:
                if type(origin) is Outer and k != changed and name not in _NO_LOOK:
                    origin.scanned = True
        builtin = self.call_builtin(frame, name, args) if module == "builtins" else None
        if builtin is not None:
            return builtin
        self.callbacks(frame, values, PLAIN_VALUE)
        deps = dependencies(*values)
        self.read(frame, deps)
        deps |= {FOLDED if name in PURE_CALLS else NONDETERMINISTIC}
        made = frame.site("call")
        result = exactly(made).with_deps(deps)
        if name in CONTAINER_CALLS:
            frame.site("call", ANY_ELEMENT, join_all(map(Value.element, positional)))
            for key, value in args.named.items():
                frame.store(made, ("item", key), value)
        elif name in ALIASES and positional:
            for origin in positional[0].origins:
                if not is_a(getattr(origin, "obj", None), (list, tuple, dict, str)):
                    result |= exactly(origin)
        else:
            for key, value in args.named.items():
                if value.origins:
                    frame.store(made, ("attr", key), value)
        return result

    def _note_changed_argument(
        self, frame: AbstractFrame, module: str, name: str, positional: list[Value]
    ) -> int:
        """Record what a function of ARGUMENT_CHANGES does; the argument's index, or -1."""
        changed, change = ARGUMENT_CHANGES.get((module, name), (-1, None))
        if change is None or changed >= len(positional):
            return -1
        for origin in positional[changed].origins:
            if type(origin) is Outer and not is_frozen(origin.obj):
                slot = value = None
                if name in ("setattr", "delattr") and type(positional[1].const) is str:
                    slot = origin.child("attr", positional[1].const)
                    value = positional[2] if len(positional) > 2 else None
                self.note(frame, origin, change, slot, value)
        return changed


def _from_outside(positional: list[Value]) -> bool:
    """Whether the first argument was not made by a call, and is not for output."""
    first = positional[0] if positional else Value(const=1)
    made = NONDETERMINISTIC in first.deps or any(type(each) is Fresh for each in first.origins)
    return not made and first.const not in (1, 2)


def _view(frame: AbstractFrame, name: str, one: Value, deps: frozenset[Any]) -> Value:
    """A new container of the content of another: its keys are immutable."""
    if name == "keys":
        return frame.fresh("call", deps=deps)
    content = one.element()
    if name == "items":
        content = frame.fresh("pair", ("item", 1), content)
    return frame.fresh("call", ANY_ELEMENT, content, deps)


def _outer_parts(origin: Origin) -> list[Outer]:
    """The outer object itself, or those in a tuple (`out=(a, b)`)."""
    if type(origin) is Outer:
        return [origin]
    if type(origin) is Fresh and origin.tag == "tuple":
        content = [each for field in origin.fields.values() for each in field.origins]
        return [each for each in content if type(each) is Outer]
    return []


def _mutation_by(obj: Any, name: str) -> Mutation | None:
    """What a method of an object changes in the object."""
    if obj is UNKNOWN_OBJECT:
        return MUTATING_METHODS.get(name)
    kind = type(obj)
    if is_frozen(obj) or is_a(obj, (type, types.ModuleType, types.FunctionType)):
        return None
    if (
        class_lookup(kind, name) is NO_ATTRIBUTE
        and class_lookup(kind, "__getattr__") is NO_ATTRIBUTE
    ):
        return None  # a sentinel, as dataclasses use for a default that is made later
    if name == "update" and is_a(obj, Counter):
        return Mutation("take", "adds to")
    package: dict[str, Mutation] | None = None
    for base in mro_of(kind):
        top = top_module(base)
        typed = TYPED_METHODS.get((top, base.__name__), {})
        if name in typed:
            return typed[name]
        package = PACKAGE_METHODS.get(top) if package is None else package
        if top == "torch" and name.endswith("_") and not name.startswith("_"):
            return Mutation("slot", "overwrites")
    return (MUTATING_METHODS if package is None else package).get(name)
