"""The abstract interpreter's loop: runs one code object over abstract values.

An `AbstractFrame` interprets the instructions until no value changes, and joins the values of
branches that meet. A table of operations says what each opcode does (`opcodes.py`).

Guarantees: terminates (values only grow, passes are bounded, every instruction is charged to the
budget). An opcode that is not in the table moves the stack as `dis.stack_effect` says, with plain
values. Assumes: stacks that meet have one depth, as the compiler makes them.
"""

from __future__ import annotations

import dis
import heapq

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.code import decode
from parallax._guard.values import ANY_ELEMENT, EMPTY, PLAIN_VALUE, Cell, Fresh, Value, exactly

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    from parallax._guard.code import Instruction
    from parallax._guard.values import Func

# Passes over one function. Smaller: values that are stored after they are read may be missed;
# larger: functions with closures and containers take longer.
_MAX_PASSES: Final = 3
# What the protected region of 3.10 may push for its handler.
_HANDLER_PUSHES_310: Final = 6
_CO_GENERATOR: Final = 0x20
# Protected regions of 3.10 that surround an instruction: the handler and its stack depth.
Blocks: TypeAlias = "tuple[tuple[int, int], ...]"
NULL: Final = Value()


class TooBig(Exception):  # noqa: N818 - a signal inside the guard, not an error that users see
    """The program's own code that the callable reaches is too big to be analysed."""


class Budget:
    """The steps that a scan may still take, and the count of values that changed after a read."""

    __slots__ = ("stale", "steps")

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.stale = 0

    def spend(self, steps: int = 1) -> None:
        """Charge an instruction, or an operation that costs as much as several."""
        self.steps -= steps
        if self.steps < 0:
            raise TooBig


class AbstractFrame:
    """One function under analysis, with the values of its parameters."""

    def __init__(
        self,
        budget: Budget,
        func: Func,
        names: dict[str, Value],
        caller: tuple[AbstractFrame, int] | None,
    ) -> None:
        self.budget = budget
        self.func = func
        self.code = decode(func.code)
        self.callers = [] if caller is None else [caller]
        self.depth: int = 0 if caller is None else caller[0].depth + 1
        self.cells = dict(func.cells)
        self.start = names
        for name in func.code.co_cellvars:
            cell = self.cells[name] = Cell()
            if name in names:
                cell.put(names[name])
        # What the analysis finds: objects made, conditions of branches, reads, locked ranges of
        # instructions, results.
        self.sites: dict[Any, Fresh | Func] = {}
        self.branches: dict[int, frozenset[Any]] = {}
        self.reads: dict[int, frozenset[Any]] = {}
        self.locked: list[tuple[int, int]] = []
        self.returns = PLAIN_VALUE
        self.yields = PLAIN_VALUE
        # Where the interpreter is.
        self.at = 0
        self.keywords: tuple[str, ...] = ()
        self.stack: list[Value] = []
        self.names: dict[str, Value] = {}
        self.blocks: Blocks = ()
        # Stack, local variables and (3.10) block stack before an instruction.
        self._states: dict[int, tuple[list[Value], dict[str, Value], Blocks]] = {}
        self._work: list[int] = []

    def run(self, scan: Any, operations: dict[str, Operation]) -> Value:
        """Interpret until no value changes; the value that a call of the function returns."""
        for _ in range(_MAX_PASSES):
            before = self.budget.stale
            self._states.clear()
            self._flow(0, [], dict(self.start), ())
            while self._work:
                self._run_from(heapq.heappop(self._work), scan, operations)
            if self.budget.stale == before:
                break
        self._states.clear()
        if self.func.code.co_flags & _CO_GENERATOR:
            return exactly(self.site("generator", ANY_ELEMENT, self.yields))
        return self.returns

    def _run_from(self, i: int, scan: Any, operations: dict[str, Operation]) -> None:
        stack, names, self.blocks = self._states[i]
        self.stack = list(stack)
        self.names = dict(names)
        code, merges = self.code, self.code.merges
        raised: Any = None
        seen: Any = None
        while True:
            ins = code.instructions[i]
            self.at = i
            self.budget.spend()
            if ins.handler is not None and (raised != ins.handler or seen is not self.names):
                # Any instruction of the region may raise, with the variables as they are now.
                seen, raised = self.names, ins.handler
                goal, depth, pushed = ins.handler
                self._flow(goal, self.stack[:depth] + [PLAIN_VALUE] * pushed, self.names, ())
            elif self.blocks and (seen is not self.names or raised is not self.blocks):
                seen, raised = self.names, self.blocks
                goal, depth = self.blocks[-1]
                stack = self.stack[:depth] + [PLAIN_VALUE] * _HANDLER_PUSHES_310
                self._flow(goal, stack, self.names, self.blocks[:-1])
            operations.get(ins.op, _move_stack)(scan, self, ins)
            if not code.falls_through(i):
                return
            i += 1
            if i in merges:
                self._flow(i, self.stack, self.names, self.blocks)
                return

    def _flow(self, goal: int, stack: list[Value], names: dict[str, Value], blocks: Blocks) -> None:
        """Join the state of one way to an instruction; queue the instruction if that changed."""
        known = self._states.get(goal)
        if known is None:
            self._states[goal] = (list(stack), dict(names), blocks)
            heapq.heappush(self._work, goal)
            return
        known_stack, known_names, _ = known
        changed = False
        for k in range(min(len(known_stack), len(stack))):
            merged = known_stack[k] | stack[k]
            changed |= merged is not known_stack[k]
            known_stack[k] = merged
        for name, value in names.items():
            merged = known_names[name] | value if name in known_names else value
            changed |= merged is not known_names.get(name)
            known_names[name] = merged
        if changed and goal not in self._work:
            heapq.heappush(self._work, goal)

    def jump(self, ins: Instruction) -> None:
        """Continue at the target of a jump, too, with the stack as it is now."""
        self._flow(ins.target, self.stack, self.names, self.blocks)

    def push(self, value: Value) -> None:
        """Push a value."""
        self.stack.append(value)

    def pop(self) -> Value:
        """Pop a value: a plain one from an empty stack, as unknown bytecode may leave it."""
        return self.stack.pop() if self.stack else PLAIN_VALUE

    def peek(self, depth: int = 1) -> Value:
        """The value at a depth of the stack, counted from 1."""
        return self.stack[-depth] if len(self.stack) >= depth else PLAIN_VALUE

    def pops(self, count: int) -> list[Value]:
        """Pop several values, the deepest first."""
        if not count:
            return []
        taken = self.stack[-count:]
        del self.stack[-count:]
        return [PLAIN_VALUE] * (count - len(taken)) + taken

    def assign(self, name: str, value: Value) -> None:
        """Bind a local variable in a new dict, so that `_run_from` sees each version once."""
        if self.names.get(name) is not value:
            self.names = {**self.names, name: value}

    def site(
        self, tag: Any, step: Any = None, value: Value = PLAIN_VALUE, cls: Any = None
    ) -> Fresh:
        """The object made by the current instruction."""
        key = (self.at, tag)
        fresh = self.sites.get(key)
        if type(fresh) is not Fresh:
            fresh = self.sites[key] = Fresh(cls, tag)
        if step is not None and (value.origins or value.deps):
            self.store(fresh, step, value)
        return fresh

    def fresh(
        self, tag: Any = "", step: Any = None, value: Value = PLAIN_VALUE, deps: Any = EMPTY
    ) -> Value:
        """The object made by the current instruction, as a value."""
        return exactly(self.site(tag, step, value)).with_deps(deps)

    def store(self, fresh: Fresh, step: Any, value: Value) -> None:
        """Put a value into an object made in the call."""
        if fresh.put(step, value):
            self.budget.stale += 1

    def branch(self, deps: frozenset[Any]) -> None:
        """Note what the branch at the current instruction depends on."""
        self.branches[self.at] = self.branches.get(self.at, EMPTY) | deps

    def load_cell(self, name: str) -> Value:
        """The value of a variable shared with inner or outer functions."""
        cell = self.cells.get(name)
        if cell is None:
            return self.names.get(name, PLAIN_VALUE)
        if cell.outer is not None:
            cell.outer.loaded = True
            return cell.outer.value()
        cell.read = True
        return cell.value

    def note_lock(self) -> None:
        """The current instruction enters a lock: its `with` body runs in one thread at a time."""
        instructions = self.code.instructions
        last = instructions[self.at].target
        if last < 0 and self.at + 1 < len(instructions):
            handler = instructions[self.at + 1].handler
            same = (i for i, ins in enumerate(instructions) if handler and ins.handler == handler)
            last = max(same, default=self.at)
        if (self.at, last) not in self.locked:
            self.locked.append((self.at, last))


# What an opcode does: the first argument is the analysis that runs the frame.
Operation: TypeAlias = "Callable[[Any, AbstractFrame, Instruction], None]"


def _move_stack(_: Any, frame: AbstractFrame, ins: Instruction) -> None:
    """The operation of opcodes without one of their own: values moved by it become plain."""
    arg = ins.arg if ins.code >= dis.HAVE_ARGUMENT else None
    stack = list(frame.stack)
    try:
        if ins.target >= 0:
            _shift(frame.stack, dis.stack_effect(ins.code, arg, jump=True))
            frame.jump(ins)
            frame.stack = stack
        _shift(frame.stack, dis.stack_effect(ins.code, arg, jump=False))
    except ValueError:
        pass  # `dis` does not know the opcode either


def _shift(stack: list[Value], effect: int) -> None:
    if effect < 0:
        del stack[effect:]
    stack.extend([PLAIN_VALUE] * effect)
