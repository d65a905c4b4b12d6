"""Opcodes that load, store, build and combine values, of CPython 3.10 to 3.14.

An opcode without an entry moves the stack as `dis.stack_effect` says. Entries under names that a
version does not have are never used there.
"""

from __future__ import annotations

import sys

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.calls import Calls
from parallax._guard.frame import NULL
from parallax._guard.lookup import NO_ATTRIBUTE
from parallax._guard.values import (
    ANY_ELEMENT,
    CLASS_VALUE,
    PLAIN_VALUE,
    Arguments,
    Fresh,
    Outer,
    Value,
    dependencies,
    derived,
    exactly,
    join_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from parallax._guard.code import Instruction
    from parallax._guard.frame import AbstractFrame, Operation

_OPERATORS_310: Final = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//",
    "MODULO": "%", "POWER": "**", "LSHIFT": "<<", "RSHIFT": ">>", "AND": "&", "OR": "|",
    "XOR": "^", "MATRIX_MULTIPLY": "@",
}  # fmt: skip


def _duplicate(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.stack.extend(frame.stack[-1:] if ins.op == "DUP_TOP" else frame.stack[-2:])


def _rotate(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    count = {"ROT_TWO": 2, "ROT_THREE": 3, "ROT_FOUR": 4}.get(ins.op, ins.arg)
    if len(frame.stack) >= count > 0:
        frame.stack.insert(len(frame.stack) - count, frame.stack.pop())


def _swap(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    stack = frame.stack
    if len(stack) >= ins.arg:
        stack[-1], stack[-ins.arg] = stack[-ins.arg], stack[-1]


def _load_fast(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.push(frame.names.get(ins.value, PLAIN_VALUE))


def _load_fast_and_clear(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    _load_fast(_, frame, ins)
    frame.assign(ins.value, PLAIN_VALUE)


def _move_two(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    """Two moves in one instruction: LOAD_FAST_LOAD_FAST, STORE_FAST_LOAD_FAST and the like."""
    kinds = [word for word in ins.op.split("_") if word in ("LOAD", "STORE")]
    for kind, name in zip(kinds, ins.value, strict=True):
        if kind == "LOAD":
            frame.push(frame.names.get(name, PLAIN_VALUE))
        else:
            frame.assign(name, frame.pop())


def _load_deref(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.push(frame.load_cell(ins.value))


def _load_name(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    value = frame.names.get(ins.value)
    frame.push(scan.load_global(frame, ins.value) if value is None else value)


def _pop_before(load: Operation) -> Operation:
    """The operation that pops a class namespace, where a name is looked up first, and loads."""

    def operate(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
        frame.pop()
        load(scan, frame, ins)

    return operate


def _push_callable(frame: AbstractFrame, value: Value, *, null: bool) -> None:
    """Push a value, and the NULL beside it if the instruction prepares a call with it."""
    if null and sys.version_info < (3, 13):
        frame.push(NULL)
    frame.push(value)
    if null and sys.version_info >= (3, 13):
        frame.push(NULL)


def _load_global(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    null = sys.version_info >= (3, 11) and bool(ins.arg & 1)
    _push_callable(frame, scan.load_global(frame, ins.value), null=null)


def _load_attr(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    null = ins.op == "LOAD_METHOD" or (sys.version_info >= (3, 12) and bool(ins.arg & 1))
    _push_callable(frame, scan.attribute(frame, frame.pop(), ins.value), null=null)


def _load_super_attr(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    function, cls, receiver = frame.pops(3)
    proxy = scan.call(frame, function, Arguments((cls, receiver)))
    _push_callable(frame, scan.attribute(frame, proxy, ins.value), null=bool(ins.arg & 1))


def _replace(count: int, compute: Callable[..., Value]) -> Operation:
    """The operation that pops values, -1 for the instruction's argument, and pushes a result."""

    def operate(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
        values = frame.pops(ins.arg if count < 0 else count)
        frame.push(compute(scan, frame, *values))

    return operate


def _derive(_: Calls, __: AbstractFrame, *values: Value) -> Value:
    return derived(*values)


def _slice(_: Calls, __: AbstractFrame, *parts: Value) -> Value:
    return Value(deps=dependencies(*parts), const=slice(None))


def _load_slice(scan: Calls, frame: AbstractFrame, on: Value, low: Value, high: Value) -> Value:
    return scan.item(frame, on, _slice(scan, frame, low, high))


def _store_item(scan: Calls, frame: AbstractFrame, _: Instruction) -> None:
    value, on, key = frame.pops(3)
    scan.store_item(frame, on, key, value)


def _store_slice(scan: Calls, frame: AbstractFrame, _: Instruction) -> None:
    value, on, low, high = frame.pops(4)
    scan.store_item(frame, on, _slice(scan, frame, low, high), value)


def _compare(_: Calls, frame: AbstractFrame, left: Value, right: Value) -> Value:
    ours, theirs = dependencies(left), dependencies(right)
    deps = ours | theirs
    for one, other in ((ours, theirs), (theirs, ours)):
        # `if x > best: best = x`: what is tested and then set races like `best += x`.
        if any(getattr(dep, "is_item", True) for dep in other):
            deps |= {(dep, "compared") for dep in one if type(dep) is Outer and not dep.is_item}
    if left.origins or right.origins:
        return frame.fresh("compared", deps=deps)  # comparing arrays makes an array
    return Value(deps=deps)


def _binary_op(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    left, right = frame.pops(2)
    if ins.text.startswith("["):
        frame.push(scan.item(frame, left, right))
    else:
        frame.push(scan.binary(frame, ins.text, left, right))


def _operator_310(symbol: str) -> Operation:
    return _replace(2, lambda scan, frame, *pair: scan.binary(frame, symbol, *pair))


def _build_sequence(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    made = frame.site("tuple" if ins.op == "BUILD_TUPLE" else "")
    for k, value in enumerate(frame.pops(ins.arg)):
        if value.origins or value.deps or value.const is not NO_ATTRIBUTE:
            frame.store(made, ANY_ELEMENT if ins.op == "BUILD_SET" else ("item", k), value)
    frame.push(exactly(made))


def _build_map(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    if ins.op == "BUILD_CONST_KEY_MAP":
        keys = [Value(const=key) for key in frame.pop().const]
        values = frame.pops(ins.arg)
    else:
        pairs = frame.pops(2 * ins.arg)
        keys, values = pairs[::2], pairs[1::2]
    made = frame.site("")
    for key, value in zip(keys, values, strict=True):
        frame.store(made, key.step(), value)
    frame.push(exactly(made))


def _append(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    value = frame.pops(2 if ins.op == "MAP_ADD" else 1)[-1]
    for origin in frame.peek(ins.arg).origins:
        if type(origin) is Fresh:
            frame.store(origin, ANY_ELEMENT, value)


def _extend(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    value = frame.pop()
    for origin in frame.peek(ins.arg).origins:
        if type(origin) is not Fresh:
            continue
        copied = False
        for source in value.origins:
            if type(source) is Fresh and ins.op.startswith("DICT"):
                source.read = copied = True
                for step, field in list(source.fields.items()):
                    frame.store(origin, step, field)
        if not copied:
            frame.store(origin, ANY_ELEMENT, value.element())


def _unpack(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    value = frame.pop()
    starred = ins.op == "UNPACK_EX"
    before, after = (ins.arg & 0xFF, ins.arg >> 8) if starred else (ins.arg, 0)
    parts = [
        scan.item(frame, value, Value(const=key)) for key in (*range(before), *range(-after, 0))
    ]
    if starred:
        parts.insert(before, frame.fresh("rest", ANY_ELEMENT, value.element()))
    frame.stack.extend(reversed(parts))


def _push_match(frame: AbstractFrame, content: Value) -> None:
    frame.push(frame.fresh("matched", ANY_ELEMENT, content))
    if sys.version_info < (3, 11):
        frame.push(PLAIN_VALUE)  # whether it matched


def _match_class(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    subject, _, names = frame.pops(3)
    attributes = names.const if type(names.const) is tuple else ()
    found = join_all(scan.attribute(frame, subject, name) for name in attributes)
    if ins.arg:  # by position: only the class knows which attributes these are
        for origin in subject.origins:
            if type(origin) is Outer:
                found |= exactly(origin.child("deep"))
            elif type(origin) is Fresh:
                found = join_all((found, *origin.fields.values()))
    _push_match(frame, found)


# One entry for the opcodes that do the same.
VALUE_OPERATIONS: Final[dict[str, Operation]] = {
    # Stack.
    "PRECALL": lambda _, __, ___: None,  # `dis.stack_effect` of 3.11 counts the call here
    "DUP_TOP DUP_TOP_TWO": _duplicate,
    "ROT_TWO ROT_THREE ROT_FOUR ROT_N": _rotate,
    "COPY": lambda _, frame, ins: frame.push(frame.peek(ins.arg)),
    "SWAP": _swap,
    "LOAD_BUILD_CLASS": lambda _, frame, __: frame.push(CLASS_VALUE),
    "LOAD_CONST LOAD_CONST_IMMORTAL": lambda _, f, ins: f.push(Value(const=ins.value)),
    "LOAD_SMALL_INT": lambda _, frame, ins: frame.push(Value(const=ins.arg)),
    # Local variables, and those shared with inner or outer functions.
    "LOAD_FAST LOAD_FAST_CHECK LOAD_FAST_BORROW LOAD_CLOSURE": _load_fast,
    "LOAD_FAST_AND_CLEAR": _load_fast_and_clear,
    "LOAD_FAST_LOAD_FAST LOAD_FAST_BORROW_LOAD_FAST_BORROW": _move_two,
    "STORE_FAST_LOAD_FAST STORE_FAST_STORE_FAST": _move_two,
    "STORE_FAST STORE_FAST_MAYBENULL STORE_NAME": lambda _, f, ins: f.assign(ins.value, f.pop()),
    "DELETE_FAST DELETE_NAME": lambda _, frame, ins: frame.assign(ins.value, PLAIN_VALUE),
    "LOAD_DEREF LOAD_CLASSDEREF": _load_deref,
    "LOAD_FROM_DICT_OR_DEREF": _pop_before(_load_deref),
    "STORE_DEREF": lambda scan, frame, ins: scan.store_deref(frame, ins.value, frame.pop()),
    "DELETE_DEREF": lambda scan, frame, ins: scan.store_deref(frame, ins.value, None),
    # Global variables and attributes.
    "LOAD_GLOBAL": _load_global,
    "LOAD_NAME": _load_name,
    "LOAD_FROM_DICT_OR_GLOBALS": _pop_before(
        lambda scan, frame, ins: frame.push(scan.load_global(frame, ins.value))
    ),
    "STORE_GLOBAL": lambda scan, frame, ins: scan.store_global(frame, ins.value, frame.pop()),
    "DELETE_GLOBAL": lambda scan, frame, ins: scan.store_global(frame, ins.value, None),
    "LOAD_ATTR LOAD_METHOD": _load_attr,
    "LOAD_SUPER_ATTR": _load_super_attr,
    "STORE_ATTR": lambda scan, f, ins: scan.store_attribute(f, f.pop(), ins.value, f.pop()),
    "DELETE_ATTR": lambda scan, f, ins: scan.store_attribute(f, f.pop(), ins.value, None),
    # Items and operators.
    "BINARY_SUBSCR": _replace(2, Calls.item),
    "STORE_SUBSCR": _store_item,
    "DELETE_SUBSCR": lambda scan, frame, _: scan.store_item(frame, *frame.pops(2), None),
    "BUILD_SLICE": _replace(-1, _slice),
    "BINARY_SLICE": _replace(3, _load_slice),
    "STORE_SLICE": _store_slice,
    "UNARY_POSITIVE UNARY_NEGATIVE UNARY_NOT UNARY_INVERT": _replace(1, _derive),
    "TO_BOOL FORMAT_SIMPLE CONVERT_VALUE": _replace(1, _derive),
    "FORMAT_WITH_SPEC IS_OP": _replace(2, _derive),
    "FORMAT_VALUE": lambda _, f, ins: f.push(derived(*f.pops(2 if ins.arg & 4 else 1))),
    "BUILD_STRING": _replace(-1, _derive),
    "COMPARE_OP": _replace(2, _compare),
    "CONTAINS_OP": _replace(2, Calls.contains),
    "BINARY_OP": _binary_op,
    **{f"BINARY_{name}": _operator_310(symbol) for name, symbol in _OPERATORS_310.items()},
    **{f"INPLACE_{name}": _operator_310(symbol + "=") for name, symbol in _OPERATORS_310.items()},
    "GET_ITER": _replace(1, Calls.iterate),
    # Containers and patterns.
    "BUILD_TUPLE BUILD_LIST BUILD_SET": _build_sequence,
    "BUILD_MAP BUILD_CONST_KEY_MAP": _build_map,
    "LIST_APPEND SET_ADD MAP_ADD": _append,
    "LIST_EXTEND SET_UPDATE DICT_UPDATE DICT_MERGE": _extend,
    "UNPACK_SEQUENCE UNPACK_EX": _unpack,
    "MATCH_KEYS": lambda _, frame, __: _push_match(frame, frame.peek(2).element()),
    "MATCH_CLASS": _match_class,
}
