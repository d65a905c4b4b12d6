"""Follows the values of one code object through its bytecode.

A `Frame` interprets the instructions over abstract values until nothing changes, joining what
different branches say. What an operation on a value *means* (is this store evidence? what does this
call do?) is asked of the `Semantics` that drives it; what it does to the stack stands in `ops_data`
and `ops_flow`.

Guarantees: terminates (values only grow, passes are bounded, every instruction is charged to the
semantics' budget). An unknown opcode moves the stack as `dis.stack_effect` says, with plain values.
Assumes: stacks that meet have one depth, as the compiler makes them.
"""

from __future__ import annotations

import dis
import heapq
import types
from collections.abc import Callable
from typing import Any, Final, Protocol

from parallax._guard.code import Instruction, decode
from parallax._guard.values import ELEM, EMPTY, PLAIN, Cell, Fresh, Func, Outer, Value, join

__all__ = ["NULL", "OPERATIONS", "Frame", "Operation", "Semantics", "operation"]

# Deeper regions than this many handlers are rare; each costs one more pass over the handler.
_MAX_PASSES: Final = 3
NULL: Final = Value(EMPTY, EMPTY)


class Semantics(Protocol):
    """What operations mean; see `_calls.Scan`, which is the one implementation."""

    stale: int

    def spend(self, steps: int = 1) -> None:
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

    def import_name(self, _: Frame, name: str) -> Value:
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
        self.code = decode(code)
        self.ns = ns
        self.callers = [] if caller is None else [caller]
        self.depth: int = 0 if caller is None else caller[0].depth + 1
        self.label: str = label or str(getattr(code, "co_qualname", code.co_name))
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
        self._states: dict[int, _State] = {}
        self._work: list[int] = []
        self.keywords: tuple[str, ...] = ()
        self.stack: list[Value] = []
        self.names: dict[str, Value] = {}
        self.blocks: tuple[tuple[int, int], ...] = ()
        self.on = True
        self.locked: list[tuple[int, int]] = []  # ranges of instructions that run under a lock

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
        if self.code.raw.co_flags & 0x20:  # CO_GENERATOR
            return Value(frozenset((self.site("generator", ELEM, self.yields),)), EMPTY)
        return self.returns

    def _run_from(self, i: int) -> None:
        state = self._states[i]
        self.stack = list(state.stack)
        self.names = dict(state.names)
        self.blocks = state.blocks
        instructions, merges = self.code.instructions, self.code.merges
        semantics = self.semantics
        handlers = OPERATIONS
        raised: Any = None
        seen: Any = None
        while True:
            ins = instructions[i]
            self.at = i
            self.on = True
            semantics.spend()
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
            fresh = self.sites[key] = Fresh(cls, tag)
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
        arg = ins.arg if ins.code >= dis.HAVE_ARGUMENT else None
        try:
            if ins.target >= 0:
                kept = list(self.stack)
                self._shift(dis.stack_effect(ins.code, arg, jump=True))
                self.jump(ins)
                self.stack = kept
            self._shift(dis.stack_effect(ins.code, arg, jump=False))
        except ValueError:
            pass  # an opcode that `dis` does not know either

    def _shift(self, effect: int) -> None:
        if effect >= 0:
            self.stack.extend([PLAIN] * effect)
        else:
            del self.stack[effect:]

    # -------------------------------------------------------- the shape of the code

    def note_lock(self) -> None:
        """The current instruction enters a lock: its `with` body runs one thread at a time."""
        instructions = self.code.instructions
        here = instructions[self.at]
        last = here.target
        if last < 0 and self.at + 1 < len(instructions):
            handler = instructions[self.at + 1].handler
            same = (i for i, ins in enumerate(instructions) if handler and ins.handler == handler)
            last = max(same, default=self.at)
        if (self.at, last) not in self.locked:
            self.locked.append((self.at, last))


Operation = Callable[[Frame, Instruction], None]
OPERATIONS: Final[dict[str, Operation]] = {}


def operation(*names: str) -> Callable[[Operation], Operation]:
    """Make a function the meaning of these opcodes."""

    def note(handler: Operation) -> Operation:
        for name in names:
            OPERATIONS[name] = handler
        return handler

    return note
