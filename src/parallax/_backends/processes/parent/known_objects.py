"""The objects of a callable that items and results may refer to, and where workers have them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType

from parallax._backends.processes.common.heritage import ModuleName, SharedObjects, attributes
from parallax._backends.processes.parent.call_encoding import names_in
from parallax._backends.processes.start.spawn import installed
from parallax._core.light_stdlib import Any, TypeAlias
from parallax._core.plain_types import PLAIN_TYPES
from parallax._guard.lookup import is_code_like

#: None of what travels with the callable, False of what a worker does not find.
Whereabouts: TypeAlias = "ModuleName | bool | None"

#: Objects of one callable that are looked at.
MAX_KNOWN = 1000


def shared_objects(fn: Any) -> SharedObjects:
    """What workers that are no forks have of a callable, so that it need not travel once more."""
    return SharedObjects(
        [
            (each, place)
            for each, place in known_objects(fn)
            if not isinstance(place, bool)
            and each is not fn
            and type(each) not in PLAIN_TYPES
            and not is_code_like(each)
        ]
    )


def known_objects(fn: Any) -> list[tuple[Any, Whereabouts]]:
    """What a callable has captured, or reads by name, also through functions of the program."""
    found: dict[int, tuple[Any, Whereabouts]] = {id(fn): (fn, None)}
    names: set[str] = set()
    before = 0
    while before < (before := len(found) + len(names)):
        for this, place in [*found.values()]:
            if len(found) < MAX_KNOWN:
                home: Any = this if type(this) is FunctionType else type(this)
                # Not a str but a descriptor of some built-in types, before 3.11.
                module: Any = home.__module__ or ""
                own = this is fn or (type(module) is str and not installed(module))
                for part, where in _parts(this, place, names, own=own):
                    found.setdefault(id(part), (part, where))
    return [*found.values()]


def _parts(
    this: Any, place: Whereabouts, names: set[str], *, own: bool
) -> Iterator[tuple[Any, Whereabouts]]:
    """What an object has captured, or holds under one of the names that the program's code uses."""
    kept: Whereabouts = None if place is None else False
    kind = type(this)  # an object may lie about its class, or fail when it is asked
    if kind is FunctionType:
        module = _importable(this)
        kept = None if module is None else False
        if own:
            mentioned = {*names_in(this.__code__)}
            names |= mentioned
            for name in mentioned & this.__globals__.keys():
                yield this.__globals__[name], None if module is None else ModuleName(module, name)
        for cell in this.__closure__ or ():
            with contextlib.suppress(ValueError):  # it is empty
                yield cell.cell_contents, kept
        for name in ("__defaults__", "__kwdefaults__"):
            held = getattr(this, name) or ()
            entries: Any = held.items() if isinstance(held, dict) else enumerate(held)
            for entry, part in entries:
                where = f"{this.__qualname__}.{name}"
                yield part, None if module is None else ModuleName(module, where, entry)
    elif kind is MethodType:
        yield this.__self__, kept
        yield this.__func__, kept
    elif issubclass(kind, partial):
        for part in (this.func, *this.args, *this.keywords.values()):
            yield part, kept
    else:
        space = attributes(this)
        for name in [name for name in names if name in space]:
            yield (
                space[name],
                ModuleName(space["__name__"], name) if issubclass(kind, ModuleType) else kept,
            )
        if own and not issubclass(kind, (ModuleType, type)):
            yield vars(kind).get("__call__"), kept


def _importable(function: FunctionType) -> str | None:
    """The module by which a function travels; None if it travels by value."""
    module: Any = sys.modules.get(function.__module__)
    by_name = "<locals>" not in function.__qualname__ and module is not None
    return function.__module__ if by_name and function.__module__ != "__main__" else None
