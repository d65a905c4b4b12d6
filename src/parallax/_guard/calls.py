"""Follows calls into the program's own functions, and drives the whole analysis.

Guarantees: never calls the program's code; stops at a fixed budget by raising `TooBig`.
Assumes: one thread per `Scan`; the objects are not changed meanwhile (if they are, look-ups fail
softly and the guard's marks notice at the next scan).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, Final

from parallax._guard import ops_data as _ops_data  # noqa: F401 - they fill `frame.OPERATIONS`
from parallax._guard import ops_flow as _ops_flow  # noqa: F401
from parallax._guard.frame import Frame
from parallax._guard.installed import Installed
from parallax._guard.lookup import (
    MISSING,
    UNKNOWN,
    class_lookup,
    is_a,
    is_own_class,
    is_own_code,
    top_module,
)
from parallax._guard.names import TooBig
from parallax._guard.objects import METHOD_DESCRIPTORS
from parallax._guard.values import (
    CHANCE,
    CLASS_VALUE,
    ELEM,
    EMPTY,
    PLAIN,
    Cell,
    Fresh,
    Func,
    Method,
    Origin,
    Outer,
    Value,
    elements,
    join,
    value_of,
)

__all__ = ["Scan"]

_MAX_CALLS: Final = 40
# Below this depth of calls, lists made on the way are no longer told apart, or each combination of
# arguments would be analysed anew.
_EXACT_DEPTH: Final = 3
# Of a recursive function, so many rounds are followed; what a further one does to its arguments,
# an earlier one did to what they were reached from.
_MAX_ROUNDS: Final = 3


def _driver(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return fn(*args)


class Scan(Installed):
    """One analysis of one callable."""

    def __init__(self, fn: Callable[..., Any], sample: tuple[Any, ...], budget: int) -> None:
        super().__init__(fn, budget)
        self._frames: dict[tuple[Any, ...], tuple[Frame, Value | None]] = {}
        self._active: dict[types.CodeType, int] = {}
        self._spaces: dict[int, Outer] = {}
        self.items = [
            Outer(self.trail, None, "arg", k, value, "the item") for k, value in enumerate(sample)
        ]

    def run(self) -> Value:
        """Analyse a call of the callable with the sample as arguments; what it returns."""
        space = Outer([], None, "import", "builtins", {}, "")
        args = Fresh()
        for k, node in enumerate(self.items):
            args.fields["item", k] = self._item_value(node)
        names = {"fn": value_of(self.root), "args": Value(frozenset((args,)), EMPTY)}
        self.driver = Frame(self, _driver.__code__, space, names, {}, None, "")
        return self.driver.run()

    @staticmethod
    def _item_value(node: Outer) -> Value:
        value = value_of(node)
        # Whatever is computed from the item depends on it, even when it is a plain number.
        return Value(value.origins, frozenset((node,)))

    def import_name(self, _: Frame, name: str) -> Value:
        """`import name`, which is looked up among the modules that are already there."""
        node = self.root.child("import", name)
        return Value(frozenset((node,)), EMPTY)

    def call(
        self, frame: Frame, target: Value, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        """A call of whatever `target` may be."""
        if target is CLASS_VALUE:
            return self._build_class(frame, args)
        result: Value | None = None
        for origin in target.origins:
            found = self._call_origin(frame, origin, args, names, star)
            result = found if result is None else join(result, found)
        if result is None:
            result = self._external(frame, "", "", args, names, star)
        if target.deps:
            result = Value(result.origins, result.deps | target.deps, result.const)
        return result

    def _call_origin(
        self, frame: Frame, origin: Origin, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        if type(origin) is Func:
            origin.used = True
            return self._inline(
                frame, origin.code, origin.ns, origin.cells, origin, origin.defaults,
                origin.kwdefaults, args, names, star, None,
            )  # fmt: skip
        if type(origin) is Method:
            receiver = Value(frozenset((origin.receiver,)), EMPTY)
            func = origin.func
            if func is not None:
                obj = func.obj
                if type(obj).__name__ == "_lru_cache_wrapper":
                    func = func.child("wrapped")
                    obj = func.obj
                if type(obj) is types.FunctionType and is_own_code(obj.__code__.co_filename):
                    return self.inline_outer(frame, func, [receiver, *args], names, star)
                self._follow_wrapped(frame, func, [receiver, *args], names, star)
            return self._method(frame, origin.receiver, origin.name, args, names)
        if type(origin) is Fresh:
            if origin.cls is not None:
                own = self.special(frame, origin, "__call__", args)
                if own is not None:
                    return own
            return self._external(frame, "", "", args, names, star)
        if type(origin) is Outer:
            return self._call_outer(frame, origin, args, names, star)
        return PLAIN

    def _call_outer(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        obj = node.obj
        kind = type(obj)
        if obj is UNKNOWN:
            if node.kind == "attr" and node.parent is not None:
                return self._method(frame, node.parent, node.key, args, names)
            return self._external(frame, "", "", args, names, star)
        if kind is types.FunctionType:
            if is_own_code(obj.__code__.co_filename):
                return self.inline_outer(frame, node, args, names, star)
            self._follow_wrapped(frame, node, args, names, star)
            return self._external(frame, top_module(obj), obj.__name__, args, names, star)
        if kind is types.MethodType:
            func, receiver = node.child("func"), node.child("self")
            if type(func.obj) is types.FunctionType and is_own_code(func.obj.__code__.co_filename):
                return self.inline_outer(frame, func, [value_of(receiver), *args], names, star)
            name = getattr(func.obj, "__name__", "")
            self._external(frame, top_module(func.obj), name, args, names, star)
            return self._method(frame, receiver, name, args, names)
        if is_a(obj, functools.partial):
            bound = [value_of(node.child("bound", k)) for k in range(len(obj.args))]
            named = {k: value_of(node.child("bound name", k)) for k in obj.keywords}
            inside = value_of(node.child("partial"))
            return self.call(frame, inside, [*bound, *args], {**named, **names}, star)
        if kind.__name__ == "_lru_cache_wrapper":
            return self.call(frame, value_of(node.child("wrapped")), args, names, star)
        if is_a(obj, type):
            return self._instantiate(frame, node, args, names, star)
        if kind is types.BuiltinFunctionType:
            holder = obj.__self__
            if holder is None or is_a(holder, types.ModuleType):
                return self._external(frame, top_module(obj), obj.__name__, args, names, star)
            receiver = node.child("self")
            if is_a(holder, type):
                return self._external(frame, top_module(holder), obj.__name__, args, names, star)
            self._external(frame, top_module(type(holder)), obj.__name__, args, names, star)
            return self._method(frame, receiver, obj.__name__, args, names)
        if kind is types.MethodWrapperType:
            return self._method(frame, node.child("self"), obj.__name__, args, names)
        if kind in METHOD_DESCRIPTORS and args:
            result = PLAIN
            for origin in args[0].origins:
                if type(origin) in (Outer, Fresh):
                    assert isinstance(origin, Outer | Fresh)
                    found = self._method(frame, origin, obj.__name__, args[1:], names)
                    result = join(result, found)
            return result
        own = self.special(frame, node, "__call__", args) if not (names or star) else None
        if own is None:
            raw = class_lookup(kind, "__call__")
            if type(raw) is types.FunctionType and is_own_code(raw.__code__.co_filename):
                func = node.child("type").child("attr", "__call__")
                return self.inline_outer(frame, func, [value_of(node), *args], names, star)
            self._follow_wrapped(frame, node, args, names, star)
            if kind.__module__ in ("operator", "_operator") and kind.__name__ == "methodcaller":
                return self._methodcaller(frame, obj, args)
            return self._external(frame, top_module(kind), "__call__", args, names, star)
        return own

    def _methodcaller(self, frame: Frame, obj: Any, args: list[Value]) -> Value:
        name = obj.__reduce__()[1][0]
        target = self.attribute(frame, args[0], name) if args else PLAIN
        return self.call(frame, target, [], {}, None)

    def _follow_wrapped(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> None:  # fmt: skip
        """The program's own functions inside a wrapper made by an installed decorator."""
        inside = [node.child("wrapped"), *self._free_of(node)]
        # One level further in is the registry of `functools.singledispatch`.
        inside += [each for child in list(inside) for each in self._free_of(child)]
        for child in list(inside):
            if is_a(child.obj, dict):
                inside += [each for each in elements(child).origins if type(each) is Outer]
        for child in inside:
            obj = child.obj
            if type(obj) is types.FunctionType and is_own_code(obj.__code__.co_filename):
                self.inline_outer(frame, child, args, names, star)

    @staticmethod
    def _free_of(node: Outer) -> list[Outer]:
        """The variables that an installed function has from the functions around it."""
        func = node.obj
        if type(func) is not types.FunctionType or is_own_code(func.__code__.co_filename):
            return []
        return [node.child("free", name) for name in func.__code__.co_freevars]

    def _build_class(self, frame: Frame, args: list[Value]) -> Value:
        """A class statement inside the call: look at its methods as if each were called."""
        for origin in args[0].origins if args else ():
            if type(origin) is Func:
                origin.used = True
                for const in origin.code.co_consts:
                    if type(const) is types.CodeType:
                        cells = {**frame.cells, **origin.cells}
                        self._inline(
                            frame, const, origin.ns, cells, const, (), {}, [], {}, PLAIN, None
                        )
        return frame.fresh("class")

    def _instantiate(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        cls = node.obj
        if not is_own_class(cls):
            name = cls.__name__
            if name == "type" and len(args) == 1:
                found = PLAIN
                for origin in args[0].origins:
                    if type(origin) is Outer:
                        found = join(found, Value(frozenset((origin.child("type"),)), EMPTY))
                return found
            return self._external(frame, top_module(cls), name, args, names, star)
        made = Value(frozenset((frame.site(("new", cls), cls=cls),)), EMPTY)
        meta = class_lookup(type(cls), "__call__")
        if type(meta) is types.FunctionType and is_own_code(meta.__code__.co_filename):
            func = node.child("type").child("attr", "__call__")
            self.inline_outer(frame, func, [value_of(node), *args], names, star)
        for name in ("__new__", "__init__"):
            raw = class_lookup(cls, name)
            func = node.child("attr", name)
            first = made
            if is_a(raw, staticmethod):
                func, raw, first = func.child("unwrap"), raw.__func__, value_of(node)
            if type(raw) is types.FunctionType and is_own_code(raw.__code__.co_filename):
                result = self.inline_outer(frame, func, [first, *args], names, star)
                if name == "__new__":
                    made = join(made, result)  # a singleton hands out an older object
            elif name == "__init__" and raw is not MISSING:
                for key, value in names.items():
                    for origin in made.origins:
                        if type(origin) is Fresh:
                            frame.store(origin, ("attr", key), value)
        return made

    def inline_outer(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        """Follow a call into a function that was there before the call."""
        func = node.obj
        if type(func) is not types.FunctionType:
            return PLAIN
        code = func.__code__
        space = self._spaces.get(id(func.__globals__))
        if space is None:
            space = self._spaces[id(func.__globals__)] = node.child("globals")
            space.label = ""
        cells = {name: Cell(node.child("free", name)) for name in code.co_freevars}
        defaults: list[Value] = []
        if func.__defaults__:
            first = code.co_argcount - len(func.__defaults__)
            for k in range(len(func.__defaults__)):
                child = node.child("default", k)
                if not child.is_item:
                    child.label = code.co_varnames[first + k]
                defaults.append(value_of(child))
        kwdefaults = {k: value_of(node.child("kwdefault", k)) for k in func.__kwdefaults__ or ()}
        return self._inline(
            frame, code, space, cells, func, tuple(defaults), kwdefaults, args, names, star,
            func.__qualname__,
        )  # fmt: skip

    def _inline(
        self, frame: Frame, code: types.CodeType, space: Outer, cells: dict[str, Cell],
        owner: object, defaults: tuple[Value, ...], kwdefaults: dict[str, Value],
        args: list[Value], names: dict[str, Value], star: Value | None, label: str | None,
    ) -> Value:  # fmt: skip
        bound = self._bind(frame, code, defaults, kwdefaults, args, names, star)
        if frame.depth >= _EXACT_DEPTH:
            bound = {name: self._blurred(value) for name, value in bound.items()}
        key = (id(code), id(owner), *(value.origins for value in bound.values()))
        known = self._frames.get(key)
        if known is not None:
            callee, result = known
            if (frame, frame.at) not in callee.callers:
                callee.callers.append((frame, frame.at))
            if result is None:
                return Value(EMPTY, frozenset((CHANCE,)))  # recursion: the outer round says more
            return result
        if frame.depth >= _MAX_CALLS:
            raise TooBig
        active = self._active.get(code, 0)
        if active >= _MAX_ROUNDS:
            return Value(EMPTY, frozenset((CHANCE,)))
        self.spend(20)
        callee = Frame(self, code, space, bound, cells, (frame, frame.at), label)
        self._frames[key] = (callee, None)
        self._active[code] = active + 1
        result = callee.run()
        self._active[code] = active
        self._frames[key] = (callee, result)
        for made in list(callee.sites.values()):
            if type(made) is Func and not made.used:
                # Handed to something that is not followed, which may well call it.
                made.used = True
                self._inline(
                    callee, made.code, made.ns, made.cells, made, made.defaults,
                    made.kwdefaults, [], {}, PLAIN, None,
                )  # fmt: skip
        return result

    @staticmethod
    def _blurred(value: Value) -> Value:
        """The same without the things made on the way that hold nothing outer."""
        kept = [
            origin
            for origin in value.origins
            if type(origin) is not Fresh
            or origin.cls is not None
            or any(field.origins for field in origin.fields.values())
        ]
        if len(kept) == len(value.origins):
            return value
        return Value(frozenset(kept), value.deps, value.const)

    def _bind(
        self, frame: Frame, code: types.CodeType, defaults: tuple[Value, ...],
        kwdefaults: dict[str, Value], args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> dict[str, Value]:  # fmt: skip
        count = code.co_argcount
        params = code.co_varnames
        bound: dict[str, Value] = dict(zip(params[:count], args, strict=False))
        for k in range(len(args), count):
            name = params[k]
            default = k - (count - len(defaults))
            if name in names:
                bound[name] = names[name]
            elif default >= 0:
                bound[name] = defaults[default]
                if star is not None:
                    bound[name] = join(defaults[default], star)
            else:
                bound[name] = PLAIN if star is None else star
        more = count + code.co_kwonlyargcount
        for name in params[count:more]:
            bound[name] = names.get(name) or kwdefaults.get(name) or star or PLAIN
        if code.co_flags & 0x04:
            rest = frame.site(("rest", id(code)))
            for k, value in enumerate(args[count:]):
                frame.store(rest, ("item", k), value)
            if star is not None and star is not PLAIN:
                frame.store(rest, ELEM, star)
            bound[params[more]] = Value(frozenset((rest,)), EMPTY)
            more += 1
        if code.co_flags & 0x08:
            rest = frame.site(("named", id(code)))
            for name, value in names.items():
                if name not in bound:
                    frame.store(rest, ("item", name), value)
            bound[params[more]] = Value(frozenset((rest,)), EMPTY)
        return bound
