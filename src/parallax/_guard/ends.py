"""Objects whose end does something: a copy of one would do it, too, and too early."""

from __future__ import annotations

import sys
import types

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.lookup import class_lookup, is_a, is_own_class
from parallax._guard.net import Mesh, Net
from parallax._guard.watch import LEAST_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def copied_end(what: str, root: Any, kinds: Iterable[type] = ()) -> str:
    """Why an object, and what it holds, must not be copied for its end, in words; "" if it may.

    Args:
        what: what it is, for people.
        root: the object: a callable, or a list of items or results.
        kinds: the classes of further objects of this sort.
    """
    finalized = _finalized()
    reached = [obj for _, obj in Net(root, Mesh(LEAST_STEPS)).reached()]
    if end := own_end((*map(type, reached), *kinds)):
        return _reason(what, end)
    for obj in reached:
        if id(obj) in finalized and is_own_class(type(obj)):
            return _reason(what, "`weakref.finalize`")
    return ""


def own_end(kinds: Iterable[type]) -> str:
    """The first `__del__` of the program's own classes among these; "" if they have none."""
    for cls in kinds:
        if is_own_class(cls) and is_a(class_lookup(cls, "__del__"), types.FunctionType):
            return f"`{cls.__qualname__}.__del__`"
    return ""


def _reason(what: str, how: str) -> str:
    return f"{what} does something at its end ({how}), which each copy would do, too"


def _finalized() -> set[int]:
    """The ids of the objects that `weakref.finalize` watches."""
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    # Its table is no public interface; without it only __del__ is seen.
    table = getattr(finalize, "_registry", {})
    return {id(obj) for info in list(table.values()) if (obj := info.weakref()) is not None}
