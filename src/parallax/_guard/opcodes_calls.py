"""Opcodes that make functions, call them, and import modules.

From 3.11 on, a call has two values below its arguments, one of which may be NULL: the first one
before 3.13, the second one since. Both orders are accepted.
"""

from __future__ import annotations

import sys
import types

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.frame import NULL
from parallax._guard.values import ANY_ELEMENT, PLAIN_VALUE, Arguments, Fresh, Func, Value, exactly

if TYPE_CHECKING:
    from typing import Final

    from parallax._guard.calls import Calls
    from parallax._guard.code import Instruction
    from parallax._guard.frame import AbstractFrame, Operation

# What a function is made with besides its code: bits of MAKE_FUNCTION's argument.
_DEFAULTS, _KWDEFAULTS, _ANNOTATIONS, _CLOSURE = 1, 2, 4, 8


def _make_function(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    if sys.version_info < (3, 11):
        frame.pop()  # the qualified name
    code = frame.pop().const
    extras: dict[int, Value] = {}
    if sys.version_info < (3, 13):
        for flag in (_CLOSURE, _ANNOTATIONS, _KWDEFAULTS, _DEFAULTS):
            if ins.arg & flag:
                extras[flag] = frame.pop()
    if type(code) is not types.CodeType:
        frame.push(PLAIN_VALUE)
        return
    key = (frame.at, "function")
    func = frame.sites.get(key)
    if type(func) is not Func:
        cells = {name: frame.cells[name] for name in code.co_freevars if name in frame.cells}
        func = frame.sites[key] = Func(code, frame.func.ns, cells)
    for flag, value in extras.items():
        _set_defaults(func, flag, value)
    frame.push(exactly(func))


def _set_function_attribute(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    value, function = frame.pops(2)
    for origin in function.origins:
        if type(origin) is Func:
            _set_defaults(origin, ins.arg, value)
    frame.push(function)


def _set_defaults(func: Func, flag: int, value: Value) -> None:
    if flag == _DEFAULTS and type(value.const) is tuple:
        func.defaults = tuple(Value(const=each) for each in value.const)
    for origin in value.origins:
        if type(origin) is Fresh and flag in (_DEFAULTS, _KWDEFAULTS):
            items = {key: field for (kind, key), field in origin.fields.items() if kind == "item"}
            if flag == _KWDEFAULTS:
                func.kwdefaults = items
            else:
                count = 1 + max(items, default=-1)
                func.defaults = tuple(items.get(k, PLAIN_VALUE) for k in range(count))


def _keyword_names(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.keywords = ins.value


def _call(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    if ins.op in ("CALL_KW", "CALL_FUNCTION_KW"):
        keywords = frame.pop().const
    else:
        keywords, frame.keywords = frame.keywords, ()
    values = frame.pops(ins.arg)
    count = len(values) - len(keywords)
    args = Arguments(values[:count], dict(zip(keywords, values[count:], strict=True)))
    if ins.op.startswith("CALL_FUNCTION"):
        target = frame.pop()
    else:
        target, other = frame.pops(2)
        if target is NULL:
            target = other
        elif other is not NULL:
            args = args.after(other)
    frame.push(scan.call(frame, target, args))


def _call_unpacked(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    """`f(*args, **keywords)`."""
    if sys.version_info >= (3, 14):
        keywords = frame.pop()  # always there, NULL where there are none
    else:
        keywords = frame.pop() if ins.arg & 1 else NULL
    args = frame.pop()
    if sys.version_info >= (3, 13):
        frame.pop()  # NULL
    target = frame.pop()
    if (3, 11) <= sys.version_info < (3, 13):
        frame.pop()  # NULL
    result = Arguments()
    for origin in args.origins:
        if type(origin) is Fresh and len(args.origins) == 1 and ANY_ELEMENT not in origin.fields:
            origin.read = True
            known = [k for kind, k in origin.fields if kind == "item"]
            if sorted(known) == list(range(len(known))):
                result.positional = [origin.fields["item", k] for k in range(len(known))]
                continue
        result.rest = args.element()
    if keywords is not NULL:
        for origin in keywords.origins:
            if type(origin) is Fresh:
                origin.read = True
                items = [(k, v) for (kind, k), v in origin.fields.items() if kind == "item"]
                result.named = {k: v for k, v in items if type(k) is str}
        if not result.named:
            content = keywords.element()
            result.rest = content if result.rest is None else result.rest | content
    frame.push(scan.call(frame, target, result))


def _import_name(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    level, fromlist = frame.pops(2)
    name = ins.value
    if level.const:
        space = frame.func.ns.obj
        package = space.get("__package__") or "" if type(space) is dict else ""
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - level.const + 1])
        name = f"{base}.{name}" if name else base
    elif not fromlist.const:
        name = name.partition(".")[0]  # `import a.b` binds `a`
    # The module is looked up among those that are imported already.
    frame.push(exactly(scan.root.child("import", name)))


CALL_OPERATIONS: Final[dict[str, Operation]] = {
    "MAKE_FUNCTION": _make_function,
    "SET_FUNCTION_ATTRIBUTE": _set_function_attribute,
    "PUSH_NULL RETURN_GENERATOR": lambda _, frame, __: frame.push(NULL),
    "KW_NAMES": _keyword_names,
    "CALL CALL_KW CALL_FUNCTION CALL_FUNCTION_KW CALL_METHOD": _call,
    "CALL_FUNCTION_EX": _call_unpacked,
    "IMPORT_NAME": _import_name,
    "IMPORT_FROM": lambda scan, f, ins: f.push(scan.attribute(f, f.peek(), ins.value)),
}
