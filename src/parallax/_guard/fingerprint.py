"""The state that the guard watches while the first items run, at the places that its findings name.

Guarantees: runs no code of the program. What is compared are the object itself and its digest. What
cannot be looked into differs from itself, so that each item counts as changing it.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.digest import Walk
from parallax._guard.lookup import UNKNOWN_OBJECT, is_frozen, resolve

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

# The steps from the callable or an argument to an object.
Path: TypeAlias = "tuple[tuple[str, Any], ...]"
# An object to be compared by identity, and its digest.
State: TypeAlias = "tuple[Any, Any]"

# Steps of a walk. More: watching costs more than short items do; fewer: changes deep inside are
# missed, and the guard says "in the code, not seen yet".
_STEPS: Final = 100


def unwatchable() -> State:
    """The state of what cannot be watched: it differs from any other."""
    return None, float("nan")  # a new one each time: the same one is taken for equal


def follow(path: Path, fn: Any, args: tuple[Any, ...]) -> Any:
    """The object at a path now, or the last one before a step that names no single object."""
    kind, key = path[0]
    obj = fn if kind == "fn" else args[key] if key < len(args) else UNKNOWN_OBJECT
    for kind, key in path[1:]:
        if kind in ("elem", "kin", "deep"):
            return obj
        held, obj = obj, resolve(obj, kind, key)
        if obj is UNKNOWN_OBJECT:
            # Absent, or not to be looked up without running code.
            return held
    return obj


def fingerprint(path: Path, fn: Any, args: tuple[Any, ...]) -> State:
    """The state of the object at a path."""
    if not path:
        return unwatchable()
    obj, walk = follow(path, fn, args), Walk({})
    figures = walk.digest(obj, _STEPS)
    if is_frozen(obj) or obj is UNKNOWN_OBJECT:
        return None, (figures, obj is UNKNOWN_OBJECT)
    return unwatchable() if walk.opaque else (obj, figures)


def differs(old: State, new: State) -> bool:
    """Whether two fingerprints of one path show a change."""
    return old[0] is not new[0] or old[1] != new[1]
