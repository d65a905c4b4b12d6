"""Calls: follows those of the program's own functions, and hands all others to `InstalledCalls`.

Guarantees: never runs code of the program; raises `TooBig` when the budget is used up.
Assumes: one thread per scan. Objects that are changed during a scan make look-ups fail without an
error, and the marks of the scan's trail reveal the change before the result is used again.
"""

from __future__ import annotations

import functools
import types

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.attributes import METHOD_DESCRIPTORS
from parallax._guard.builtin_calls import CALL_STEPS
from parallax._guard.frame import AbstractFrame, TooBig
from parallax._guard.installed_calls import InstalledCalls
from parallax._guard.lookup import (
    NO_ATTRIBUTE,
    UNKNOWN_OBJECT,
    class_lookup,
    is_a,
    is_lru_cache,
    is_own_class,
    is_own_function,
    is_seeded,
    top_module,
)
from parallax._guard.values import (
    ANY_ELEMENT,
    CLASS_VALUE,
    NONDETERMINISTIC,
    PLAIN_VALUE,
    Arguments,
    Cell,
    Fresh,
    Func,
    Method,
    Outer,
    Value,
    either,
    exactly,
    join_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Final

    from parallax._guard.frame import Operation
    from parallax._guard.values import Origin

# Depth of calls. Smaller: deeply layered programs are not analysed; larger: the interpreter's own
# recursion limit is reached first.
_MAX_FOLLOWED_DEPTH: Final = 40
# Below this depth of calls, objects made on the way are no longer told apart: each combination of
# arguments would be analysed anew.
_MAX_EXACT_DEPTH: Final = 3
# Activations of one recursive function. What a further one does to its arguments, an earlier one
# did to the objects that they were reached from.
_MAX_ACTIVATIONS: Final = 3
_CO_VARARGS: Final = 0x04
_CO_VARKEYWORDS: Final = 0x08
_UNKNOWN_RESULT: Final = Value(deps=frozenset((NONDETERMINISTIC,)))


class Calls(InstalledCalls):
    """Calls of whatever a value may be."""

    operations: ClassVar[dict[str, Operation]]
    """What each opcode does; set by the subclass that composes the table."""

    def __init__(self, fn: Callable[..., Any], steps: int) -> None:
        super().__init__(fn, steps)
        self._frames: dict[tuple[Any, ...], tuple[AbstractFrame, Value | None]] = {}
        self._active: dict[types.CodeType, int] = {}
        self._spaces: dict[int, Outer] = {}

    def call(self, frame: AbstractFrame, target: Value, args: Arguments) -> Value:
        """Call whatever `target` may be; what the call returns."""
        if target is CLASS_VALUE:
            return self._build_class(frame, args.positional)
        result = either(self._call_origin(frame, origin, args) for origin in target.origins)
        return (result or self.external(frame, "", "", args)).with_deps(target.deps)

    def _call_origin(self, frame: AbstractFrame, origin: Origin, args: Arguments) -> Value:
        if type(origin) is Func:
            return self._run(frame, origin, args)
        if type(origin) is Outer:
            return self._call_outer(frame, origin, args)
        if type(origin) is Fresh:
            own = self.special(frame, origin, "__call__", *args.positional)
            return self.external(frame, "", "", args) if own is None else own
        if type(origin) is not Method:
            return PLAIN_VALUE
        func = origin.func
        if func is not None:
            bound = args.after(exactly(origin.receiver))
            if is_lru_cache(func.obj):
                func = func.child("wrapped")
            if is_own_function(func.obj):
                return self.follow(frame, func, bound)
            self._follow_wrapped(frame, func, bound)
        return self.method(frame, origin.receiver, origin.name, args)

    def _call_outer(self, frame: AbstractFrame, node: Outer, args: Arguments) -> Value:
        obj = node.obj
        if obj is UNKNOWN_OBJECT:
            if node.kind == "attr" and node.parent is not None:
                return self.method(frame, node.parent, node.key, args)
            return self.external(frame, "", "", args)
        if type(obj) is types.FunctionType:
            if is_own_function(obj):
                return self.follow(frame, node, args)
            self._follow_wrapped(frame, node, args)
            if "patchings" in vars(obj):  # under @mock.patch
                self.external(frame, "unittest", "patch", Arguments())
            return self.external(frame, top_module(obj), obj.__name__, args)
        if type(obj) is types.MethodType:
            func, receiver = node.child("func"), node.child("self")
            if is_own_function(func.obj):
                return self.follow(frame, func, args.after(receiver.value()))
            name = getattr(func.obj, "__name__", "")
            self.external(frame, top_module(func.obj), name, args)
            return self.method(frame, receiver, name, args)
        if is_a(obj, functools.partial):
            bound = [node.child("bound", k).value() for k in range(len(obj.args))]
            named = {k: node.child("bound name", k).value() for k in obj.keywords}
            given = args.positional[1:] if is_seeded(obj) else args.positional
            all_args = Arguments([*bound, *given], {**named, **args.named}, args.rest)
            return self.call(frame, node.child("partial").value(), all_args)
        if is_lru_cache(obj):
            return self.call(frame, node.child("wrapped").value(), args)
        if is_a(obj, type):
            return self._instantiate(frame, node, args)
        if type(obj) is types.BuiltinFunctionType:
            return self._call_builtin_object(frame, node, args)
        if type(obj) is types.MethodWrapperType:
            return self.method(frame, node.child("self"), obj.__name__, args)
        if type(obj) in METHOD_DESCRIPTORS and args.positional:
            receivers = args.positional[0].origins
            rest = Arguments(args.positional[1:], args.named)
            return join_all(
                self.method(frame, origin, obj.__name__, rest)
                for origin in receivers
                if isinstance(origin, (Outer, Fresh))
            )
        return self._call_instance(frame, node, args)

    def _call_builtin_object(self, frame: AbstractFrame, node: Outer, args: Arguments) -> Value:
        """A function of a C module, or a bound method of an object or class made in C."""
        holder, name = node.obj.__self__, node.obj.__name__
        if holder is None or is_a(holder, types.ModuleType):
            return self.external(frame, top_module(node.obj), name, args)
        if is_a(holder, type):
            return self.external(frame, top_module(holder), name, args)
        self.external(frame, top_module(type(holder)), name, args)
        return self.method(frame, node.child("self"), name, args)

    def _call_instance(self, frame: AbstractFrame, node: Outer, args: Arguments) -> Value:
        kind = type(node.obj)
        if is_own_function(class_lookup(kind, "__call__")):
            func = node.child("type").child("attr", "__call__")
            return self.follow(frame, func, args.after(node.value()))
        self._follow_wrapped(frame, node, args)
        if kind.__module__ in ("operator", "_operator") and kind.__name__ == "methodcaller":
            name = node.obj.__reduce__()[1][0]
            found = (self.attribute(frame, value, name) for value in args.positional[:1])
            return self.call(frame, join_all(found), Arguments())
        return self.external(frame, top_module(kind), "__call__", args)

    def _follow_wrapped(self, frame: AbstractFrame, node: Outer, args: Arguments) -> None:
        """Follow the program's own functions inside a wrapper made by an installed decorator."""
        inside = [node.child("wrapped"), *_free_variables(node)]
        # One level further in is the registry of `functools.singledispatch`.
        inside += [each for child in list(inside) for each in _free_variables(child)]
        for child in list(inside):
            if is_a(child.obj, dict):
                inside += [each for each in child.element().origins if type(each) is Outer]
        for child in inside:
            if is_own_function(child.obj):
                self.follow(frame, child, args)

    def _build_class(self, frame: AbstractFrame, args: list[Value]) -> Value:
        """A class statement inside the call: follow each method as if it were called."""
        for origin in args[0].origins if args else ():
            if type(origin) is Func:
                origin.used = True
                for code in origin.code.co_consts:
                    if type(code) is types.CodeType:
                        cells = {**frame.cells, **origin.cells}
                        method = Func(code, origin.ns, cells, owner=code)
                        self._run(frame, method, Arguments(rest=PLAIN_VALUE))
        return frame.fresh("class")

    def _instantiate(self, frame: AbstractFrame, node: Outer, args: Arguments) -> Value:
        cls = node.obj
        if cls is type and len(args.positional) == 1:
            origins = args.positional[0].origins
            return join_all(exactly(o.child("type")) for o in origins if type(o) is Outer)
        if not is_own_class(cls):
            return self.external(frame, top_module(cls), cls.__name__, args)
        made = exactly(frame.site(("new", cls), cls=cls))
        if is_own_function(class_lookup(type(cls), "__call__")):
            func = node.child("type").child("attr", "__call__")
            self.follow(frame, func, args.after(node.value()))
        for name in ("__new__", "__init__"):
            raw = class_lookup(cls, name)
            func = node.child("attr", name)
            first = made
            if is_a(raw, staticmethod):
                func, raw, first = func.child("unwrap"), raw.__func__, node.value()
            if is_own_function(raw):
                result = self.follow(frame, func, args.after(first))
                if name == "__new__":
                    made |= result  # a singleton returns an older object
            elif name == "__init__" and raw is not NO_ATTRIBUTE:
                for key, value in args.named.items():
                    for origin in made.origins:
                        if type(origin) is Fresh:
                            frame.store(origin, ("attr", key), value)
        return made

    def follow(self, frame: AbstractFrame, node: Outer, args: Arguments) -> Value:
        """Follow a call into an outer function; what the call returns."""
        func = node.obj
        if type(func) is not types.FunctionType:
            return PLAIN_VALUE
        code = func.__code__
        space = self._spaces.get(id(func.__globals__))
        if space is None:
            space = self._spaces[id(func.__globals__)] = node.child("globals")
            space.label = ""
        cells = {name: Cell(node.child("free", name)) for name in code.co_freevars}
        made = Func(code, space, cells, func, func.__qualname__)
        first = code.co_argcount - len(func.__defaults__ or ())
        for k in range(len(func.__defaults__ or ())):
            child = node.child("default", k)
            if not child.is_item:
                child.label = code.co_varnames[first + k]
            made.defaults += (child.value(),)
        for name in func.__kwdefaults__ or ():
            made.kwdefaults[name] = node.child("kwdefault", name).value()
        return self._run(frame, made, args)

    def _run(self, frame: AbstractFrame, func: Func, args: Arguments) -> Value:
        """Analyse a call, or return what an earlier analysis with such arguments found."""
        func.used = True
        bound = _bind(frame, func, args)
        if frame.depth >= _MAX_EXACT_DEPTH:
            bound = {name: _blurred(value) for name, value in bound.items()}
        key = (id(func.code), id(func.owner), *(value.origins for value in bound.values()))
        known = self._frames.get(key)
        if known is not None:
            callee, result = known
            if (frame, frame.at) not in callee.callers:
                callee.callers.append((frame, frame.at))
            # In a recursion, the result is found by the activation that is still running.
            return _UNKNOWN_RESULT if result is None else result
        if frame.depth >= _MAX_FOLLOWED_DEPTH:
            raise TooBig
        active = self._active.get(func.code, 0)
        if active >= _MAX_ACTIVATIONS:
            return _UNKNOWN_RESULT
        self.budget.spend(CALL_STEPS)
        callee = AbstractFrame(self.budget, func, bound, (frame, frame.at))
        self._frames[key] = (callee, None)
        self._active[func.code] = active + 1
        result = callee.run(self, self.operations)
        self._active[func.code] = active
        self._frames[key] = (callee, result)
        for made in list(callee.sites.values()):
            if type(made) is Func and not made.used:
                # It was handed to code that is not followed and may well call it.
                self._run(callee, made, Arguments(rest=PLAIN_VALUE))
        return result


def _free_variables(node: Outer) -> list[Outer]:
    """The variables that an installed function has from the functions around it."""
    func = node.obj
    if type(func) is not types.FunctionType or is_own_function(func):
        return []
    return [node.child("free", name) for name in func.__code__.co_freevars]


def _blurred(value: Value) -> Value:
    """The same value without objects made in the call that hold nothing from outside."""
    kept = [
        origin
        for origin in value.origins
        if type(origin) is not Fresh
        or origin.cls is not None
        or any(field.origins for field in origin.fields.values())
    ]
    return Value(frozenset(kept), value.deps, value.const)


def _bind(frame: AbstractFrame, func: Func, args: Arguments) -> dict[str, Value]:
    """The parameters' values for a call."""
    code, rest = func.code, args.rest
    count = code.co_argcount
    params = code.co_varnames
    bound: dict[str, Value] = dict(zip(params[:count], args.positional, strict=False))
    for k in range(len(args.positional), count):
        default = k - (count - len(func.defaults))
        value = args.named.get(params[k])
        if value is None and default >= 0:
            value = either((func.defaults[default], rest))
        bound[params[k]] = value or rest or PLAIN_VALUE
    more = count + code.co_kwonlyargcount
    for name in params[count:more]:
        bound[name] = args.named.get(name) or func.kwdefaults.get(name) or rest or PLAIN_VALUE
    if code.co_flags & _CO_VARARGS:
        star = frame.site(("rest", id(code)))
        for k, value in enumerate(args.positional[count:]):
            frame.store(star, ("item", k), value)
        if rest is not None and rest is not PLAIN_VALUE:
            frame.store(star, ANY_ELEMENT, rest)
        bound[params[more]] = exactly(star)
        more += 1
    if code.co_flags & _CO_VARKEYWORDS:
        named = frame.site(("named", id(code)))
        for name, value in args.named.items():
            if name not in bound:
                frame.store(named, ("item", name), value)
        bound[params[more]] = exactly(named)
    return bound
