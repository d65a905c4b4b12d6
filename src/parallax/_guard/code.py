"""Code objects, decoded once, and the shape of their control flow, on CPython 3.10 to 3.14.

Guarantees: what is remembered is bounded. Assumes: the code came from the CPython compiler.
"""

from __future__ import annotations

import dis
import functools

from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import types
    from collections.abc import Iterator
    from typing import Any, Final

_JUMPS: Final = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
# After these, control never goes on to the next instruction.
_NO_FALL_THROUGH: Final = frozenset({
    "RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT",
    "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP",
    "JUMP_NO_INTERRUPT",
})  # fmt: skip
# Smaller: large programs are decoded again and again; larger: more memory for decoded code.
_MAX_DECODED: Final = 1024


class Instruction(NamedTuple):
    """One instruction of a code object."""

    op: str
    code: int
    arg: int
    value: Any
    """The argument as `dis` resolves it: a name, a constant."""
    offset: int
    target: int
    """The index of the instruction that this one may jump to, or -1."""
    text: str
    """The symbol of a binary operator."""
    handler: tuple[int, int, int] | None
    """Where exceptions go: the handler's index, its stack depth, the values pushed on top."""


class Code:
    """A decoded code object and its control flow."""

    def __init__(
        self, raw: types.CodeType, instructions: tuple[Instruction, ...], merges: frozenset[int]
    ) -> None:
        self.raw = raw
        self.instructions = instructions
        self.merges = merges  # instructions that control reaches in several ways
        self._reach: dict[tuple[int, int], frozenset[int]] = {}

    @functools.cached_property
    def _successors(self) -> list[list[int]]:
        """Where control may go after each instruction; exceptions are left out."""
        found = []
        for i, ins in enumerate(self.instructions):
            found.append([i + 1] if self.falls_through(i) else [])
            if ins.target >= 0 and not ins.op.startswith("SETUP_"):
                found[i].append(ins.target)
        return found

    def falls_through(self, i: int) -> bool:
        """Whether control may go on to the next instruction."""
        following = i + 1 < len(self.instructions)
        return following and self.instructions[i].op not in _NO_FALL_THROUGH

    def controls(self, branch: int, at: int) -> bool:
        """Whether `at` is reached from one successor of the branch, and not from the other."""
        successors = self._successors[branch]
        if branch == at or len(successors) < 2:
            return False
        return len({at in self._reachable(start, branch) for start in successors}) > 1

    def reaches(self, start: int, at: int) -> bool:
        """Whether control can get from one instruction to another without an exception."""
        return at in self._reachable(start, -1)

    def protected_by_handlers(self, at: int) -> set[int]:
        """The instructions whose exceptions go to a handler that leads to `at`."""
        found = set()
        for i, ins in enumerate(self.instructions):
            if ins.handler and self.reaches(ins.handler[0], at):
                found.add(i)
            if ins.op == "SETUP_FINALLY" and self.reaches(ins.target, at):
                found.update(range(i + 1, ins.target))
        return found

    def _reachable(self, start: int, without: int) -> frozenset[int]:
        known = self._reach.get((start, without))
        if known is None:
            seen: set[int] = set()
            todo = [start]
            while todo:
                i = todo.pop()
                if i in seen or i == without:
                    continue
                seen.add(i)
                todo.extend(self._successors[i])
            known = self._reach[start, without] = frozenset(seen)
        return known


_decoded: dict[int, Code] = {}


def _exception_table(code: types.CodeType) -> Iterator[tuple[int, int, int, int, int]]:
    """Entries (start, end, target, depth, pushes), as of CPython's exception_handling_notes.txt."""
    data = iter(getattr(code, "co_exceptiontable", b""))

    def number(first: int) -> int:
        result = first & 63
        while first & 64:
            first = next(data)
            result = result << 6 | first & 63
        return result

    for byte in data:
        start, length, target = number(byte), number(next(data)), number(next(data))
        depth = number(next(data))
        yield start * 2, (start + length) * 2, target * 2, depth >> 1, 1 + (depth & 1)


def decode(code: types.CodeType) -> Code:
    """The instructions of a code object, cached."""
    known = _decoded.get(id(code))
    if known is not None and known.raw is code:
        return known
    raw = list(dis.get_instructions(code))
    position = {ins.offset: i for i, ins in enumerate(raw)}
    merges: set[int] = set()
    handlers: list[tuple[int, int, int] | None] = [None] * len(raw)
    # Inner entries come before the outer ones that surround them only in start order, and they
    # never overlap, so a plain loop is enough.
    for start, end, target, depth, pushes in _exception_table(code):
        goal = position[target]
        merges.add(goal)
        for i, ins in enumerate(raw):
            if start <= ins.offset < end:
                handlers[i] = (goal, depth, pushes)
    instructions = []
    for i, ins in enumerate(raw):
        target = -1
        if ins.opcode in _JUMPS:
            target = position[ins.argval]
            merges.add(target)
        text = ins.argrepr if ins.opname == "BINARY_OP" else ""
        # `dis` of 3.11 does not resolve the constant that KW_NAMES refers to.
        arg = ins.arg or 0
        value = code.co_consts[arg] if ins.opname == "KW_NAMES" else ins.argval
        made = Instruction(
            ins.opname, ins.opcode, arg, value, ins.offset, target, text, handlers[i]
        )
        instructions.append(made)
    result = Code(code, tuple(instructions), frozenset(merges))
    if len(_decoded) > _MAX_DECODED:
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
