"""The functions that an executor has met, and what it knows of each.

Guarantees: no function, and nothing that it captured, is kept alive once it is known how to run it.
"""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from parallax._adaptive.trial import Inquiry
from parallax._profiling.history import key_of

__all__ = ["Path", "Paths"]

#: Functions that are kept; the oldest goes.
KEPT = 512

#: Types of arguments that may be called, and how deep callables inside callables are told apart.
CALLABLES = frozenset({FunctionType, MethodType, BuiltinFunctionType, type, functools.partial})
DEEPEST = 4

#: Calls after which the code of a function is looked at again.
AGAIN = 64


class Path:
    """The way of one function's calls: its choice, what is being found out, and who waits."""

    def __init__(self, inquiry: Inquiry) -> None:
        self.inquiry = inquiry
        self.choice = inquiry.choice
        self.held: deque[Any] = deque()
        self._looked = 0

    def due(self) -> bool:
        """Whether the function's code is to be looked at again; what it refers to may change."""
        self._looked += 1
        return not self._looked % AGAIN


class Paths:
    """All of them. Not thread-safe: the executor's lock guards it."""

    def __init__(self) -> None:
        self._paths: dict[Hashable, Path] = {}
        self._quick: dict[Hashable, tuple[weakref.ref[Any], Path]] = {}

    def all(self) -> list[Path]:
        """Every path, oldest first."""
        return list(self._paths.values())

    def quick(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Path | None:
        """What is known for this very function and arguments of these types."""
        known = self._quick.get(_quick_key(fn, args, kwargs))
        return known[1] if known is not None and known[0]() is fn else None

    def find(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Path | None:
        """What is known for functions and arguments like these."""
        return self._paths.get(_key(fn, args, kwargs))

    def add(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], path: Path
    ) -> Path:
        """Keep a path; returns the one that is kept already, if another thread was faster."""
        path = self._paths.setdefault(_key(fn, args, kwargs), path)
        if len(self._paths) > KEPT:
            del self._paths[next(iter(self._paths))]
        key = _quick_key(fn, args, kwargs)
        # Types do not tell which callables the arguments are.
        if type(fn) in {FunctionType, BuiltinFunctionType, type} and CALLABLES.isdisjoint(key):
            if len(self._quick) > KEPT:
                self._quick.clear()
            self._quick[key] = weakref.ref(fn), path
        return path

    def clear(self) -> None:
        """Forget everything."""
        self._paths.clear()
        self._quick.clear()


def _quick_key(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hashable, ...]:
    if not kwargs:
        return (id(fn), *map(type, args))
    return (id(fn), *map(type, args), *kwargs, *map(type, kwargs.values()))


def _key(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """What is the same for calls that may go the same way."""
    kinds = [_kind(arg, DEEPEST) for arg in (*args, *kwargs.values())]
    return (*_parts(fn, DEEPEST), *kinds, *kwargs)


def _kind(value: Any, depth: int) -> Any:
    """A value's type; of a callable, which one: calling it may have side effects."""
    return _parts(value, depth - 1) if type(value) in CALLABLES and depth else type(value)


def _parts(fn: Any, depth: int) -> tuple[Hashable, ...]:
    """A callable's code, and the kinds of what it captured."""
    parts: list[Any] = []
    while isinstance(fn, functools.partial):
        parts += [_kind(each, depth) for each in (*fn.args, *fn.keywords.values())]
        fn = fn.func
    owner = getattr(fn, "__self__", None)
    if owner is not None:
        parts.append(type(owner))
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            parts.append(_kind(cell.cell_contents, depth))
        except ValueError:  # not bound yet
            parts.append(None)
    if type(fn) is FunctionType:
        held = (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())
        parts += [_kind(each, depth) for each in held]
    code = key_of(fn)
    return (id(type(fn)) if code is None else code, *parts)
