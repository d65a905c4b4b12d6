"""Refuses what is nested so deeply that pickling it would overflow the C stack.

Up to Python 3.11 the pickler counts its depth against the recursion limit only, so a program that
has raised that limit crashes. Later versions raise a RecursionError by themselves.

Assumption: objects are pickled in the order in which they refer to each other, depth first.
"""

from __future__ import annotations

import gc
import sys
from types import FunctionType, ModuleType

from parallax._core.light_stdlib import Any
from parallax._transport.main_module import MAIN_NAMES

#: Nested objects that are pickled. An object and its attributes take about 1 kB of the C stack, of
#: which a thread has 8 MB: more may crash, fewer keep long linked lists at home.
MAX_NESTED = 3000

#: Whether the pickler of this version has no limit of its own.
UNLIMITED = sys.version_info < (3, 12)

_ATOMS = frozenset({int, str, float, bytes, bool, complex, type(None), bytearray})


def check_nesting(obj: Any) -> None:
    """Raise a RecursionError for deep nesting where the program has raised the limit."""
    if sys.getrecursionlimit() <= MAX_NESTED or type(obj) in _ATOMS:
        return
    seen: set[int] = set()
    path = [iter([obj])]
    while path:
        for each in path[-1]:
            if id(each) not in seen:
                seen.add(id(each))
                if held := _held(each):
                    path.append(iter(held))
                    break
        else:
            path.pop()
        if len(path) > MAX_NESTED:
            raise RecursionError(f"it is nested more than {MAX_NESTED} objects deep")


def _held(obj: Any) -> list[Any]:
    kind = type(obj)
    if kind in _ATOMS or issubclass(kind, (type, ModuleType)):
        return []
    if kind is FunctionType:
        held = [*(obj.__closure__ or ()), obj.__defaults__, obj.__kwdefaults__, obj.__dict__]
        if obj.__module__ in MAIN_NAMES:  # it travels by value
            space = obj.__globals__
            held += [space[name] for name in obj.__code__.co_names if name in space]
        return held
    held = gc.get_referents(obj)
    return [] if len(held) > MAX_NESTED and {*map(type, held)} <= _ATOMS else held
