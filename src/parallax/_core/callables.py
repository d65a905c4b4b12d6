"""What a callable is called, what is inside its partials, and whether a call runs it at all."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

from parallax._core.light_stdlib import Any

# Flags of code objects, as ``inspect`` names them: that module takes 10 ms to import.
_CO_GENERATOR, _CO_COROUTINE = 0x20, 0x80
_CO_ITERABLE_COROUTINE, _CO_ASYNC_GENERATOR = 0x100, 0x200


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A bound method for a part of its object, without a cycle of references between the two."""
    find = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        found = find()
        if found is not None:
            found(*args)

    return call


def unwrap_partial(fn: Any) -> Any:
    """The callable inside any number of ``functools.partial`` objects."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def name_of(fn: Any) -> str:
    """A callable's name, for people."""
    fn = unwrap_partial(fn)
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


def runs_nothing(fn: Any) -> str | None:
    """Why calling ``fn`` runs none of its code: "coroutine", "generator", or None if it does."""
    inner = unwrap_partial(fn)
    if not hasattr(inner, "__code__"):
        by_class = getattr(type(inner), "__call__", None)  # noqa: B004 - its kind, not whether
        inner = getattr(inner, "__func__", None) or by_class
    flags = getattr(getattr(inner, "__code__", None), "co_flags", 0)
    # inspect.markcoroutinefunction, 3.12, marks functions that return a coroutine.
    marked = getattr(inner, "_is_coroutine_marker", None) is not None
    if marked or flags & (_CO_COROUTINE | _CO_ITERABLE_COROUTINE):
        return "coroutine"
    return "generator" if flags & (_CO_GENERATOR | _CO_ASYNC_GENERATOR) else None
