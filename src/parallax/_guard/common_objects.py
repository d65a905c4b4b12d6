"""Objects that several items have in common: a change through one item is seen by the others.

Guarantees: runs no code of the program; only what the guard has found to be changed is followed.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.effects import ITEM
from parallax._guard.fingerprint import follow
from parallax._guard.lookup import UNKNOWN_OBJECT, is_frozen
from parallax._guard.mutators import MUTATING_METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from parallax._guard.effects import Effects, Finding

_REBINDS: Final = MUTATING_METHODS["__setattr__"].how
# What is changed, in the user's words.
_COMMON: Final = "what several items have in common"


def except_own(effects: Effects, fn: Any, calls: Callable[[], Sequence[Any]]) -> Effects:
    """The same effects; a change of the item that others see as well is one of shared state.

    Args:
        effects: what the code of a callable may do.
        fn: the callable.
        calls: gives the arguments of some calls.
    """
    if all(finding.target != ITEM for finding in effects.findings):
        return effects
    several = calls()
    findings = (
        each._replace(kind="update", target=_COMMON) if _is_common(each, fn, several) else each
        for each in effects.findings
    )
    return effects._replace(findings=tuple(findings))


def _is_common(finding: Finding, fn: Any, calls: Sequence[Any]) -> bool:
    path = finding.root
    if finding.target != ITEM or not path or not calls:
        return False
    # Of an attribute that is set the path leads to what it had before.
    if path[-1][0] == "attr" and (finding.how == _REBINDS or is_frozen(follow(path, fn, calls[0]))):
        path = path[:-1]
    found = [follow(path, fn, args) for args in calls]
    found = [each for each in found if each is not UNKNOWN_OBJECT and not is_frozen(each)]
    items = {id(each) for args in calls for each in args} if len(path) > 1 else set()
    return len({id(each) for each in found}) < len(found) or not items.isdisjoint(map(id, found))
