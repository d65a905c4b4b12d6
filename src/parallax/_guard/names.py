"""Global, enclosing and imported names, and the notes taken while code is followed.

An `Event` is noted wherever something from outside the call changes.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

from parallax._guard.frame import Frame
from parallax._guard.lookup import UNKNOWN, is_a, is_code_like, top_module
from parallax._guard.mutators import Change
from parallax._guard.values import EMPTY, Cell, Fresh, Origin, Outer, Value, dependencies, value_of

__all__ = ["REBIND", "Event", "Names", "TooBig"]

REBIND: Final = "rebind"
# Locks, files, loggers and the like: workers have their own, by importing the module.
_HANDLES: Final = frozenset(
    {"thread", "threading", "logging", "io", "socket", "selectors", "subprocess", "ssl", "queue",
     "asyncio", "contextvars", "multiprocessing", "concurrent"}
)  # fmt: skip


class TooBig(Exception):  # noqa: N818 - a signal, not an error anyone sees
    """The program's own code that the callable reaches is too big to be looked through."""


class Event:
    """Something outer is changed by one instruction."""

    __slots__ = ("at", "frame", "how", "node", "same", "shape", "slot", "target")

    def __init__(
        self, frame: Frame, node: Outer | None, slot: Outer | None, shape: str, how: str,
        target: str, same: bool,
    ) -> None:  # fmt: skip
        self.frame = frame
        self.at = frame.at
        self.node = node  # the container or object that changes
        self.slot = slot  # the part of it that is assigned, if there is one
        self.shape = shape
        self.how = how
        self.target = target
        self.same = same  # the new content was computed from the old one


class Names:
    """What can be said of names, and what has been found so far."""

    def __init__(self, fn: Callable[..., Any], budget: int) -> None:
        self.trail: list[Outer] = []
        label = "self"  # an instance with `__call__`
        if is_code_like(fn):
            label = str(getattr(fn, "__name__", "the callable"))
        self.root = Outer(self.trail, None, "fn", None, fn, label)
        self.events: list[Event] = []
        self.globals_read: dict[tuple[str, str], None] = {}
        self.stale = 0
        self._seen: dict[tuple[Any, ...], Event] = {}
        self._left = budget

    def spend(self, steps: int = 1) -> None:
        """Charge an instruction, or something that costs as much as several."""
        self._left -= steps
        if self._left < 0:
            raise TooBig

    def note(
        self, frame: Frame, node: Outer | None, change: Change | tuple[str, str],
        slot: Outer | None = None, value: Value | None = None, target: str | None = None,
    ) -> None:  # fmt: skip
        """Something outer changes at the frame's current instruction."""
        shape, how = change
        if node is not None and self._exempt(node):
            return
        same = False
        if value is not None and node is not None:
            goals = {slot, node.child("elem")} if shape == "slot" else {slot}
            if slot is not None and value.origins == {slot}:
                return  # `x.items += [...]` puts the same list back; the list has its own event
            same = not goals.isdisjoint(dependencies(value))
        if slot is not None and value is not None and shape in (REBIND, "slot"):
            self._expect(slot, value)
        if target is None:
            target = (slot if slot is not None and shape == REBIND else node or self.root).label
        key = (id(frame.code.raw), frame.at, id(node), id(slot), how)
        known = self._seen.get(key)
        if known is not None:
            known.same = known.same or same
            return
        event = Event(frame, node, slot, shape, how, target, same)
        self._seen[key] = event
        self.events.append(event)

    def _expect(self, slot: Outer, value: Value) -> None:
        """A slot that is empty now will hold what the callable puts there, for the next item."""
        if slot.obj is None:
            slot.obj = UNKNOWN
            self.stale += 1
        if slot.obj is UNKNOWN and slot.cls is None:
            for origin in value.origins:
                if type(origin) is Fresh and origin.cls is not None:
                    slot.cls = origin.cls
                    self.stale += 1

    @staticmethod
    def _exempt(node: Outer) -> bool:
        """State that belongs to each thread or to the terminal."""
        walk: Outer | None = node
        while walk is not None:
            obj = walk.obj
            if obj is not UNKNOWN and (
                is_a(obj, threading.local)
                or obj is sys.stdout
                or obj is sys.stderr
                or type(obj).__module__ == "multiprocessing.managers"
            ):
                return True
            walk = walk.parent
        return False

    def read(self, frame: Frame, deps: Iterable[Any]) -> None:
        reads: dict[int, frozenset[Any]] = frame.reads
        reads[frame.at] = reads.get(frame.at, EMPTY) | frozenset(deps)

    def load_global(self, frame: Frame, name: str) -> Value:
        """A global or builtin name."""
        space = frame.ns
        node = space.child("name", name)
        node.loaded = True
        self.read(frame, (node,))
        if space.obj is not UNKNOWN and name in space.obj and not name.startswith("__"):
            self._note_global(space.obj, name, node)
        return value_of(node)

    def _note_global(self, space: dict[str, Any], name: str, node: Outer) -> None:
        module = space.get("__name__")
        if type(module) is not str or module == "__main__" or not _is_data(node.obj):
            return
        known = sys.modules.get(module)
        if is_a(known, types.ModuleType) and object.__getattribute__(known, "__dict__") is space:
            self.globals_read[module, name] = None

    def store_global(self, frame: Frame, name: str, value: Value | None) -> None:
        """`global name; name = ...`."""
        node = frame.ns.child("name", name)
        if value is not None and value.origins and all(_is_module(o) for o in value.origins):
            return  # `global np; import numpy as np`
        how = self.how_rebound(frame, value, "deletes")
        self.note(frame, frame.ns, (REBIND, how), node, value, f"global {name}")

    def load_outer(self, node: Outer) -> Value:
        """A variable of an enclosing function that is outside the call."""
        node.loaded = True
        return value_of(node)

    def store_cell(self, frame: Frame, name: str, cell: Cell, value: Value | None) -> None:
        """`nonlocal name; name = ...`."""
        node = cell.outer
        if node is not None:
            how = self.how_rebound(frame, value, "deletes")
            self.note(frame, node.parent, (REBIND, how), node, value, f"nonlocal {name}")

    @staticmethod
    def how_rebound(frame: Frame, value: Value | None, deleted: str, plain: str = "rebinds") -> str:
        if value is None:
            return deleted
        # The operator just before the store, if there is one, names the change best.
        for back in range(frame.at - 1, max(frame.at - 4, -1), -1):
            ins = frame.code.instructions[back]
            if ins.op.startswith("INPLACE_"):
                return "adds to" if ins.op == "INPLACE_ADD" else "updates"
            if ins.text.endswith("="):
                return "adds to" if ins.text == "+=" else "updates"
        return plain


def _is_module(origin: Origin) -> bool:
    return type(origin) is Outer and (origin.kind == "import" or is_a(origin.obj, types.ModuleType))


def _is_data(obj: object) -> bool:
    """Whether the current value of a global is worth sending: no code, no handle on the process."""
    if obj is UNKNOWN or is_code_like(obj):
        return False
    if is_a(obj, (contextvars.ContextVar, threading.local)):
        return True  # they cannot travel, and to find that out keeps the callable here
    return top_module(type(obj)) not in _HANDLES
