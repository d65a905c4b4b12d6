"""Calls of builtin functions whose result the interpreter models, and of callbacks.

Functions that are handed to code which is not followed are analysed as if that code called them.
"""

from __future__ import annotations

import functools
import types

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.lookup import is_a
from parallax._guard.operators import Operators
from parallax._guard.values import (
    ANY_ELEMENT,
    PLAIN_VALUE,
    Arguments,
    Fresh,
    Func,
    Method,
    Outer,
    Super,
    Value,
    dependencies,
    exactly,
    join_all,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Final

    from parallax._guard.frame import AbstractFrame
    from parallax._guard.values import Origin

# Steps charged for following a call, besides those of its instructions.
CALL_STEPS: Final = 20
# A callback may be handed a callback in turn. Smaller: changes in inner callbacks are missed;
# larger: methods that are handed methods take exponentially longer.
_MAX_NESTED_CALLBACKS: Final = 3
_CALLBACK_TYPES: Final = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
)


class BuiltinCalls(Operators):
    """What builtin functions do to what they are given."""

    _nested_callbacks = 0

    def callbacks(self, frame: AbstractFrame, values: Iterable[Value], other: Value) -> None:
        """Follow the functions among `values` as if called with elements of these and `other`."""
        if self._nested_callbacks >= _MAX_NESTED_CALLBACKS:
            return
        self._nested_callbacks += 1
        values = list(values)
        content: Value | None = None
        for value in values:
            for origin in value.origins:
                if not _may_be_called(origin):
                    continue
                if content is None:
                    content = join_all(map(Value.element, values), other.element())
                if type(origin) is Method and type(origin.receiver) is Fresh:
                    continue
                self.budget.spend(CALL_STEPS)
                self.call(frame, exactly(origin), Arguments((content,), rest=content))
        self._nested_callbacks -= 1

    def call_builtin(self, frame: AbstractFrame, name: str, args: Arguments) -> Value | None:
        """The result of a builtin function; None for those without a `builtin_...` method."""
        method = getattr(self, f"builtin_{name}", None)
        return None if method is None else method(frame, args)

    def builtin_getattr(self, frame: AbstractFrame, args: Arguments) -> Value | None:
        if len(args.positional) < 2:
            return None
        on, name, *default = args.positional
        if type(name.const) is str:
            found = self.attribute(frame, on, name.const)
        else:
            found = on.element()
            for origin in on.origins:
                if type(origin) is Outer:
                    found |= exactly(origin.child("deep"))
        return join_all(default, found)

    def builtin_hasattr(self, _: AbstractFrame, args: Arguments) -> Value:
        deps = dependencies(*args.positional)
        if len(args.positional) == 2:
            on, name = args.positional
            for origin in on.origins:
                if type(origin) is Outer and type(name.const) is str:
                    deps |= {origin.child("attr", name.const)}
        return Value(deps=deps)

    def builtin_vars(self, frame: AbstractFrame, args: Arguments) -> Value:
        return join_all(self.attribute(frame, each, "__dict__") for each in args.positional[:1])

    def builtin_globals(self, frame: AbstractFrame, _: Arguments) -> Value:
        return exactly(frame.func.ns)

    def builtin_super(self, frame: AbstractFrame, args: Arguments) -> Value:
        after: Any = None
        receiver = PLAIN_VALUE
        if len(args.positional) == 2:
            cls, receiver = args.positional
            for origin in cls.origins:
                after = getattr(origin, "obj", None)
        else:
            cell = frame.cells.get("__class__")
            if cell is not None and cell.outer is not None:
                after = cell.outer.obj
            if frame.func.code.co_argcount:
                receiver = frame.start.get(frame.func.code.co_varnames[0], PLAIN_VALUE)
        return exactly(Super(after, receiver))

    def builtin_iter(self, frame: AbstractFrame, args: Arguments) -> Value | None:
        return self.iterate(frame, args.positional[0]) if len(args.positional) == 1 else None

    def builtin_next(self, _: AbstractFrame, args: Arguments) -> Value | None:
        if not args.positional:
            return None
        return join_all(args.positional[1:], args.positional[0].element())

    def builtin_min(self, frame: AbstractFrame, args: Arguments) -> Value:
        values = args.positional
        found = join_all(values if len(values) > 1 else map(Value.element, values))
        self.callbacks(frame, args.named.values(), values[0] if values else PLAIN_VALUE)
        return Value(found.origins, found.deps | dependencies(*values))

    builtin_max = builtin_min

    def builtin_enumerate(self, frame: AbstractFrame, args: Arguments) -> Value:
        content = join_all(self.iterate(frame, value).element() for value in args.positional[:1])
        pair = frame.fresh("pair", ("item", 1), content)
        return frame.fresh("call", ANY_ELEMENT, pair, dependencies(*args.positional))

    def builtin_zip(self, frame: AbstractFrame, args: Arguments) -> Value:
        row = frame.site("row")
        for k, value in enumerate(args.positional):
            frame.site("row", ("item", k), self.iterate(frame, value).element())
        return frame.fresh("call", ANY_ELEMENT, exactly(row), dependencies(*args.positional))

    def builtin_map(self, frame: AbstractFrame, args: Arguments) -> Value | None:
        if not args.positional:
            return None
        function, *iterables = args.positional
        result = self.call(frame, function, Arguments(map(Value.element, iterables)))
        return frame.fresh("call", ANY_ELEMENT, result, dependencies(*args.positional))

    def builtin_exec(self, frame: AbstractFrame, args: Arguments) -> Value | None:
        """Code made at run time is not analysed; what it can reach is its globals."""
        if not any(type(each) is Fresh for space in args.positional[1:2] for each in space.origins):
            self.note(frame, None, ("take", "runs"), target="code made at run time")
        return None

    builtin_eval = builtin_exec


def _may_be_called(origin: Origin) -> bool:
    if type(origin) is Outer:
        return is_a(origin.obj, _CALLBACK_TYPES)
    return type(origin) in (Func, Method)
