"""Follows the values of one code object through its bytecode, on CPython 3.10 to 3.14.

A `Frame` interprets the instructions over abstract values until nothing changes, joining what
different branches say. What an operation on a value *means* (is this store evidence? what does this
call do?) is asked of the `Semantics` that drives it; this file knows only the stack machine.

Guarantees: terminates (values only grow, passes are bounded, every instruction is charged to the
semantics' budget). An unknown opcode moves the stack as `dis.stack_effect` says, with plain values.
Assumes: the code came from the CPython compiler, so that stacks at a join have one depth.
"""

from __future__ import annotations

import dis
import heapq
import sys
import types
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from parallax._provenance import (
    CLASS_VALUE,
    ELEM,
    EMPTY,
    MISSING,
    PLAIN,
    Cell,
    Fresh,
    Func,
    Outer,
    Value,
    dependencies,
    inner,
    join,
)

__all__ = ["Frame", "Semantics", "decode"]

_CLOSURE_FLAGS: Final = (1, 2, 4, 8)  # defaults, keyword defaults, annotations, closure
_DEFAULTS, _KWDEFAULTS = 1, 2
_ABSOLUTE_NEXT: Final = sys.version_info >= (3, 12)
_JUMPS: Final = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_ENDS: Final = frozenset(
    {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"}
)
_GOTO: Final = frozenset(
    {
        "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP",
        "JUMP_NO_INTERRUPT",
    }
)  # fmt: skip
# Deeper regions than this many handlers are rare; each costs one more pass over the handler.
_MAX_PASSES: Final = 3


class Instruction(NamedTuple):
    """One instruction, with the handler its exceptions go to as (index, stack depth, pushes)."""

    op: str
    code: int
    arg: int
    value: Any
    offset: int
    target: int
    text: str
    handler: tuple[int, int, int] | None


class Decoded(NamedTuple):
    """A code object ready for interpretation."""

    code: types.CodeType
    instructions: tuple[Instruction, ...]
    merges: frozenset[int]


_decoded: dict[int, Decoded] = {}


def _exception_table(code: types.CodeType) -> list[tuple[int, int, int, int, bool]]:
    """Entries (start, end, target, depth, lasti) as CPython's exception_handling_notes.txt says."""
    data = iter(getattr(code, "co_exceptiontable", b""))
    entries = []

    def number(first: int) -> int:
        result = first & 63
        while first & 64:
            first = next(data)
            result = result << 6 | first & 63
        return result

    for byte in data:
        start = number(byte) * 2
        length = number(next(data)) * 2
        target = number(next(data)) * 2
        depth = number(next(data))
        entries.append((start, start + length, target, depth >> 1, bool(depth & 1)))
    return entries


def decode(code: types.CodeType) -> Decoded:
    """The instructions of a code object, remembered."""
    known = _decoded.get(id(code))
    if known is not None and known.code is code:
        return known
    raw = list(dis.get_instructions(code))
    position = {ins.offset: i for i, ins in enumerate(raw)}
    merges: set[int] = set()
    handlers: list[tuple[int, int, int] | None] = [None] * len(raw)
    # Inner entries come before the outer ones that surround them only in start order, and they
    # never overlap, so a plain loop is enough.
    for start, end, target, depth, lasti in _exception_table(code):
        goal = position[target]
        merges.add(goal)
        for i, ins in enumerate(raw):
            if start <= ins.offset < end:
                handlers[i] = (goal, depth, 2 if lasti else 1)
    instructions = []
    for i, ins in enumerate(raw):
        target = -1
        if ins.opcode in _JUMPS:
            target = position[ins.argval]
            merges.add(target)
        text = ins.argrepr if ins.opname == "BINARY_OP" else ""
        # `dis` of 3.11 does not know that this one names a constant.
        value = code.co_consts[ins.arg or 0] if ins.opname == "KW_NAMES" else ins.argval
        instructions.append(
            Instruction(
                ins.opname, ins.opcode, ins.arg or 0, value, ins.offset, target, text,
                handlers[i],
            )
        )  # fmt: skip
    result = Decoded(code, tuple(instructions), frozenset(merges))
    if len(_decoded) > 1024:
        _decoded.clear()
    _decoded[id(code)] = result
    return result


def line_of(code: types.CodeType, offset: int) -> int:
    """The source line of an instruction."""
    best = code.co_firstlineno
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            best = line
    return best


class Semantics(Protocol):
    """What operations mean; see `_calls.Scan`, which is the one implementation."""

    stale: int

    def spend(self, frame: Frame) -> None:
        """Charge one pass over an instruction; raises when the budget is used up."""

    def load_global(self, frame: Frame, name: str) -> Value:
        """A global or builtin name."""

    def store_global(self, frame: Frame, name: str, value: Value | None) -> None:
        """An assignment to a global name, or its deletion where `value` is None."""

    def load_outer(self, node: Outer) -> Value:
        """A variable of an enclosing function that is outside the call."""

    def store_cell(self, frame: Frame, name: str, cell: Cell, value: Value | None) -> None:
        """An assignment to a variable of an enclosing function that is outside the call."""

    def attribute(self, frame: Frame, value: Value, name: str) -> Value:
        """`value.name`."""

    def store_attribute(self, frame: Frame, on: Value, name: str, value: Value | None) -> None:
        """`on.name = value`, or `del on.name`."""

    def item(self, frame: Frame, value: Value, key: Value) -> Value:
        """`value[key]`."""

    def store_item(self, frame: Frame, on: Value, key: Value, value: Value | None) -> None:
        """`on[key] = value`, or `del on[key]`."""

    def binary(self, frame: Frame, symbol: str, left: Value, right: Value) -> Value:
        """`left + right`, or `left += right` where the symbol ends in `=`."""

    def contains(self, frame: Frame, needle: Value, holder: Value) -> Value:
        """`needle in holder`."""

    def iterate(self, frame: Frame, value: Value) -> Value:
        """`iter(value)`."""

    def enter(self, frame: Frame, value: Value) -> Value:
        """The value that `with value as ...` binds."""

    def call(
        self, frame: Frame, target: Value, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        """A call; `star` holds arguments whose number is not known."""

    def import_name(self, frame: Frame, name: str) -> Value:
        """`import name`."""


class _State:
    """Stack, local variables and (3.10) block stack before one instruction."""

    __slots__ = ("blocks", "names", "stack")

    def __init__(
        self, stack: list[Value], names: dict[str, Value], blocks: tuple[tuple[int, int], ...]
    ) -> None:
        self.stack = stack
        self.names = names
        self.blocks = blocks


_NULL: Final = Value(EMPTY, EMPTY)


class Frame:
    """One function under analysis, with what its parameters are bound to."""

    def __init__(
        self,
        semantics: Semantics,
        code: types.CodeType,
        ns: Outer,
        names: dict[str, Value],
        cells: dict[str, Cell],
        caller: tuple[Frame, int] | None,
        label: str | None = None,
    ) -> None:
        self.semantics = semantics
        self.code = code
        self.ns = ns
        self.callers = [] if caller is None else [caller]
        self.depth = 0 if caller is None else caller[0].depth + 1
        self.label = label or getattr(code, "co_qualname", code.co_name)
        self.cells = dict(cells)
        self.start = names
        self.first = code.co_varnames[0] if code.co_argcount else None
        for name in code.co_cellvars:
            cell = self.cells[name] = Cell()
            if name in names:
                cell.put(names[name])
        self.sites: dict[Any, Fresh | Func] = {}
        self.branches: dict[int, frozenset[Any]] = {}
        self.reads: dict[int, frozenset[Any]] = {}
        self.returns = PLAIN
        self.yields = PLAIN
        self.at = 0
        self.decoded = decode(code)
        self._states: dict[int, _State] = {}
        self._work: list[int] = []
        self._names: tuple[str, ...] = ()
        self.stack: list[Value] = []
        self.names: dict[str, Value] = {}
        self.blocks: tuple[tuple[int, int], ...] = ()
        self.on = True
        self.locked: list[tuple[int, int]] = []  # ranges of instructions that run under a lock
        self._edges: dict[int, tuple[int, ...]] | None = None
        self._reach: dict[tuple[int, int], frozenset[int]] = {}

    # -------------------------------------------------------- the loop

    def run(self) -> Value:
        """Interpret until nothing changes; the value that a call gives back."""
        for _ in range(_MAX_PASSES):
            before = self.semantics.stale
            self._states.clear()
            self._flow(0, [], dict(self.start), ())
            while self._work:
                self._run_from(heapq.heappop(self._work))
            if self.semantics.stale == before:
                break
        self._states.clear()
        if self.code.co_flags & 0x20:  # CO_GENERATOR
            return Value(frozenset((self.site("generator", ELEM, self.yields),)), EMPTY)
        return self.returns

    def _run_from(self, i: int) -> None:
        state = self._states[i]
        self.stack = list(state.stack)
        self.names = dict(state.names)
        self.blocks = state.blocks
        instructions, merges = self.decoded.instructions, self.decoded.merges
        semantics = self.semantics
        handlers = _HANDLERS
        raised: Any = None
        seen: Any = None
        while True:
            ins = instructions[i]
            self.at = i
            self.on = True
            semantics.spend(self)
            if ins.handler is not None and (raised != ins.handler or seen is not self.names):
                # Any instruction of the region may raise, with the variables as they are now.
                raised = ins.handler
                seen = self.names
                goal, depth, pushed = ins.handler
                self._flow(goal, self.stack[:depth] + [PLAIN] * pushed, self.names, ())
            elif self.blocks and (seen is not self.names or raised is not self.blocks):
                seen, raised = self.names, self.blocks
                goal, depth = self.blocks[-1]
                self._flow(goal, self.stack[:depth] + [PLAIN] * 6, self.names, self.blocks[:-1])
            handler = handlers.get(ins.op)
            if handler is not None:
                handler(self, ins)
            else:
                self._unknown(ins)
            if not self.on:
                return
            i += 1
            if i >= len(instructions):
                return
            if i in merges:
                self._flow(i, self.stack, self.names, self.blocks)
                return

    def _flow(
        self,
        goal: int,
        stack: list[Value],
        names: dict[str, Value],
        blocks: tuple[tuple[int, int], ...],
    ) -> None:
        old = self._states.get(goal)
        if old is None:
            self._states[goal] = _State(list(stack), dict(names), blocks)
            heapq.heappush(self._work, goal)
            return
        changed = False
        known = old.stack
        for k in range(min(len(known), len(stack))):
            merged = join(known[k], stack[k])
            if merged is not known[k]:
                known[k] = merged
                changed = True
        for name, value in names.items():
            have = old.names.get(name)
            merged = value if have is None else join(have, value)
            if merged is not have:
                old.names[name] = merged
                changed = True
        if changed and goal not in self._work:
            heapq.heappush(self._work, goal)

    def jump(self, ins: Instruction) -> None:
        """The other way out of a branch, with the stack as it is now."""
        self._flow(ins.target, self.stack, self.names, self.blocks)

    # -------------------------------------------------------- helpers of the handlers

    def push(self, value: Value) -> None:
        """Push a value."""
        self.stack.append(value)

    def pop(self) -> Value:
        """Pop a value; an empty stack gives a plain one, as code of an unknown version might."""
        return self.stack.pop() if self.stack else PLAIN

    def pops(self, count: int) -> list[Value]:
        """Pop several values, the deepest first."""
        if not count:
            return []
        taken = self.stack[-count:]
        del self.stack[-count:]
        return [PLAIN] * (count - len(taken)) + taken

    def assign(self, name: str, value: Value) -> None:
        """Bind a local variable. The dict is replaced, so that handlers see each version once."""
        if self.names.get(name) is not value:
            self.names = {**self.names, name: value}

    def site(self, tag: Any, step: Any = None, value: Value = PLAIN, cls: Any = None) -> Fresh:
        """The object made by the current instruction."""
        key = (self.at, tag)
        fresh = self.sites.get(key)
        if type(fresh) is not Fresh:
            fresh = self.sites[key] = Fresh(cls)
        if step is not None and (value.origins or value.deps):
            self.store(fresh, step, value)
        return fresh

    def fresh(
        self, tag: Any = "", step: Any = None, value: Value = PLAIN, deps: Any = EMPTY
    ) -> Value:
        """A value for the object made by the current instruction."""
        return Value(frozenset((self.site(tag, step, value),)), deps)

    def store(self, fresh: Fresh, step: Any, value: Value) -> None:
        """Put a value into an object made in the call."""
        if fresh.put(step, value):
            self.semantics.stale += 1

    def branch(self, deps: frozenset[Any]) -> None:
        """Note what the branch at the current instruction depends on."""
        self.branches[self.at] = self.branches.get(self.at, EMPTY) | deps

    def load_cell(self, name: str) -> Value:
        """The value of a variable shared with inner or outer functions."""
        cell = self.cells.get(name)
        if cell is None:
            return self.names.get(name, PLAIN)
        if cell.outer is not None:
            return self.semantics.load_outer(cell.outer)
        cell.read = True
        return cell.value

    def store_deref(self, name: str, value: Value | None) -> None:
        """Assign a variable shared with inner or outer functions."""
        cell = self.cells.get(name)
        if cell is None:
            self.assign(name, value or PLAIN)
        elif cell.outer is not None:
            self.semantics.store_cell(self, name, cell, value)
        elif value is not None and cell.put(value):
            self.semantics.stale += 1

    def _unknown(self, ins: Instruction) -> None:
        has_arg = ins.code >= dis.HAVE_ARGUMENT
        arg = ins.arg if has_arg else None
        if ins.target >= 0:
            kept = list(self.stack)
            self._shift(dis.stack_effect(ins.code, arg, jump=True))
            self.jump(ins)
            self.stack = kept
        self._shift(dis.stack_effect(ins.code, arg, jump=False))

    def _shift(self, effect: int) -> None:
        if effect >= 0:
            self.stack.extend([PLAIN] * effect)
        else:
            del self.stack[effect:]

    # -------------------------------------------------------- the shape of the code

    def note_lock(self) -> None:
        """The current instruction enters a lock: its `with` body runs one thread at a time."""
        instructions = self.decoded.instructions
        here = instructions[self.at]
        last = here.target
        if last < 0 and self.at + 1 < len(instructions):
            handler = instructions[self.at + 1].handler
            same = (i for i, ins in enumerate(instructions) if handler and ins.handler == handler)
            last = max(same, default=self.at)
        if (self.at, last) not in self.locked:
            self.locked.append((self.at, last))

    def edges(self) -> dict[int, tuple[int, ...]]:
        """Where control may go after each instruction; exceptions are left out."""
        if self._edges is None:
            self._edges = {}
            last = len(self.decoded.instructions) - 1
            for i, ins in enumerate(self.decoded.instructions):
                follow: list[int] = []
                if ins.op not in _ENDS and ins.op not in _GOTO and i < last:
                    follow.append(i + 1)
                if ins.target >= 0 and not ins.op.startswith("SETUP_"):
                    follow.append(ins.target)
                self._edges[i] = tuple(follow)
        return self._edges

    def controls(self, branch: int, at: int) -> bool:
        """Whether the branch decides if `at` is reached: from one of its ways, not from another."""
        ways = self.edges()[branch]
        if branch == at or len(ways) < 2:
            return False
        return len({at in self._reachable(way, branch) for way in ways}) > 1

    def reaches(self, start: int, at: int) -> bool:
        """Whether control can get from one instruction to another without an exception."""
        return at in self._reachable(start, -1)

    def handlers(self) -> frozenset[int]:
        """Where exceptions of this code are handled."""
        instructions = self.decoded.instructions
        table = {ins.handler[0] for ins in instructions if ins.handler}
        return frozenset(table | {i.target for i in instructions if i.op == "SETUP_FINALLY"})

    def protected(self, goal: int) -> list[int]:
        """The instructions whose exceptions go to this handler."""
        instructions = self.decoded.instructions
        found = [i for i, ins in enumerate(instructions) if ins.handler and ins.handler[0] == goal]
        for i, ins in enumerate(instructions):
            if ins.op == "SETUP_FINALLY" and ins.target == goal:
                found += range(i + 1, goal)
        return found

    def _reachable(self, start: int, without: int) -> frozenset[int]:
        known = self._reach.get((start, without))
        if known is None:
            seen: set[int] = set()
            todo = [start]
            edges = self.edges()
            while todo:
                i = todo.pop()
                if i in seen or i == without:
                    continue
                seen.add(i)
                todo.extend(edges[i])
            known = self._reach[start, without] = frozenset(seen)
        return known


# ---------------------------------------------------------------- one handler for each opcode

_Handler = Callable[[Frame, Instruction], None]
_HANDLERS: dict[str, _Handler] = {}


def _op(*names: str) -> Callable[[_Handler], _Handler]:
    def note(handler: _Handler) -> _Handler:
        for name in names:
            _HANDLERS[name] = handler
        return handler

    return note


def _derive(*values: Value) -> Value:
    deps = dependencies(*values)
    return Value(EMPTY, deps) if deps else PLAIN


@_op(
    "NOP", "RESUME", "CACHE", "PRECALL", "EXTENDED_ARG", "COPY_FREE_VARS", "MAKE_CELL", "NOT_TAKEN",
    "SETUP_ANNOTATIONS", "GET_YIELD_FROM_ITER", "GET_AWAITABLE", "POP_EXCEPT_NONE",
)  # fmt: skip
def _nothing(f: Frame, ins: Instruction) -> None:
    pass


@_op("POP_TOP", "GEN_START", "PRINT_EXPR", "POP_ITER", "END_FOR_ONE")
def _pop_top(f: Frame, ins: Instruction) -> None:
    f.pop()


@_op("END_FOR")
def _end_for(f: Frame, ins: Instruction) -> None:
    f.pops(2 if sys.version_info < (3, 13) else 1)


@_op("END_SEND")
def _end_send(f: Frame, ins: Instruction) -> None:
    result = f.pop()
    f.pop()
    f.push(result)


@_op("PUSH_NULL", "RETURN_GENERATOR")
def _push_null(f: Frame, ins: Instruction) -> None:
    f.push(_NULL)


@_op("DUP_TOP", "DUP_TOP_TWO")
def _dup(f: Frame, ins: Instruction) -> None:
    f.stack.extend(f.stack[-1:] if ins.op == "DUP_TOP" else f.stack[-2:])


@_op("ROT_TWO", "ROT_THREE", "ROT_FOUR", "ROT_N")
def _rotate(f: Frame, ins: Instruction) -> None:
    count = {"ROT_TWO": 2, "ROT_THREE": 3, "ROT_FOUR": 4}.get(ins.op, ins.arg)
    if len(f.stack) >= count > 0:
        f.stack.insert(len(f.stack) - count, f.stack.pop())


@_op("COPY")
def _copy(f: Frame, ins: Instruction) -> None:
    f.push(f.stack[-ins.arg] if len(f.stack) >= ins.arg else PLAIN)


@_op("SWAP")
def _swap(f: Frame, ins: Instruction) -> None:
    if len(f.stack) >= ins.arg:
        f.stack[-1], f.stack[-ins.arg] = f.stack[-ins.arg], f.stack[-1]


@_op("LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL")
def _load_const(f: Frame, ins: Instruction) -> None:
    value = ins.arg if ins.op == "LOAD_SMALL_INT" else ins.value
    f.push(Value(EMPTY, EMPTY, value))


@_op("LOAD_COMMON_CONSTANT", "LOAD_ASSERTION_ERROR", "LOAD_LOCALS")
def _load_plain(f: Frame, ins: Instruction) -> None:
    f.push(PLAIN)


@_op("LOAD_BUILD_CLASS")
def _load_build_class(f: Frame, ins: Instruction) -> None:
    f.push(CLASS_VALUE)


# ---- variables

@_op("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_CLOSURE")
def _load_fast(f: Frame, ins: Instruction) -> None:
    f.push(f.names.get(ins.value, PLAIN))


@_op("LOAD_FAST_AND_CLEAR")
def _load_fast_and_clear(f: Frame, ins: Instruction) -> None:
    f.push(f.names.get(ins.value, PLAIN))
    f.assign(ins.value, PLAIN)


@_op("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")
def _load_two(f: Frame, ins: Instruction) -> None:
    for name in ins.value:
        f.push(f.names.get(name, PLAIN))


@_op("STORE_FAST", "STORE_FAST_MAYBE_NULL")
def _store_fast(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, f.pop())


@_op("STORE_FAST_LOAD_FAST")
def _store_load(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value[0], f.pop())
    f.push(f.names.get(ins.value[1], PLAIN))


@_op("STORE_FAST_STORE_FAST")
def _store_two(f: Frame, ins: Instruction) -> None:
    for name in ins.value:
        f.assign(name, f.pop())


@_op("DELETE_FAST")
def _delete_fast(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, PLAIN)


@_op("LOAD_DEREF", "LOAD_CLASSDEREF")
def _load_deref(f: Frame, ins: Instruction) -> None:
    f.push(f.load_cell(ins.value))


@_op("LOAD_FROM_DICT_OR_DEREF")
def _load_dict_or_deref(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.push(f.load_cell(ins.value))


@_op("STORE_DEREF")
def _store_deref(f: Frame, ins: Instruction) -> None:
    f.store_deref(ins.value, f.pop())


@_op("DELETE_DEREF")
def _delete_deref(f: Frame, ins: Instruction) -> None:
    f.store_deref(ins.value, None)


@_op("LOAD_GLOBAL")
def _load_global(f: Frame, ins: Instruction) -> None:
    value = f.semantics.load_global(f, ins.value)
    null = sys.version_info >= (3, 11) and ins.arg & 1
    if null and sys.version_info < (3, 13):
        f.push(_NULL)
    f.push(value)
    if null and sys.version_info >= (3, 13):
        f.push(_NULL)


@_op("LOAD_NAME")
def _load_name(f: Frame, ins: Instruction) -> None:
    local = f.names.get(ins.value)
    f.push(f.semantics.load_global(f, ins.value) if local is None else local)


@_op("LOAD_FROM_DICT_OR_GLOBALS")
def _load_dict_or_global(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.push(f.semantics.load_global(f, ins.value))


@_op("STORE_GLOBAL")
def _store_global(f: Frame, ins: Instruction) -> None:
    f.semantics.store_global(f, ins.value, f.pop())


@_op("DELETE_GLOBAL")
def _delete_global(f: Frame, ins: Instruction) -> None:
    f.semantics.store_global(f, ins.value, None)


@_op("STORE_NAME")
def _store_name(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, f.pop())


@_op("DELETE_NAME")
def _delete_name(f: Frame, ins: Instruction) -> None:
    f.assign(ins.value, PLAIN)


# ---- attributes and items

@_op("LOAD_ATTR", "LOAD_METHOD")
def _load_attr(f: Frame, ins: Instruction) -> None:
    value = f.semantics.attribute(f, f.pop(), ins.value)
    null = ins.op == "LOAD_METHOD" or (sys.version_info >= (3, 12) and ins.arg & 1)
    if null and sys.version_info < (3, 13):
        f.push(_NULL)
    f.push(value)
    if null and sys.version_info >= (3, 13):
        f.push(_NULL)


@_op("LOAD_SUPER_ATTR")
def _load_super_attr(f: Frame, ins: Instruction) -> None:
    function, cls, receiver = f.pops(3)
    proxy = f.semantics.call(f, function, [cls, receiver], {}, None)
    value = f.semantics.attribute(f, proxy, ins.value)
    if ins.arg & 1 and sys.version_info < (3, 13):
        f.push(_NULL)
    f.push(value)
    if ins.arg & 1 and sys.version_info >= (3, 13):
        f.push(_NULL)


@_op("STORE_ATTR")
def _store_attr(f: Frame, ins: Instruction) -> None:
    on = f.pop()
    f.semantics.store_attribute(f, on, ins.value, f.pop())


@_op("DELETE_ATTR")
def _delete_attr(f: Frame, ins: Instruction) -> None:
    f.semantics.store_attribute(f, f.pop(), ins.value, None)


@_op("BINARY_SUBSCR")
def _binary_subscr(f: Frame, ins: Instruction) -> None:
    on, key = f.pops(2)
    f.push(f.semantics.item(f, on, key))


@_op("STORE_SUBSCR")
def _store_subscr(f: Frame, ins: Instruction) -> None:
    value, on, key = f.pops(3)
    f.semantics.store_item(f, on, key, value)


@_op("DELETE_SUBSCR")
def _delete_subscr(f: Frame, ins: Instruction) -> None:
    on, key = f.pops(2)
    f.semantics.store_item(f, on, key, None)


@_op("BUILD_SLICE")
def _build_slice(f: Frame, ins: Instruction) -> None:
    f.push(Value(EMPTY, dependencies(*f.pops(ins.arg)), slice(None)))


@_op("BINARY_SLICE")
def _binary_slice(f: Frame, ins: Instruction) -> None:
    on, low, high = f.pops(3)
    f.push(f.semantics.item(f, on, Value(EMPTY, dependencies(low, high), slice(None))))


@_op("STORE_SLICE")
def _store_slice(f: Frame, ins: Instruction) -> None:
    value, on, low, high = f.pops(4)
    key = Value(EMPTY, dependencies(low, high), slice(None))
    f.semantics.store_item(f, on, key, value)


# ---- operators

@_op(
    "UNARY_POSITIVE", "UNARY_NEGATIVE", "UNARY_NOT", "UNARY_INVERT", "TO_BOOL", "FORMAT_SIMPLE",
    "CONVERT_VALUE",
)  # fmt: skip
def _unary(f: Frame, ins: Instruction) -> None:
    f.push(_derive(f.pop()))


@_op("FORMAT_WITH_SPEC", "IS_OP", "BUILD_INTERPOLATION")
def _two_to_one(f: Frame, ins: Instruction) -> None:
    f.push(_derive(*f.pops(2)))


@_op("FORMAT_VALUE")
def _format_value(f: Frame, ins: Instruction) -> None:
    f.push(_derive(*f.pops(2 if ins.arg & 4 else 1)))


@_op("BUILD_STRING")
def _build_string(f: Frame, ins: Instruction) -> None:
    f.push(_derive(*f.pops(ins.arg)))


@_op("COMPARE_OP")
def _compare(f: Frame, ins: Instruction) -> None:
    left, right = f.pops(2)
    ours, theirs = dependencies(left), dependencies(right)
    deps = ours | theirs
    for one, other in ((ours, theirs), (theirs, ours)):
        # `if x > best: best = x`: what is tested and then set races like `best += x`.
        if any(getattr(dep, "is_item", True) for dep in other):
            deps |= {(dep, "compared") for dep in one if type(dep) is Outer and not dep.is_item}
    f.push(Value(EMPTY, deps))


@_op("CONTAINS_OP")
def _contains(f: Frame, ins: Instruction) -> None:
    needle, holder = f.pops(2)
    f.push(f.semantics.contains(f, needle, holder))


@_op("BINARY_OP")
def _binary_op(f: Frame, ins: Instruction) -> None:
    left, right = f.pops(2)
    if ins.text.startswith("["):
        f.push(f.semantics.item(f, left, right))
    else:
        f.push(f.semantics.binary(f, ins.text, left, right))


_OLD_OPERATORS: Final = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//",
    "MODULO": "%", "POWER": "**", "LSHIFT": "<<", "RSHIFT": ">>", "AND": "&", "OR": "|",
    "XOR": "^", "MATRIX_MULTIPLY": "@",
}  # fmt: skip


@_op(*(f"{kind}_{name}" for name in _OLD_OPERATORS for kind in ("BINARY", "INPLACE")))
def _old_binary(f: Frame, ins: Instruction) -> None:
    left, right = f.pops(2)
    kind, _, name = ins.op.partition("_")
    symbol = _OLD_OPERATORS[name] + ("=" if kind == "INPLACE" else "")
    f.push(f.semantics.binary(f, symbol, left, right))


# ---- building

@_op("BUILD_TUPLE", "BUILD_LIST", "BUILD_SET")
def _build(f: Frame, ins: Instruction) -> None:
    values = f.pops(ins.arg)
    fresh = f.site("")
    keyed = ins.op != "BUILD_SET"
    for k, value in enumerate(values):
        if value.origins or value.deps or value.const is not MISSING:
            f.store(fresh, ("item", k) if keyed else ELEM, value)
    f.push(Value(frozenset((fresh,)), EMPTY))


@_op("BUILD_MAP")
def _build_map(f: Frame, ins: Instruction) -> None:
    values = f.pops(2 * ins.arg)
    fresh = f.site("")
    for k in range(0, len(values), 2):
        f.store(fresh, _step_for(values[k]), values[k + 1])
    f.push(Value(frozenset((fresh,)), EMPTY))


@_op("BUILD_CONST_KEY_MAP")
def _build_const_map(f: Frame, ins: Instruction) -> None:
    keys = f.pop().const
    fresh = f.site("")
    for key, value in zip(keys, f.pops(ins.arg), strict=False):
        f.store(fresh, ("item", key), value)
    f.push(Value(frozenset((fresh,)), EMPTY))


def _step_for(key: Value) -> tuple[str, Any]:
    """The field of a container that a key selects."""
    if key.const is MISSING or type(key.const) not in (str, int, bool, bytes, type(None)):
        return ELEM
    return ("item", key.const)


step_for = _step_for


@_op("LIST_APPEND", "SET_ADD")
def _append(f: Frame, ins: Instruction) -> None:
    value = f.pop()
    _fill(f, ins.arg, value)


@_op("MAP_ADD")
def _map_add(f: Frame, ins: Instruction) -> None:
    _, value = f.pops(2)
    _fill(f, ins.arg, value)


@_op("LIST_EXTEND", "SET_UPDATE", "DICT_UPDATE", "DICT_MERGE")
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


@_op("UNPACK_SEQUENCE", "UNPACK_EX")
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


@_op("LIST_TO_TUPLE", "CALL_INTRINSIC_1")
def _same(f: Frame, ins: Instruction) -> None:
    pass


@_op("CALL_INTRINSIC_2")
def _intrinsic_two(f: Frame, ins: Instruction) -> None:
    f.pops(2)
    f.push(PLAIN)


# ---- control

@_op("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP")
def _jump(f: Frame, ins: Instruction) -> None:
    f.jump(ins)
    f.on = False


@_op(
    *(
        f"POP_JUMP{way}_IF_{test}"
        for way in ("", "_FORWARD", "_BACKWARD")
        for test in ("TRUE", "FALSE", "NONE", "NOT_NONE")
    )
)
def _pop_jump(f: Frame, ins: Instruction) -> None:
    f.branch(dependencies(f.pop()))
    f.jump(ins)


@_op("JUMP_IF_TRUE_OR_POP", "JUMP_IF_FALSE_OR_POP")
def _jump_or_pop(f: Frame, ins: Instruction) -> None:
    f.branch(dependencies(*f.stack[-1:]))
    f.jump(ins)
    f.pop()


@_op("JUMP_IF_NOT_EXC_MATCH")
def _jump_exc(f: Frame, ins: Instruction) -> None:
    f.pops(2)
    f.jump(ins)


@_op("CHECK_EXC_MATCH")
def _check_exc(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.push(PLAIN)


@_op("GET_ITER")
def _get_iter(f: Frame, ins: Instruction) -> None:
    f.push(f.semantics.iterate(f, f.pop()))


@_op("FOR_ITER")
def _for_iter(f: Frame, ins: Instruction) -> None:
    source = f.stack[-1] if f.stack else PLAIN
    element = inner(source)
    f.branch(dependencies(source, element))
    kept = list(f.stack)
    if _ABSOLUTE_NEXT:
        f.push(PLAIN)  # END_FOR at the goal takes it off
    else:
        f.pop()
    f.jump(ins)
    f.stack = [*kept, element]


@_op("SEND")
def _send(f: Frame, ins: Instruction) -> None:
    f.pop()
    source = f.stack[-1] if f.stack else PLAIN
    kept = list(f.stack)
    if not _ABSOLUTE_NEXT:
        f.pop()
    f.push(source)
    f.jump(ins)
    f.stack = [*kept, inner(source)]


@_op("YIELD_VALUE")
def _yield(f: Frame, ins: Instruction) -> None:
    f.yields = join(f.yields, f.pop())
    f.push(PLAIN)


@_op("YIELD_FROM")
def _yield_from(f: Frame, ins: Instruction) -> None:
    f.pop()
    f.yields = join(f.yields, inner(f.pop()))
    f.push(PLAIN)


@_op("RETURN_VALUE")
def _return(f: Frame, ins: Instruction) -> None:
    f.returns = join(f.returns, f.pop())
    f.on = False


@_op("RETURN_CONST", "RERAISE", "RAISE_VARARGS", "INTERPRETER_EXIT")
def _leave(f: Frame, ins: Instruction) -> None:
    f.on = False


@_op("SETUP_FINALLY")
def _setup_finally(f: Frame, ins: Instruction) -> None:
    f.blocks = (*f.blocks, (ins.target, len(f.stack)))


@_op("SETUP_WITH", "SETUP_ASYNC_WITH")
def _setup_with(f: Frame, ins: Instruction) -> None:
    manager = f.pop()
    f.push(PLAIN)
    f.blocks = (*f.blocks, (ins.target, len(f.stack)))
    f.push(f.semantics.enter(f, manager))


@_op("POP_BLOCK")
def _pop_block(f: Frame, ins: Instruction) -> None:
    f.blocks = f.blocks[:-1]


@_op("BEFORE_WITH", "BEFORE_ASYNC_WITH")
def _before_with(f: Frame, ins: Instruction) -> None:
    manager = f.pop()
    f.push(PLAIN)
    f.push(f.semantics.enter(f, manager))


@_op("LOAD_SPECIAL")
def _load_special(f: Frame, ins: Instruction) -> None:
    # 3.14 calls `__enter__` (0, 2) through CALL; the value it gives is bound by pretending that
    # the method is the manager itself, marked by its name.
    owner = f.pop()
    name = "__enter__" if ins.arg in (0, 2) else "__exit__"
    f.push(f.semantics.attribute(f, owner, name))
    f.push(_NULL)


@_op("PUSH_EXC_INFO")
def _push_exc_info(f: Frame, ins: Instruction) -> None:
    f.push(PLAIN)


@_op("WITH_EXCEPT_START")
def _with_except_start(f: Frame, ins: Instruction) -> None:
    f.push(PLAIN)


# ---- functions and calls

@_op("MAKE_FUNCTION")
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


@_op("SET_FUNCTION_ATTRIBUTE")
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
                func.defaults = tuple(
                    origin.fields.get(("item", k), PLAIN) for k in range(count)
                )
    elif flag == _KWDEFAULTS:
        for origin in value.origins:
            if type(origin) is Fresh:
                func.kwdefaults = {
                    name: field for (kind, name), field in origin.fields.items() if kind == "item"
                }


def _call(f: Frame, args: list[Value], names: dict[str, Value]) -> None:
    first, second = f.pops(2)
    if first is _NULL:
        target = second
    elif second is _NULL:
        target = first
    else:
        target, args = first, [second, *args]
    f.push(f.semantics.call(f, target, args, names, None))


@_op("KW_NAMES")
def _kw_names(f: Frame, ins: Instruction) -> None:
    f._names = ins.value


@_op("CALL")
def _call_op(f: Frame, ins: Instruction) -> None:
    keywords, f._names = f._names, ()
    values = f.pops(ins.arg)
    _call_split(f, values, keywords)


def _call_split(f: Frame, values: list[Value], keywords: tuple[str, ...]) -> None:
    count = len(values) - len(keywords)
    _call(f, values[:count], dict(zip(keywords, values[count:], strict=True)))


@_op("CALL_KW")
def _call_kw(f: Frame, ins: Instruction) -> None:
    keywords = f.pop().const
    _call_split(f, f.pops(ins.arg), keywords)


@_op("CALL_FUNCTION")
def _call_function(f: Frame, ins: Instruction) -> None:
    args = f.pops(ins.arg)
    f.push(f.semantics.call(f, f.pop(), args, {}, None))


@_op("CALL_FUNCTION_KW")
def _call_function_kw(f: Frame, ins: Instruction) -> None:
    keywords = f.pop().const
    values = f.pops(ins.arg)
    count = len(values) - len(keywords)
    names = dict(zip(keywords, values[count:], strict=True))
    f.push(f.semantics.call(f, f.pop(), values[:count], names, None))


@_op("CALL_METHOD")
def _call_method(f: Frame, ins: Instruction) -> None:
    _call(f, f.pops(ins.arg), {})


@_op("CALL_FUNCTION_EX")
def _call_ex(f: Frame, ins: Instruction) -> None:
    if sys.version_info >= (3, 14):
        keywords = f.pop()  # always there, NULL where there are none
    else:
        keywords = f.pop() if ins.arg & 1 else _NULL
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
    if keywords is not _NULL:
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


# ---- imports

@_op("IMPORT_NAME")
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


@_op("IMPORT_FROM")
def _import_from(f: Frame, ins: Instruction) -> None:
    f.push(f.semantics.attribute(f, f.stack[-1] if f.stack else PLAIN, ins.value))
