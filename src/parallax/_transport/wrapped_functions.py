"""Decorated functions by reference, although their own name leads to the decorator's wrapper.

``@decorator`` leaves the wrapper under the function's name, and pickle refuses a function that is
not what its module has there. By value it would have globals of its own in the worker. So the
pickle names the wrapper, and the number of ``__wrapped__`` steps from the wrapper to the function.

Guarantees: only importable modules are named; sending imports nothing.
Assumption: a module that is imported again decorates the same functions as often.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache

from parallax._core.light_stdlib import Any
from parallax._transport.main_module import MAIN_NAMES

#: Steps of ``__wrapped__`` that are followed. The chain of a mock is endless.
MAX_WRAPPERS = 32

CACHED_TYPE = type(lru_cache(len))
#: Types of functions that a decorator may have replaced in their module.
FUNCTION_TYPES = frozenset({type(lru_cache), CACHED_TYPE})

_NOT_FOUND = object()


def is_importable(obj: Any) -> bool:
    """Whether an import of the module of ``obj`` and a lookup of its name find ``obj``."""
    module, qualname = _names(obj)
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found is obj


def reduce_wrapped(obj: Any) -> Any:
    """What ``__reduce__`` returns for a function under another name; else NotImplemented."""
    module, qualname = _names(obj)
    for depth, found in enumerate(iter_wrapped(find_attribute(module, qualname))):
        if found is obj:
            if is_importable(obj):
                break
            return follow_wrapped, (module, qualname, depth)
    return NotImplemented


def follow_wrapped(module: str, qualname: str, depth: int) -> Any:
    """The function that ``reduce_wrapped`` named; ImportError or AttributeError without it."""
    __import__(module)
    for number, found in enumerate(iter_wrapped(find_attribute(module, qualname))):
        if number == depth:
            return found
    raise AttributeError(
        f"module {module!r} has no {qualname!r} with {depth} decorators over it in this process"
    )


def find_attribute(module: str, qualname: str) -> Any:
    """An attribute of a loaded module, unbound if it is a method; None if there is none."""
    found: Any = sys.modules.get(module, _NOT_FOUND)
    for name in qualname.split("."):
        if isinstance(found, type):
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{found.__name__.lstrip('_')}{name}"  # noqa: PLW2901 - as Python mangles
            found = vars(found).get(name, _NOT_FOUND)
        else:
            found = getattr(found, name, _NOT_FOUND)
    return None if found is _NOT_FOUND else found


def iter_wrapped(obj: Any) -> Iterator[Any]:
    """An object, the object that it wraps, and so on; nothing for None."""
    for _ in range(MAX_WRAPPERS):
        if obj is None:
            return
        yield obj
        try:
            obj = getattr(obj, "__wrapped__", None)
        except Exception:  # noqa: BLE001 - a program's own __getattr__ may raise anything
            return


def _names(obj: Any) -> tuple[str, str]:
    """Module and qualified name; empty for ``__main__``, which no other process imports."""
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module in MAIN_NAMES:
        return "", ""
    return module, qualname
