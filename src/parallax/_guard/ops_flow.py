"""The opcodes that go elsewhere: jumps, loops, handlers, `with`, functions, calls, imports.

Calls of 3.11 and later have two places below the arguments, one of which may be NULL: before 3.13
NULL comes first, since then second. Either order is understood everywhere.
"""

from __future__ import annotations

import sys
import types
from typing import Final

from parallax._guard.code import Instruction
from parallax._guard.frame import NULL, Frame, operation
from parallax._guard.values import ELEM, EMPTY, PLAIN, Fresh, Func, Value, dependencies, inner, join

__all__: list[str] = []

_CLOSURE_FLAGS: Final = (1, 2, 4, 8)  # defaults, keyword defaults, annotations, closure

_DEFAULTS, _KWDEFAULTS = 1, 2


@operation("END_FOR")
def _end_for(f: Frame, ins: Instruction) -> None:
    f.pops(2 if sys.version_info < (3, 13) else 1)


@operation("END_SEND")
def _end_send(f: Frame, ins: Instruction) -> None:
    result = f.pop()
    f.pop()
    f.push(result)


@operation("PUSH_NULL", "RETURN_GENERATOR")
def _push_null(f: Frame, ins: Instruction) -> None:
    f.push(NULL)


@operation("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP")
def _jump(f: Frame, ins: Instruction) -> None:
    f.jump(ins)
    f.on = False


@operation(
    *(
        f"POP_JUMP{way}_IF_{test}"
        for way in ("", "_FORWARD", "_BACKWARD")
        for test in ("TRUE", "FALSE", "NONE", "NOT_NONE")
    )
)
def _pop_jump(f: Frame, ins: Instruction) -> None:
    f.branch(dependencies(f.pop()))
    f.jump(ins)


@operation("JUMP_IF_TRUE_OR_POP", "JUMP_IF_FALSE_OR_POP")
def _jump_or_pop(f: Frame, ins: Instruction) -> None:
    f.branch(dependencies(*f.stack[-1:]))
    f.jump(ins)
    f.pop()


@operation("JUMP_IF_NOT_EXC_MATCH")
def _jump_exc(f: Frame, ins: Instruction) -> None:
    f.pops(2)
    f.jump(ins)


@operation("CHECK_EXC_MATCH")
def _check_exc(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.push(PLAIN)


@operation("GET_ITER")
def _get_iter(f: Frame, ins: Instruction) -> None:
    f.push(f.semantics.iterate(f, f.pop()))


@operation("FOR_ITER")
def _for_iter(f: Frame, ins: Instruction) -> None:
    source = f.stack[-1] if f.stack else PLAIN
    element = inner(source)
    f.branch(dependencies(source, element))
    kept = list(f.stack)
    if sys.version_info >= (3, 12):
        f.push(PLAIN)  # END_FOR at the goal takes it off
    else:
        f.pop()
    f.jump(ins)
    f.stack = [*kept, element]


@operation("SEND")
def _send(f: Frame, ins: Instruction) -> None:
    f.pop()
    source = f.stack[-1] if f.stack else PLAIN
    kept = list(f.stack)
    if not sys.version_info >= (3, 12):
        f.pop()
    f.push(source)
    f.jump(ins)
    f.stack = [*kept, inner(source)]


@operation("YIELD_VALUE")
def _yield(f: Frame, ins: Instruction) -> None:
    f.yields = join(f.yields, f.pop())
    f.push(PLAIN)


@operation("YIELD_FROM")
def _yield_from(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.yields = join(f.yields, inner(f.pop()))
    f.push(PLAIN)


@operation("RETURN_VALUE")
def _return(f: Frame, ins: Instruction) -> None:
    f.returns = join(f.returns, f.pop())
    f.on = False


@operation("RETURN_CONST", "RERAISE", "RAISE_VARARGS", "INTERPRETER_EXIT")
def _leave(f: Frame, ins: Instruction) -> None:
    f.on = False


@operation("SETUP_FINALLY")
def _setup_finally(f: Frame, ins: Instruction) -> None:
    f.blocks = (*f.blocks, (ins.target, len(f.stack)))


@operation("SETUP_WITH", "SETUP_ASYNC_WITH")
def _setup_with(f: Frame, ins: Instruction) -> None:
    manager = f.pop()
    f.push(PLAIN)
    f.blocks = (*f.blocks, (ins.target, len(f.stack)))
    f.push(f.semantics.enter(f, manager))


@operation("POP_BLOCK")
def _pop_block(f: Frame, ins: Instruction) -> None:
    f.blocks = f.blocks[:-1]


@operation("BEFORE_WITH", "BEFORE_ASYNC_WITH")
def _before_with(f: Frame, ins: Instruction) -> None:
    manager = f.pop()
    f.push(PLAIN)
    f.push(f.semantics.enter(f, manager))


@operation("LOAD_SPECIAL")
def _load_special(f: Frame, ins: Instruction) -> None:
    # 3.14 calls `__enter__` (0, 2) through CALL; the value it gives is bound by pretending that
    # the method is the manager itself, marked by its name.
    owner = f.pop()
    name = "__enter__" if ins.arg in (0, 2) else "__exit__"
    f.push(f.semantics.attribute(f, owner, name))
    f.push(NULL)


@operation("PUSH_EXC_INFO")
def _push_exc_info(f: Frame, ins: Instruction) -> None:
    f.push(PLAIN)


@operation("WITH_EXCEPT_START")
def _with_except_start(f: Frame, ins: Instruction) -> None:
    f.push(PLAIN)


@operation("MAKE_FUNCTION")
def _make_function(f: Frame, ins: Instruction) -> None:
    if sys.version_info < (3, 11):
        f.pop()  # the qualified name
    code = f.pop().const
    extras: dict[int, Value] = {}
    if sys.version_info < (3, 13):
        for flag in reversed(_CLOSURE_FLAGS):
            if ins.arg & flag:
                extras[flag] = f.pop()
    if type(code) is not types.CodeType:
        f.push(PLAIN)
        return
    key = (f.at, "function")
    func = f.sites.get(key)
    if type(func) is not Func:
        cells = {name: f.cells[name] for name in code.co_freevars if name in f.cells}
        func = f.sites[key] = Func(code, f.ns, cells)
    for flag, value in extras.items():
        _set_extra(f, func, flag, value)
    f.push(Value(frozenset((func,)), EMPTY))


@operation("SET_FUNCTION_ATTRIBUTE")
def _set_function_attribute(f: Frame, ins: Instruction) -> None:
    function = f.pop()
    value = f.pop()
    for origin in function.origins:
        if type(origin) is Func:
            _set_extra(f, origin, ins.arg, value)
    f.push(function)


def _set_extra(f: Frame, func: Func, flag: int, value: Value) -> None:
    if flag == _DEFAULTS:
        if type(value.const) is tuple:
            func.defaults = tuple(Value(EMPTY, EMPTY, each) for each in value.const)
        for origin in value.origins:
            if type(origin) is Fresh:
                count = 1 + max((k for kind, k in origin.fields if kind == "item"), default=-1)
                func.defaults = tuple(origin.fields.get(("item", k), PLAIN) for k in range(count))
    elif flag == _KWDEFAULTS:
        for origin in value.origins:
            if type(origin) is Fresh:
                func.kwdefaults = {
                    name: field for (kind, name), field in origin.fields.items() if kind == "item"
                }


def _call(f: Frame, args: list[Value], names: dict[str, Value]) -> None:
    first, second = f.pops(2)
    if first is NULL:
        target = second
    elif second is NULL:
        target = first
    else:
        target, args = first, [second, *args]
    f.push(f.semantics.call(f, target, args, names, None))


@operation("KW_NAMES")
def _kw_names(f: Frame, ins: Instruction) -> None:
    f.keywords = ins.value


@operation("CALL")
def _call_op(f: Frame, ins: Instruction) -> None:
    keywords, f.keywords = f.keywords, ()
    values = f.pops(ins.arg)
    _call_split(f, values, keywords)


def _call_split(f: Frame, values: list[Value], keywords: tuple[str, ...]) -> None:
    count = len(values) - len(keywords)
    _call(f, values[:count], dict(zip(keywords, values[count:], strict=True)))


@operation("CALL_KW")
def _call_kw(f: Frame, ins: Instruction) -> None:
    keywords = f.pop().const
    _call_split(f, f.pops(ins.arg), keywords)


@operation("CALL_FUNCTION")
def _call_function(f: Frame, ins: Instruction) -> None:
    args = f.pops(ins.arg)
    f.push(f.semantics.call(f, f.pop(), args, {}, None))


@operation("CALL_FUNCTION_KW")
def _call_function_kw(f: Frame, ins: Instruction) -> None:
    keywords = f.pop().const
    values = f.pops(ins.arg)
    count = len(values) - len(keywords)
    names = dict(zip(keywords, values[count:], strict=True))
    f.push(f.semantics.call(f, f.pop(), values[:count], names, None))


@operation("CALL_METHOD")
def _call_method(f: Frame, ins: Instruction) -> None:
    _call(f, f.pops(ins.arg), {})


@operation("CALL_FUNCTION_EX")
def _call_ex(f: Frame, ins: Instruction) -> None:
    if sys.version_info >= (3, 14):
        keywords = f.pop()  # always there, NULL where there are none
    else:
        keywords = f.pop() if ins.arg & 1 else NULL
    args = f.pop()
    if sys.version_info >= (3, 13):
        f.pop()  # NULL
        target = f.pop()
    else:
        target = f.pop()
        if sys.version_info >= (3, 11):
            f.pop()
    positional: list[Value] = []
    names: dict[str, Value] = {}
    star: Value | None = None
    for origin in args.origins:
        if type(origin) is Fresh and len(args.origins) == 1 and ELEM not in origin.fields:
            origin.read = True
            known = [k for kind, k in origin.fields if kind == "item"]
            if sorted(known) == list(range(len(known))):
                positional = [origin.fields["item", k] for k in range(len(known))]
                continue
        star = inner(args)
    if keywords is not NULL:
        for origin in keywords.origins:
            if type(origin) is Fresh:
                origin.read = True
                names = {
                    k: v for (kind, k), v in origin.fields.items()
                    if kind == "item" and type(k) is str
                }  # fmt: skip
        if not names:
            star = inner(keywords) if star is None else join(star, inner(keywords))
    f.push(f.semantics.call(f, target, positional, names, star))


@operation("IMPORT_NAME")
def _import_name(f: Frame, ins: Instruction) -> None:
    fromlist = f.pop()
    level = f.pop()
    name = ins.value
    if level.const:
        package = f.ns.obj.get("__package__") or "" if type(f.ns.obj) is dict else ""
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - level.const + 1])
        name = f"{base}.{name}" if name else base
    elif not fromlist.const:
        name = name.partition(".")[0]  # `import a.b` binds `a`
    f.push(f.semantics.import_name(f, name))


@operation("IMPORT_FROM")
def _import_from(f: Frame, ins: Instruction) -> None:
    f.push(f.semantics.attribute(f, f.stack[-1] if f.stack else PLAIN, ins.value))
