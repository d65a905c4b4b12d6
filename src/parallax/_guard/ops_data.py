"""The opcodes that move, make and combine values: stack, variables, attributes, operators.

One function for each group of opcodes, of every version from 3.10 to 3.14; a name that a version
does not have is never met there.
"""

from __future__ import annotations

import sys
from typing import Final

from parallax._guard.code import Instruction
from parallax._guard.frame import NULL, Frame, operation
from parallax._guard.lookup import MISSING
from parallax._guard.values import (
    CLASS_VALUE,
    ELEM,
    EMPTY,
    PLAIN,
    Fresh,
    Outer,
    Value,
    dependencies,
    inner,
    join,
    step_for,
)

__all__ = ["derived"]


def derived(*values: Value) -> Value:
    """A plain value that was computed from others."""
    deps = dependencies(*values)
    return Value(EMPTY, deps) if deps else PLAIN


_OLD_OPERATORS: Final = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//",
    "MODULO": "%", "POWER": "**", "LSHIFT": "<<", "RSHIFT": ">>", "AND": "&", "OR": "|",
    "XOR": "^", "MATRIX_MULTIPLY": "@",
}  # fmt: skip


@operation(
    "NOP", "RESUME", "CACHE", "PRECALL", "EXTENDED_ARG", "COPY_FREE_VARS", "MAKE_CELL", "NOT_TAKEN",
    "SETUP_ANNOTATIONS", "GET_YIELD_FROM_ITER", "GET_AWAITABLE", "POP_EXCEPT_NONE",
)  # fmt: skip
def _nothing(f: Frame, ins: Instruction) -> None:
    pass


@operation("POP_TOP", "GEN_START", "PRINT_EXPR", "POP_ITER", "END_FOR_ONE")
def _pop_top(f: Frame, ins: Instruction) -> None:
    f.pop()


@operation("DUP_TOP", "DUP_TOP_TWO")
def _dup(f: Frame, ins: Instruction) -> None:
    f.stack.extend(f.stack[-1:] if ins.op == "DUP_TOP" else f.stack[-2:])


@operation("ROT_TWO", "ROT_THREE", "ROT_FOUR", "ROT_N")
def _rotate(f: Frame, ins: Instruction) -> None:
    count = {"ROT_TWO": 2, "ROT_THREE": 3, "ROT_FOUR": 4}.get(ins.op, ins.arg)
    if len(f.stack) >= count > 0:
        f.stack.insert(len(f.stack) - count, f.stack.pop())


@operation("COPY")
def _copy(f: Frame, ins: Instruction) -> None:
    f.push(f.stack[-ins.arg] if len(f.stack) >= ins.arg else PLAIN)


@operation("SWAP")
def _swap(f: Frame, ins: Instruction) -> None:
    if len(f.stack) >= ins.arg:
        f.stack[-1], f.stack[-ins.arg] = f.stack[-ins.arg], f.stack[-1]


@operation("LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL")
def _load_const(f: Frame, ins: Instruction) -> None:
    value = ins.arg if ins.op == "LOAD_SMALL_INT" else ins.value
    f.push(Value(EMPTY, EMPTY, value))


@operation("LOAD_COMMON_CONSTANT", "LOAD_ASSERTION_ERROR", "LOAD_LOCALS")
def _load_plain(f: Frame, ins: Instruction) -> None:
    f.push(PLAIN)


@operation("LOAD_BUILD_CLASS")
def _load_build_class(f: Frame, ins: Instruction) -> None:
    f.push(CLASS_VALUE)


@operation("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_CLOSURE")
def _load_fast(f: Frame, ins: Instruction) -> None:
    f.push(f.names.get(ins.value, PLAIN))


@operation("LOAD_FAST_AND_CLEAR")
def _load_fast_and_clear(f: Frame, ins: Instruction) -> None:
    f.push(f.names.get(ins.value, PLAIN))
    f.assign(ins.value, PLAIN)


@operation("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")
def _load_two(f: Frame, ins: Instruction) -> None:
    for name in ins.value:
        f.push(f.names.get(name, PLAIN))


@operation("STORE_FAST", "STORE_FAST_MAYBENULL")
def _store_fast(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, f.pop())


@operation("STORE_FAST_LOAD_FAST")
def _store_load(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value[0], f.pop())
    f.push(f.names.get(ins.value[1], PLAIN))


@operation("STORE_FAST_STORE_FAST")
def _store_two(f: Frame, ins: Instruction) -> None:
    for name in ins.value:
        f.assign(name, f.pop())


@operation("DELETE_FAST")
def _delete_fast(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, PLAIN)


@operation("LOAD_DEREF", "LOAD_CLASSDEREF")
def _load_deref(f: Frame, ins: Instruction) -> None:
    f.push(f.load_cell(ins.value))


@operation("LOAD_FROM_DICT_OR_DEREF")
def _load_dict_or_deref(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.push(f.load_cell(ins.value))


@operation("STORE_DEREF")
def _store_deref(f: Frame, ins: Instruction) -> None:
    f.store_deref(ins.value, f.pop())


@operation("DELETE_DEREF")
def _delete_deref(f: Frame, ins: Instruction) -> None:
    f.store_deref(ins.value, None)


@operation("LOAD_GLOBAL")
def _load_global(f: Frame, ins: Instruction) -> None:
    value = f.semantics.load_global(f, ins.value)
    null = sys.version_info >= (3, 11) and ins.arg & 1
    if null and sys.version_info < (3, 13):
        f.push(NULL)
    f.push(value)
    if null and sys.version_info >= (3, 13):
        f.push(NULL)


@operation("LOAD_NAME")
def _load_name(f: Frame, ins: Instruction) -> None:
    local = f.names.get(ins.value)
    f.push(f.semantics.load_global(f, ins.value) if local is None else local)


@operation("LOAD_FROM_DICT_OR_GLOBALS")
def _load_dict_or_global(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.push(f.semantics.load_global(f, ins.value))


@operation("STORE_GLOBAL")
def _store_global(f: Frame, ins: Instruction) -> None:
    f.semantics.store_global(f, ins.value, f.pop())


@operation("DELETE_GLOBAL")
def _delete_global(f: Frame, ins: Instruction) -> None:
    f.semantics.store_global(f, ins.value, None)


@operation("STORE_NAME")
def _store_name(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, f.pop())


@operation("DELETE_NAME")
def _delete_name(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, PLAIN)


@operation("LOAD_ATTR", "LOAD_METHOD")
def _load_attr(f: Frame, ins: Instruction) -> None:
    value = f.semantics.attribute(f, f.pop(), ins.value)
    null = ins.op == "LOAD_METHOD" or (sys.version_info >= (3, 12) and ins.arg & 1)
    if null and sys.version_info < (3, 13):
        f.push(NULL)
    f.push(value)
    if null and sys.version_info >= (3, 13):
        f.push(NULL)


@operation("LOAD_SUPER_ATTR")
def _load_super_attr(f: Frame, ins: Instruction) -> None:
    function, cls, receiver = f.pops(3)
    proxy = f.semantics.call(f, function, [cls, receiver], {}, None)
    value = f.semantics.attribute(f, proxy, ins.value)
    if ins.arg & 1 and sys.version_info < (3, 13):
        f.push(NULL)
    f.push(value)
    if ins.arg & 1 and sys.version_info >= (3, 13):
        f.push(NULL)


@operation("STORE_ATTR")
def _store_attr(f: Frame, ins: Instruction) -> None:
    on = f.pop()
    f.semantics.store_attribute(f, on, ins.value, f.pop())


@operation("DELETE_ATTR")
def _delete_attr(f: Frame, ins: Instruction) -> None:
    f.semantics.store_attribute(f, f.pop(), ins.value, None)


@operation("BINARY_SUBSCR")
def _binary_subscr(f: Frame, ins: Instruction) -> None:
    on, key = f.pops(2)
    f.push(f.semantics.item(f, on, key))


@operation("STORE_SUBSCR")
def _store_subscr(f: Frame, ins: Instruction) -> None:
    value, on, key = f.pops(3)
    f.semantics.store_item(f, on, key, value)


@operation("DELETE_SUBSCR")
def _delete_subscr(f: Frame, ins: Instruction) -> None:
    on, key = f.pops(2)
    f.semantics.store_item(f, on, key, None)


@operation("BUILD_SLICE")
def _build_slice(f: Frame, ins: Instruction) -> None:
    f.push(Value(EMPTY, dependencies(*f.pops(ins.arg)), slice(None)))


@operation("BINARY_SLICE")
def _binary_slice(f: Frame, ins: Instruction) -> None:
    on, low, high = f.pops(3)
    f.push(f.semantics.item(f, on, Value(EMPTY, dependencies(low, high), slice(None))))


@operation("STORE_SLICE")
def _store_slice(f: Frame, ins: Instruction) -> None:
    value, on, low, high = f.pops(4)
    key = Value(EMPTY, dependencies(low, high), slice(None))
    f.semantics.store_item(f, on, key, value)


@operation(
    "UNARY_POSITIVE", "UNARY_NEGATIVE", "UNARY_NOT", "UNARY_INVERT", "TO_BOOL", "FORMAT_SIMPLE",
    "CONVERT_VALUE",
)  # fmt: skip
def _unary(f: Frame, ins: Instruction) -> None:
    f.push(derived(f.pop()))


@operation("FORMAT_WITH_SPEC", "IS_OP")
def _two_to_one(f: Frame, ins: Instruction) -> None:
    f.push(derived(*f.pops(2)))


@operation("FORMAT_VALUE")
def _format_value(f: Frame, ins: Instruction) -> None:
    f.push(derived(*f.pops(2 if ins.arg & 4 else 1)))


@operation("BUILD_STRING")
def _build_string(f: Frame, ins: Instruction) -> None:
    f.push(derived(*f.pops(ins.arg)))


@operation("COMPARE_OP")
def _compare(f: Frame, ins: Instruction) -> None:
    left, right = f.pops(2)
    ours, theirs = dependencies(left), dependencies(right)
    deps = ours | theirs
    for one, other in ((ours, theirs), (theirs, ours)):
        # `if x > best: best = x`: what is tested and then set races like `best += x`.
        if any(getattr(dep, "is_item", True) for dep in other):
            deps |= {(dep, "compared") for dep in one if type(dep) is Outer and not dep.is_item}
    # Comparing arrays gives an array.
    f.push(f.fresh("compared", deps=deps) if left.origins or right.origins else Value(EMPTY, deps))


@operation("CONTAINS_OP")
def _contains(f: Frame, ins: Instruction) -> None:
    needle, holder = f.pops(2)
    f.push(f.semantics.contains(f, needle, holder))


@operation("BINARY_OP")
def _binary_op(f: Frame, ins: Instruction) -> None:
    left, right = f.pops(2)
    if ins.text.startswith("["):
        f.push(f.semantics.item(f, left, right))
    else:
        f.push(f.semantics.binary(f, ins.text, left, right))


@operation(*(f"{kind}_{name}" for name in _OLD_OPERATORS for kind in ("BINARY", "INPLACE")))
def _old_binary(f: Frame, ins: Instruction) -> None:
    left, right = f.pops(2)
    kind, _, name = ins.op.partition("_")
    symbol = _OLD_OPERATORS[name] + ("=" if kind == "INPLACE" else "")
    f.push(f.semantics.binary(f, symbol, left, right))


@operation("BUILD_TUPLE", "BUILD_LIST", "BUILD_SET")
def _build(f: Frame, ins: Instruction) -> None:
    values = f.pops(ins.arg)
    fresh = f.site("tuple" if ins.op == "BUILD_TUPLE" else "")
    keyed = ins.op != "BUILD_SET"
    for k, value in enumerate(values):
        if value.origins or value.deps or value.const is not MISSING:
            f.store(fresh, ("item", k) if keyed else ELEM, value)
    f.push(Value(frozenset((fresh,)), EMPTY))


@operation("BUILD_MAP")
def _build_map(f: Frame, ins: Instruction) -> None:
    values = f.pops(2 * ins.arg)
    fresh = f.site("")
    for k in range(0, len(values), 2):
        f.store(fresh, step_for(values[k]), values[k + 1])
    f.push(Value(frozenset((fresh,)), EMPTY))


@operation("BUILD_CONST_KEY_MAP")
def _build_const_map(f: Frame, ins: Instruction) -> None:
    keys = f.pop().const
    fresh = f.site("")
    for key, value in zip(keys, f.pops(ins.arg), strict=False):
        f.store(fresh, ("item", key), value)
    f.push(Value(frozenset((fresh,)), EMPTY))


@operation("LIST_APPEND", "SET_ADD")
def _append(f: Frame, ins: Instruction) -> None:
    value = f.pop()
    _fill(f, ins.arg, value)


@operation("MAP_ADD")
def _map_add(f: Frame, ins: Instruction) -> None:
    _, value = f.pops(2)
    _fill(f, ins.arg, value)


@operation("LIST_EXTEND", "SET_UPDATE", "DICT_UPDATE", "DICT_MERGE")
def _extend(f: Frame, ins: Instruction) -> None:
    value = f.pop()
    target = f.stack[-ins.arg] if len(f.stack) >= ins.arg else PLAIN
    for origin in target.origins:
        if type(origin) is not Fresh:
            continue
        copied = False
        for source in value.origins:
            if type(source) is Fresh and ins.op.startswith("DICT"):
                source.read = copied = True
                for step, field in list(source.fields.items()):
                    f.store(origin, step, field)
        if not copied:
            f.store(origin, ELEM, inner(value))


def _fill(f: Frame, depth: int, value: Value) -> None:
    target = f.stack[-depth] if len(f.stack) >= depth else PLAIN
    for origin in target.origins:
        if type(origin) is Fresh:
            f.store(origin, ELEM, value)


@operation("UNPACK_SEQUENCE", "UNPACK_EX")
def _unpack(f: Frame, ins: Instruction) -> None:
    value = f.pop()
    if ins.op == "UNPACK_SEQUENCE":
        keys: list[int | None] = list(range(ins.arg))
    else:
        before, after = ins.arg & 0xFF, ins.arg >> 8
        keys = [*range(before), None, *range(-after, 0)]
    parts = []
    for key in keys:
        if key is None:
            parts.append(f.fresh("rest", ELEM, inner(value)))
        else:
            parts.append(f.semantics.item(f, value, Value(EMPTY, EMPTY, key)))
    f.stack.extend(reversed(parts))


@operation("LIST_TO_TUPLE", "CALL_INTRINSIC_1")
def _same(f: Frame, ins: Instruction) -> None:
    pass


@operation("CALL_INTRINSIC_2")
def _intrinsic_two(f: Frame, ins: Instruction) -> None:
    f.pops(2)
    f.push(PLAIN)


@operation("MATCH_KEYS")
def _match_keys(f: Frame, ins: Instruction) -> None:
    subject = f.stack[-2] if len(f.stack) > 1 else PLAIN
    f.push(f.fresh("matched", ELEM, inner(subject)))
    if sys.version_info < (3, 11):
        f.push(PLAIN)  # whether it matched


@operation("MATCH_CLASS")
def _match_class(f: Frame, ins: Instruction) -> None:
    subject, _, names = f.pops(3)
    found = PLAIN
    for name in names.const or () if type(names.const) is tuple else ():
        found = join(found, f.semantics.attribute(f, subject, name))
    if ins.arg:  # by position: which attributes these are, only the class knows
        for origin in subject.origins:
            if type(origin) is Outer:
                found = join(found, Value(frozenset((origin.child("deep"),)), EMPTY))
            elif type(origin) is Fresh:
                for field in origin.fields.values():
                    found = join(found, field)
    f.push(f.fresh("matched", ELEM, found))
    if sys.version_info < (3, 11):
        f.push(PLAIN)
