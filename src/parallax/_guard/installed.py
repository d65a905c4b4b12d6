"""Calls of functions and methods that are not the program's own, by the tables of `mutators`."""

from __future__ import annotations

import functools
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from parallax._guard.frame import Frame
from parallax._guard.lookup import (
    MISSING,
    UNKNOWN,
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
    GETTERS,
    METHODS,
    PACKAGES,
    PROCESS_CALLS,
    PURE_CALLS,
    TYPED_METHODS,
    Change,
)
from parallax._guard.names import TooBig
from parallax._guard.objects import SPREADING, Objects
from parallax._guard.values import (
    CHANCE,
    ELEM,
    EMPTY,
    PLAIN,
    Fresh,
    Func,
    Method,
    Origin,
    Outer,
    Super,
    Value,
    dependencies,
    elements,
    inner,
    join,
    step_for,
)

__all__ = ["Installed"]

# Functions that do not look at the content of what they are given.
_NO_LOOK: Final = frozenset(
    {"hasattr", "getattr", "vars", "isinstance", "id", "type", "callable", "setattr", "iter"}
)


# A callback that is handed a callback, and so on: methods given to methods would never end.
_MAX_HANDED: Final = 3


class Installed(Objects):
    """What installed code does to what it is given."""

    _handed = 0

    def _method(
        self, frame: Frame, origin: Outer | Fresh, name: str, args: list[Value],
        names: dict[str, Value],
    ) -> Value:  # fmt: skip
        if type(origin) is Fresh:
            return self._fresh_method(frame, origin, name, args, names)
        assert isinstance(origin, Outer)
        one = Value(frozenset((origin,)), EMPTY)
        obj = origin.obj
        if name in ("__enter__", "__aenter__"):
            return self.enter(frame, one)
        if name == "__init_subclass__" or (name == "__init__" and origin.is_item):
            return PLAIN
        change = self._change_for(obj, name)
        if change is None and names.get("inplace", PLAIN).const is True:
            change = Change("slot", "changes in place")
        if change is not None:
            slot = None
            if name in ("__setitem__", "setdefault") and args:
                slot = self.slot(origin, args[0])
            value = args[1] if name == "__setitem__" and len(args) > 1 else None
            self.note(frame, origin, change, slot, value)
        elif name not in GETTERS:
            origin.scanned = True
        self._outputs(frame, names)
        spread = [one] if name in SPREADING and is_decorated(obj) else []
        self.callbacks(frame, [*spread, *args, *names.values()], one)
        deps = dependencies(one, *args, *names.values())
        if is_frozen(obj):
            return frame.fresh("call", deps=deps)
        if name in GETTERS:
            origin.peeked = True
            found = self.element(frame, origin, args[0]) if args else elements(origin)
            for default in args[1:]:
                found = join(found, default)
            self.read(frame, deps | found.deps)
            return Value(found.origins, found.deps | deps)
        if name in ("values", "items", "keys", "copy", "__iter__", "elements", "most_common"):
            return self._view(frame, name, one, deps)
        if name in ALIASES:
            return Value(one.origins, deps)
        if name == "__getattribute__" and args and type(args[0].const) is str:
            return self.attribute(frame, one, args[0].const)
        if name not in PURE_CALLS:
            deps |= {CHANCE}
        return frame.fresh("call", deps=deps)

    def _view(self, frame: Frame, name: str, one: Value, deps: frozenset[Any]) -> Value:
        if name == "keys":
            return frame.fresh("call", deps=deps)
        content = inner(one)
        if name == "items":
            pair = frame.fresh("pair", ("item", 1), content)
            return frame.fresh("call", ELEM, pair, deps)
        return frame.fresh("call", ELEM, content, deps)

    def _fresh_method(
        self, frame: Frame, origin: Fresh, name: str, args: list[Value],
        names: dict[str, Value],
    ) -> Value:  # fmt: skip
        one = Value(frozenset((origin,)), EMPTY)
        if name in ("__enter__", "__aenter__"):
            return self.enter(frame, one)
        deps = dependencies(*args, *names.values())
        self._outputs(frame, names)
        self.callbacks(frame, [*args, *names.values()], one)
        if name in ("append", "add", "appendleft", "put", "push", "insert", "setdefault"):
            for value in args[-1:]:
                if value.origins:
                    frame.store(origin, ELEM, value)
        elif name in ("extend", "update", "extendleft", "__ior__"):
            for value in args:
                frame.store(origin, ELEM, inner(value))
        elif name == "__setitem__" and len(args) > 1:
            frame.store(origin, step_for(args[0]), args[1])
        if origin.cls is not None and name in METHODS:
            pass  # `class Names(list)`: the name means what it means for a list
        if name in GETTERS:
            origin.read = True
            found = inner(one)
            for default in args[1:]:
                found = join(found, default)
            return Value(found.origins, found.deps | deps)
        if name in ("values", "items", "keys", "copy"):
            return self._view(frame, name, one, deps)
        if name in ALIASES:
            return Value(one.origins, deps)
        return frame.fresh("call", deps=deps)

    @staticmethod
    def _change_for(obj: Any, name: str) -> Change | None:
        if obj is UNKNOWN:
            return METHODS.get(name)
        kind = type(obj)
        if is_frozen(obj) or is_a(obj, (type, types.ModuleType, types.FunctionType)):
            return None
        if class_lookup(kind, name) is MISSING and class_lookup(kind, "__getattr__") is MISSING:
            return None  # a sentinel, as dataclasses use for a default that is made later
        if name == "update" and is_a(obj, Counter):
            return Change("take", "adds to")
        if obj is getattr(sys.modules.get("random"), "_inst", UNKNOWN) or obj is getattr(
            sys.modules.get("numpy.random.mtrand"), "_rand", UNKNOWN
        ):
            return None  # the shared generator makes no promise about its sequence
        package: dict[str, Change] | None = None
        for base in mro_of(kind):
            top = top_module(base)
            typed = TYPED_METHODS.get((top, base.__name__))
            if typed is not None and name in typed:
                return typed[name]
            package = PACKAGES.get(top) if package is None else package
            if top == "torch" and name.endswith("_") and not name.startswith("_"):
                return Change("slot", "overwrites")
        if package is not None:
            return package.get(name)
        return METHODS.get(name)

    def _outputs(self, frame: Frame, names: dict[str, Value]) -> None:
        for key in ("out", "file"):
            for origin in names[key].origins if key in names else ():
                for node in self._outer_parts(origin):
                    how = Change("take", "overwrites") if key == "out" else METHODS["write"]
                    self.note(frame, node, how)

    @staticmethod
    def _outer_parts(origin: Origin) -> list[Outer]:
        """The outer object itself, or those in a tuple (`out=(a, b)`)."""
        if type(origin) is Outer:
            return [origin]
        if type(origin) is Fresh and origin.tag == "tuple":
            return [
                each for field in origin.fields.values() for each in field.origins
                if type(each) is Outer
            ]  # fmt: skip
        return []

    def callbacks(self, frame: Frame, values: Iterable[Value], other: Value) -> None:
        """Functions handed to installed code may be called by it, with parts of the other args."""
        if self._handed >= _MAX_HANDED:
            return
        self._handed += 1
        self._call_back(frame, list(values), other)
        self._handed -= 1

    def _call_back(self, frame: Frame, values: list[Value], other: Value) -> None:
        content: Value | None = None
        for value in values:
            for origin in value.origins:
                own = type(origin) is Func or type(origin) is Method
                if type(origin) is Outer:
                    obj = origin.obj
                    own = (
                        is_a(obj, (types.FunctionType, types.MethodType, functools.partial))
                        or type(obj) is types.BuiltinFunctionType
                    )
                if not own:
                    continue
                if content is None:
                    content = inner(other)
                    for each in values:
                        content = join(content, inner(each))
                found = Value(frozenset((origin,)), EMPTY)
                if type(origin) is Method and type(origin.receiver) is Fresh:
                    continue
                self.spend(20)
                self.call(frame, found, [content], {}, content)

    def _external(
        self, frame: Frame, module: str, name: str, args: list[Value],
        names: dict[str, Value], star: Value | None,
    ) -> Value:  # fmt: skip
        """A call of a function or class that is not the program's own."""
        rule = ARGUMENT_CHANGES.get((module, name))
        changed = -1
        if rule is not None and rule[0] < len(args):
            changed = rule[0]
            for origin in args[changed].origins:
                if type(origin) is Outer and not is_frozen(origin.obj):
                    slot = None
                    if name in ("setattr", "delattr") and type(args[1].const) is str:
                        slot = origin.child("attr", args[1].const)
                    value = args[2] if len(args) > 2 and slot is not None else None
                    self.note(frame, origin, rule[1], slot, value)
        process = PROCESS_CALLS.get((module, name))
        if process is not None:
            self.note(frame, None, ("take", process[0]), target=process[1])
        self._outputs(frame, names)
        values = [*args, *(value for key, value in names.items() if key not in ("out", "file"))]
        if star is not None:
            values.append(star)
        for k, value in enumerate(values):
            for origin in value.origins:
                if type(origin) is Outer and k != changed and name not in _NO_LOOK:
                    origin.scanned = True
        builtin = _BUILTINS.get(name) if module == "builtins" else None
        if builtin is not None:
            found = builtin(self, frame, args, names)
            if found is not None:
                return found
        self.callbacks(frame, values, PLAIN)
        deps = dependencies(*values)
        self.read(frame, deps)
        if name not in PURE_CALLS:
            deps |= {CHANCE}
        if name in CONTAINER_CALLS:
            content = PLAIN
            for value in args:
                content = join(content, inner(value))
            fresh = frame.fresh("call", ELEM, content, deps)
            for origin in fresh.origins:
                for key, value in names.items():
                    assert isinstance(origin, Fresh)
                    frame.store(origin, ("item", key), value)
            return fresh
        if name in ALIASES and args:
            result = frame.fresh("call", deps=deps)
            for origin in args[0].origins:
                if not is_a(getattr(origin, "obj", None), (list, tuple, dict, str)):
                    result = join(result, Value(frozenset((origin,)), EMPTY))
            return result
        fresh = frame.fresh("call", deps=deps)
        for origin in fresh.origins:
            for key, value in names.items():
                if value.origins and isinstance(origin, Fresh):
                    frame.store(origin, ("attr", key), value)
        return fresh


# ---- builtins with a meaning of their own


_Builtin = Callable[[Installed, Frame, list[Value], dict[str, Value]], "Value | None"]


def _getattr(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    if len(args) < 2:
        return None
    if type(args[1].const) is str:
        found = scan.attribute(frame, args[0], args[1].const)
    else:
        found = inner(args[0])
        for origin in args[0].origins:
            if type(origin) is Outer:
                found = join(found, Value(frozenset((origin.child("deep"),)), EMPTY))
    for default in args[2:]:
        found = join(found, default)
    return found


def _hasattr(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    deps = dependencies(*args)
    if len(args) == 2 and type(args[1].const) is str:
        for origin in args[0].origins:
            if type(origin) is Outer:
                deps |= {origin.child("attr", args[1].const)}
    return Value(EMPTY, deps)


def _vars(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    return scan.attribute(frame, args[0], "__dict__") if args else PLAIN


def _globals(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    return Value(frozenset((frame.ns,)), EMPTY)


def _super(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    after: Any = None
    receiver = PLAIN
    if len(args) == 2:
        receiver = args[1]
        for origin in args[0].origins:
            after = getattr(origin, "obj", None)
    else:
        cell = frame.cells.get("__class__")
        if cell is not None and cell.outer is not None:
            after = cell.outer.obj
        if frame.first is not None:
            receiver = frame.start.get(frame.first, PLAIN)
    return Value(frozenset((Super(after, receiver),)), EMPTY)


def _iter(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    return scan.iterate(frame, args[0]) if len(args) == 1 else None


def _next(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    if not args:
        return None
    found = inner(args[0])
    for default in args[1:]:
        found = join(found, default)
    return found


def _smallest(
    scan: Installed, frame: Frame, args: list[Value], names: dict[str, Value]
) -> Value | None:
    found = PLAIN
    for value in args:
        found = join(found, value if len(args) > 1 else inner(value))
    scan.callbacks(frame, names.values(), args[0] if args else PLAIN)
    return Value(found.origins, found.deps | dependencies(*args))


def _enumerate(
    scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]
) -> Value | None:
    content = inner(scan.iterate(frame, args[0])) if args else PLAIN
    pair = frame.fresh("pair", ("item", 1), content)
    return frame.fresh("call", ELEM, pair, dependencies(*args))


def _zip(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    row = frame.site("row")
    for k, value in enumerate(args):
        content = inner(scan.iterate(frame, value))
        if content.origins or content.deps:
            frame.store(row, ("item", k), content)
    return frame.fresh("call", ELEM, Value(frozenset((row,)), EMPTY), dependencies(*args))


def _map(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    if not args:
        return None
    content = [inner(value) for value in args[1:]]
    result = scan.call(frame, args[0], content, {}, None)
    return frame.fresh("call", ELEM, result, dependencies(*args))


def _exec(scan: Installed, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    raise TooBig  # code made at run time: nothing can be said


_BUILTINS: Final[dict[str, _Builtin]] = {
    "getattr": _getattr, "hasattr": _hasattr, "vars": _vars, "globals": _globals, "super": _super,
    "iter": _iter, "next": _next, "min": _smallest, "max": _smallest, "enumerate": _enumerate,
    "zip": _zip, "map": _map, "exec": _exec,
}  # fmt: skip
