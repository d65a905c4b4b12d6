"""What a scan records: changes of outer objects, reads, and the globals behind names.

An `Event` is recorded wherever an object from outside the call changes.
"""

from __future__ import annotations

import contextvars
import sys
import types

from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple, local
from parallax._guard.frame import Budget
from parallax._guard.lookup import UNKNOWN_OBJECT, is_a, is_code_like, is_own_code, top_module
from parallax._guard.values import EMPTY, PLAIN_VALUE, Fresh, Outer, dependencies
from parallax._transport.main_module import MAIN_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final

    from parallax._guard.frame import AbstractFrame
    from parallax._guard.values import Origin, Value

REBIND: Final = "rebind"
# Modules of locks, files, loggers and the like: workers create their own by importing the program.
_HANDLE_MODULES: Final = frozenset(
    {"thread", "threading", "logging", "io", "socket", "selectors", "subprocess", "ssl", "queue",
     "asyncio", "contextvars", "multiprocessing", "concurrent"}
)  # fmt: skip


class Event(NamedTuple):
    """One instruction changes an outer object."""

    frame: AbstractFrame
    at: int
    node: Outer | None
    """The container or object that changes."""
    slot: Outer | None
    """The variable, attribute or item that is assigned, if there is one."""
    shape: str
    how: str
    target: str
    same: bool
    """The new content was computed from the old one."""
    own: bool = False
    """The slot is selected by the item, and others by other items."""


class Recorder:
    """The record of one scan, and the operations on global and shared variables."""

    def __init__(self, fn: Callable[..., Any], steps: int) -> None:
        self.trail: list[Outer] = []
        label = "self"  # an instance with `__call__`
        if is_code_like(fn):
            label = str(getattr(fn, "__name__", "the callable"))
        self.root = Outer(self.trail, None, "fn", None, fn, label)
        self.globals_read: dict[tuple[str, str], None] = {}
        self.budget = Budget(steps)
        self.events: dict[tuple[Any, ...], Event] = {}

    def note(
        self, frame: AbstractFrame, node: Outer | None, change: tuple[str, str],
        slot: Outer | None = None, value: Value | None = None, target: str | None = None,
        *, own: bool = False,
    ) -> None:  # fmt: skip
        """Record a change at the frame's current instruction.

        `node` is None for the state of the process, `change` the shape of the change and the verb
        for it. `target` is the name of what changes, where `node` and `slot` do not give it.
        """
        shape, how = change
        if node is not None and self._exempt(node):
            return
        same = False
        if value is not None and node is not None:
            goals = {slot, node.child("elem")} if shape == "slot" else {slot}
            if slot is not None and value.origins == {slot}:
                return  # `x.items += [...]` assigns the same list; the list has its own event
            same = not goals.isdisjoint(dependencies(value))
        if slot is not None and value is not None and shape in (REBIND, "slot"):
            self._expect(slot, value)
        if target is None:
            target = (slot if slot is not None and shape == REBIND else node or self.root).label
        key = (id(frame.code.raw), frame.at, id(node), id(slot), how)
        known = self.events.get(key)
        if known is None:
            self.events[key] = Event(frame, frame.at, node, slot, shape, how, target, same, own)
        elif same:
            self.events[key] = known._replace(same=True)

    def _expect(self, slot: Outer, value: Value) -> None:
        """For the next item, an empty slot will hold what the callable puts there."""
        if slot.obj is None:
            slot.obj = UNKNOWN_OBJECT
            self.budget.stale += 1
        if slot.obj is UNKNOWN_OBJECT and slot.cls is None:
            for origin in value.origins:
                if type(origin) is Fresh and origin.cls is not None:
                    slot.cls = origin.cls
                    self.budget.stale += 1

    @staticmethod
    def _exempt(node: Outer) -> bool:
        """State that belongs to each thread or to the terminal."""
        walk: Outer | None = node
        while walk is not None:
            obj = walk.obj
            if obj is not UNKNOWN_OBJECT and (
                is_a(obj, local)
                or obj is sys.stdout
                or obj is sys.stderr
                or type(obj).__module__ == "multiprocessing.managers"
            ):
                return True
            walk = walk.parent
        return False

    @staticmethod
    def read(frame: AbstractFrame, deps: Iterable[Any]) -> None:
        """Record what the frame's current instruction reads."""
        frame.reads[frame.at] = frame.reads.get(frame.at, EMPTY) | frozenset(deps)

    def load_global(self, frame: AbstractFrame, name: str) -> Value:
        """A global or builtin name."""
        space = frame.func.ns
        node = space.child("name", name)
        node.loaded = True
        self.read(frame, (node,))
        if space.obj is not UNKNOWN_OBJECT and name in space.obj and not name.startswith("__"):
            self.note_global(space.obj, name, node)
        return node.value()

    def note_global(self, space: dict[str, Any], name: str, node: Outer) -> None:
        """Record that workers need the current value of a module's global."""
        module = space.get("__name__")
        obj = node.obj
        if type(module) is not str or module in MAIN_NAMES or obj is UNKNOWN_OBJECT:
            return
        if is_a(obj, types.ModuleType) or (is_code_like(obj) and not _is_own(space)):
            return
        known = sys.modules.get(module)
        if is_a(known, types.ModuleType) and object.__getattribute__(known, "__dict__") is space:
            self.globals_read[module, name] = None

    def store_global(self, frame: AbstractFrame, name: str, value: Value | None) -> None:
        """An assignment to a global name, or its deletion where `value` is None."""
        node = frame.func.ns.child("name", name)
        if value is not None and value.origins and all(_is_module(o) for o in value.origins):
            return  # `global np; import numpy as np`
        how = self.how_rebound(frame, value, "deletes")
        self.note(frame, frame.func.ns, (REBIND, how), node, value, f"global {name}")

    def store_deref(self, frame: AbstractFrame, name: str, value: Value | None) -> None:
        """Assign a variable shared with inner or outer functions, or delete it."""
        cell = frame.cells.get(name)
        if cell is None:
            frame.assign(name, value or PLAIN_VALUE)
        elif cell.outer is not None:
            how = self.how_rebound(frame, value, "deletes")
            holder = cell.outer.parent
            self.note(frame, holder, (REBIND, how), cell.outer, value, f"nonlocal {name}")
        elif value is not None and cell.put(value):
            self.budget.stale += 1

    @staticmethod
    def how_rebound(
        frame: AbstractFrame, value: Value | None, deleted: str, plain: str = "rebinds"
    ) -> str:
        """The verb for the store at the current instruction; `deleted` where `value` is None."""
        if value is None:
            return deleted
        # An operator just before the store gives the most telling verb.
        for back in range(frame.at - 1, max(frame.at - 4, -1), -1):
            ins = frame.code.instructions[back]
            if ins.op.startswith("INPLACE_"):
                return "adds to" if ins.op == "INPLACE_ADD" else "updates"
            if ins.text.endswith("="):
                return "adds to" if ins.text == "+=" else "updates"
        return plain


def _is_module(origin: Origin) -> bool:
    return type(origin) is Outer and (origin.kind == "import" or is_a(origin.obj, types.ModuleType))


def _is_own(space: dict[str, Any]) -> bool:
    """Whether a module is the program's."""
    file = space.get("__file__")
    return type(file) is str and is_own_code(file)


def is_handle(obj: object) -> bool:
    """Whether workers have something of the kind of their own: a lock, a file, a handler."""
    if is_a(obj, (contextvars.ContextVar, local)) or hasattr(obj, "manager"):
        return False  # what cannot be pickled keeps the callable here; loggers travel by name
    return top_module(type(obj)) in _HANDLE_MODULES
