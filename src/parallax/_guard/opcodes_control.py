"""Opcodes of control flow: branches, loops, generators, exception handlers, `with`.

Plain jumps have no entry: an opcode with a target continues there in any case.
"""

from __future__ import annotations

import sys

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.frame import NULL
from parallax._guard.values import PLAIN_VALUE, dependencies

if TYPE_CHECKING:
    from typing import Final

    from parallax._guard.calls import Calls
    from parallax._guard.code import Instruction
    from parallax._guard.frame import AbstractFrame, Operation


def _pop_jump(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.branch(dependencies(frame.pop()))
    frame.jump(ins)


def _jump_or_pop(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.branch(dependencies(frame.peek()))
    frame.jump(ins)
    frame.pop()


def _check_exception(_: Calls, frame: AbstractFrame, __: Instruction) -> None:
    frame.pop()
    frame.push(PLAIN_VALUE)


def _for_iter(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    source = frame.peek()
    element = source.element()
    frame.branch(dependencies(source, element))
    stack = list(frame.stack)
    if sys.version_info >= (3, 12):
        frame.push(PLAIN_VALUE)  # popped by END_FOR at the target
    else:
        frame.pop()
    frame.jump(ins)
    frame.stack = [*stack, element]


def _send(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.pop()
    source = frame.peek()
    stack = list(frame.stack)
    if sys.version_info < (3, 12):
        frame.pop()
    frame.push(source)
    frame.jump(ins)
    frame.stack = [*stack, source.element()]


def _yield(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    if ins.op == "YIELD_FROM":
        frame.pop()
    value = frame.pop()
    frame.yields = frame.yields | (value.element() if ins.op == "YIELD_FROM" else value)
    frame.push(PLAIN_VALUE)


def _return(_: Calls, frame: AbstractFrame, __: Instruction) -> None:
    frame.returns = frame.returns | frame.pop()


def _setup_finally(_: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    frame.blocks = (*frame.blocks, (ins.target, len(frame.stack)))


def _pop_block(_: Calls, frame: AbstractFrame, __: Instruction) -> None:
    frame.blocks = frame.blocks[:-1]


def _enter(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    manager = frame.pop()
    frame.push(PLAIN_VALUE)
    if ins.op.startswith("SETUP"):
        _setup_finally(scan, frame, ins)
    frame.push(scan.enter(frame, manager))


def _load_special(scan: Calls, frame: AbstractFrame, ins: Instruction) -> None:
    # 3.14 calls `__enter__` (0, 2) and `__exit__` (1, 3) by CALL.
    name = "__enter__" if ins.arg in (0, 2) else "__exit__"
    frame.push(scan.attribute(frame, frame.pop(), name))
    frame.push(NULL)


CONTROL_OPERATIONS: Final[dict[str, Operation]] = {
    **{
        f"POP_JUMP{way}_IF_{test}": _pop_jump
        for way in ("", "_FORWARD", "_BACKWARD")
        for test in ("TRUE", "FALSE", "NONE", "NOT_NONE")
    },
    "JUMP_IF_TRUE_OR_POP JUMP_IF_FALSE_OR_POP": _jump_or_pop,
    "CHECK_EXC_MATCH": _check_exception,
    "FOR_ITER": _for_iter,
    "SEND": _send,
    "END_SEND": lambda _, frame, __: frame.push(frame.pops(2)[1]),
    "YIELD_VALUE YIELD_FROM": _yield,
    "RETURN_VALUE": _return,
    "SETUP_FINALLY": _setup_finally,
    "POP_BLOCK": _pop_block,
    "SETUP_WITH SETUP_ASYNC_WITH BEFORE_WITH BEFORE_ASYNC_WITH": _enter,
    "LOAD_SPECIAL": _load_special,
}
