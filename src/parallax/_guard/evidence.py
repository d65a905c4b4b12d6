"""Weighs the events of a scan: whether threads would race for a change, whether it recurs.

An event is an `update` if another thread between the read and the write would change the outcome,
an `order` if what is left shows which thread came first or last, else `grow`. It is `guarded` if it
only happens while the state it sets is unset (a lazily filled cache), and `constant` if it does not
depend on the item whether it happens, so that a few items without a change speak for all items.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.lookup import is_a
from parallax._guard.values import EMPTY, NONDETERMINISTIC, Outer, dependencies

if TYPE_CHECKING:
    from typing import Any, Final, Literal, TypeAlias

    from parallax._guard.events import Event
    from parallax._guard.frame import AbstractFrame
    from parallax._guard.values import Value

# The outer objects that decide whether an instruction runs.
Condition: TypeAlias = "frozenset[Any]"
Kind: TypeAlias = "Literal['grow', 'order', 'update', 'apart']"
# An event with its kind, whether it is guarded, and whether it is constant.
Judged: TypeAlias = "tuple[Event, Kind, bool, bool]"
# Steps of a path that name no single object, so that watching it would not show every change.
_VAGUE_STEPS: Final = ("elem", "kin", "deep")
# Callers that are asked for their conditions. Smaller: conditions far up are missed, and caches
# filled there count as recurring changes; larger: deeply nested code takes longer.
_MAX_CALL_SITES: Final = 40


def weigh(events: list[Event], returned: Value) -> list[Judged]:
    """Classify every event of a scan; `returned` is what the callable returns."""
    targets = {each for event in events for each in (event.slot, event.node)} - {None}
    shown = dependencies(returned)
    result = []
    for event in events:
        conditions = _conditions(event.frame, event.at)
        observable = event.node is not None and not any(
            kind in _VAGUE_STEPS for kind, _ in event.node.path()
        )
        relevant = set(targets)
        if event.node is not None:
            relevant.add(event.node.children.get(("elem", None)))
        steady = [each for each in conditions if _is_steady(each)]
        guarded = observable and any(not each.isdisjoint(relevant) for each in steady)
        constant = observable and bool(conditions) and len(steady) == len(conditions)
        kind = _kind(event, conditions, guarded, shown)
        result.append((event, kind, guarded, constant))
    return result


def _is_steady(condition: Condition) -> bool:
    """Whether a condition depends on state alone, not on the item or on unobserved state."""
    return not any(
        dep is NONDETERMINISTIC or (type(dep) is Outer and dep.is_item) for dep in condition
    )


def _kind(event: Event, conditions: list[Condition], guarded: bool, shown: frozenset[Any]) -> Kind:
    node, slot = event.node, event.slot
    if node is not None and node.is_item:
        return "grow"  # each item is processed by one thread
    if event.shape == "swap":
        return "apart"
    if event.shape == "keep":
        return "grow"
    if event.shape == "take" or node is None:
        return "update"
    goal = slot or node
    if event.same:
        # The order of locked updates shows in a rounded sum, or in a result.
        order_shows = type(goal.obj) in (float, complex, str, bytes, tuple) or goal in shown
        locked = any(start <= event.at <= end for start, end in event.frame.locked)
        return "grow" if locked and not order_shows else "update"
    if any((goal, "compared") in condition for condition in conditions):
        return "update"
    if guarded:
        return "grow"
    if event.shape == "grow":
        # If the list is also read, what a thread finds in it depends on the other threads.
        if node.scanned or node.peeked:
            return "update"
        return "grow" if is_a(node.obj, set) else "order"
    if slot is not None and slot.kind != "elem":
        return "update" if slot.loaded else "order"
    if node.scanned:
        return "update"
    # Each item has a place of its own in an array; a dictionary tells what came first.
    memo = any(not {node, slot, node.child("elem")}.isdisjoint(each) for each in conditions)
    return "grow" if memo or (event.own and not is_a(node.obj, dict)) else "order"


def _conditions(frame: AbstractFrame, at: int) -> list[Condition]:
    """The conditions of an instruction, inside its function and in the functions that call it."""
    found: list[Condition] = []
    seen: set[tuple[int, int]] = set()
    todo = [(frame, at)]
    while todo and len(seen) < _MAX_CALL_SITES:
        here, i = todo.pop()
        if (id(here), i) in seen:
            continue
        seen.add((id(here), i))
        found += [deps for branch, deps in here.branches.items() if here.code.controls(branch, i)]
        found += _handled(here, i)
        todo += here.callers
    return found


def _handled(frame: AbstractFrame, at: int) -> list[Condition]:
    """For code in an exception handler: what the protected code reads (`try: cache[k]`)."""
    if frame.code.reaches(0, at):
        return []
    reads = (frame.reads.get(i, EMPTY) for i in frame.code.protected_by_handlers(at))
    return [EMPTY.union(*reads) or frozenset((NONDETERMINISTIC,))]
