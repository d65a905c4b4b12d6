"""From the events of a scan to what they mean for routing: racy or not, recurring or not.

An event is `update` where another thread between reading and writing would change the outcome, else
`grow`. It is `guarded` where it only happens while the state it sets is unset (a lazily filled
cache), and `constant` where whether it happens does not depend on the item, so that a few quiet
items speak for all.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from parallax._guard.calls import Scan
from parallax._guard.frame import Frame
from parallax._guard.names import Event
from parallax._guard.values import CHANCE, Outer, Value, dependencies

__all__ = ["Judged", "weigh"]

Condition = frozenset[Any]
_BLIND: Final = ("elem", "kin", "deep")
_MAX_CHAIN: Final = 40


class Judged(NamedTuple):
    """One event with its weight."""

    event: Event
    kind: Literal["grow", "update"]
    guarded: bool
    constant: bool


def weigh(scan: Scan, returned: Value) -> list[Judged]:
    """Classify every event; `returned` is what the callable gives back."""
    targets = {event.slot or event.node for event in scan.events}
    targets |= {event.node for event in scan.events}
    targets.discard(None)
    shown = dependencies(returned)
    result = []
    for event in scan.events:
        conditions = _conditions(event.frame, event.at)
        observable = event.node is not None and not any(
            kind in _BLIND for kind, _ in event.node.path()
        )
        mine = {event.slot, event.node}
        if event.node is not None:
            mine.add(event.node.children.get(("elem", None)))
        steady = [each for each in conditions if _is_steady(each)]
        guarded = observable and any(not each.isdisjoint(targets | mine) for each in steady)
        constant = observable and bool(conditions) and len(steady) == len(conditions)
        kind = _kind(event, conditions, guarded, shown)
        result.append(Judged(event, kind, guarded, constant))
    return result


def _is_steady(condition: Condition) -> bool:
    """Whether a condition is about state alone: neither the item nor chance has a say in it."""
    return not any(dep is CHANCE or (type(dep) is Outer and dep.is_item) for dep in condition)


def _kind(
    event: Event, conditions: list[Condition], guarded: bool, shown: frozenset[Any]
) -> Literal["grow", "update"]:
    node, slot = event.node, event.slot
    if node is not None and node.is_item:
        return "grow"  # each item is in the hands of one thread
    if event.shape == "take" or node is None:
        return "update"
    goal = slot or node
    if event.same:
        return "grow" if _is_locked(event) and not _order_shows(goal, shown) else "update"
    if any((goal, "compared") in condition for condition in conditions):
        return "update"
    if guarded:
        return "grow"
    if event.shape == "grow":
        # A list that is also read: what a thread finds in it depends on the others.
        return "update" if node.scanned or node.peeked else "grow"
    if slot is not None and slot.kind != "elem":
        return "update" if slot.loaded else "grow"
    return "update" if node.scanned else "grow"


def _is_locked(event: Event) -> bool:
    return any(start <= event.at <= end for start, end in event.frame.locked)


def _order_shows(goal: Outer, shown: frozenset[Any]) -> bool:
    """Whether the order of locked updates can be seen: in a rounded sum, or in a result."""
    return type(goal.obj) in (float, complex, str, bytes, tuple) or goal in shown


def _conditions(frame: Frame, at: int) -> list[Condition]:
    """What decides, inside its function and in those that call it, that an instruction runs."""
    found: list[Condition] = []
    seen: set[tuple[int, int]] = set()
    todo = [(frame, at)]
    while todo and len(seen) < _MAX_CHAIN:
        here, i = todo.pop()
        if (id(here), i) in seen:
            continue
        seen.add((id(here), i))
        found += [deps for branch, deps in here.branches.items() if here.code.controls(branch, i)]
        found += _handled(here, i)
        todo += here.callers
    return found


def _handled(frame: Frame, at: int) -> list[Condition]:
    """For code in an exception handler: what the protected code reads (`try: cache[k]`)."""
    if frame.code.reaches(0, at):
        return []
    found: Condition = frozenset((CHANCE,))
    regions = [goal for goal in frame.code.handlers() if frame.code.reaches(goal, at)]
    reads: set[Any] = set()
    for goal in regions:
        for i in frame.code.protected(goal):
            reads |= frame.reads.get(i, frozenset())
    return [frozenset(reads)] if reads else [found]
