"""The context variables of a call that runs in another thread.

A call sees what the code that submitted it saw, and what it sets ends with it. A copied context
holds the same objects, which is what their users expect, except for the arithmetic of ``decimal``:
``getcontext().prec = 5`` changes an object in place, and is meant for one thread only.

Guarantees: no call changes the context of another one, or of the code that submitted it.
"""

from __future__ import annotations

import sys
from contextvars import Context, copy_context

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import ContextVar
    from typing import Any, TypeAlias

    #: Variables with the values that a call is to find in them.
    Assignments: TypeAlias = "Iterable[tuple[ContextVar[Any], Any]]"

#: The variable in which ``decimal`` keeps the arithmetic of the running code, once it is known.
_arithmetic: ContextVar[Any] | None = None


def snapshot(of: Context | None = None) -> Context:
    """A copy of a context, by default of the running code's, for one call or thread."""
    copy = copy_context() if of is None else of.copy()
    if "decimal" in sys.modules:
        variable = _arithmetic or _find_arithmetic()
        if variable is not None and variable in copy:
            copy.run(variable.set, copy[variable].copy())
    return copy


def _find_arithmetic() -> ContextVar[Any] | None:
    """The only variable that is set when ``decimal`` is first used; None if it uses none."""
    global _arithmetic  # noqa: PLW0603 - a cache
    getcontext = getattr(sys.modules["decimal"], "getcontext", None)
    if getcontext is not None:  # else it is being imported
        unused = Context()
        unused.run(getcontext)
        _arithmetic = next(iter(unused), None)
    return _arithmetic


def set_by(initializer: Callable[..., object], args: tuple[Any, ...]) -> Assignments:
    """Call an initializer; the variables that it has set."""
    before = copy_context()
    initializer(*args)
    unset = object()
    return [each for each in copy_context().items() if before.get(each[0], unset) is not each[1]]


def assign(context: Context, values: Assignments) -> None:
    """Set variables in a context that nothing runs in."""
    for variable, value in values:
        context.run(variable.set, value)
