"""The context variables of a call that runs in another thread.

A call sees what the code that submitted it saw, and what it sets ends with it. A copied context
holds the same objects, which is what their users expect, except for the arithmetic of ``decimal``:
``getcontext().prec = 5`` changes an object in place, and is meant for one thread only.

Guarantees: no call changes the context of another one, or of the code that submitted it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context

from parallax._core.light_stdlib import Any, TypeAlias

#: Variables with the values that a call is to find in them.
Assignments: TypeAlias = "Iterable[tuple[ContextVar[Any], Any]]"

#: The variables in which modules keep settings, by module; None for one that uses none.
_variables: dict[str, ContextVar[Any] | None] = {}


def snapshot(of: Context | None = None) -> Context:
    """A copy of a context, by default of the running code's, for one call or thread."""
    copy = copy_context() if of is None else of.copy()
    variable = settings_variable("decimal", "getcontext")
    if variable is not None and variable in copy:
        copy.run(variable.set, copy[variable].copy())
    return copy


def settings_variable(module: str, first: str) -> ContextVar[Any] | None:
    """The variable that a loaded module's function sets when it is first called; or None."""
    if module not in sys.modules or module in _variables:
        return _variables.get(module)
    function = getattr(sys.modules[module], first, None)
    if function is None:  # the module is being imported
        return None
    unused = Context()
    unused.run(function)
    return _variables.setdefault(module, next(iter(unused), None))


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
