"""What stands under a decorator, by reference: its own name leads to the decorated one.

``@decorator`` leaves the wrapper under the function's name, and pickle refuses a function that is
not what its module has there. Sent by value it would have globals of its own in the worker. So the
wrapper is named, and how many steps of ``__wrapped__`` lead from it to the function.

Guarantees: only importable modules are named; nothing is imported to send.
Assumption: a module that is imported again decorates the same functions as often.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["find_attribute", "follow_wrapped", "is_importable", "iter_wrapped", "reduce_wrapped"]

#: Decorators over one function that are looked through. A chain may be endless, as that of a mock.
MAX_WRAPPERS = 32

_MISSING = object()


def is_importable(obj: Any) -> bool:
    """Whether importing its module and looking for its name finds this very object.

    Args:
        obj: a function, or what stands for one.
    """
    module, qualname = _names(obj)
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found is obj


def reduce_wrapped(obj: Any) -> Any:
    """How to pickle what is found, but not under its own name; else NotImplemented.

    Args:
        obj: a function, or what stands for one.
    """
    module, qualname = _names(obj)
    for depth, found in enumerate(iter_wrapped(find_attribute(module, qualname))):
        if found is obj:
            return (
                NotImplemented
                if is_importable(obj)
                else (follow_wrapped, (module, qualname, depth))
            )
    return NotImplemented


def follow_wrapped(module: str, qualname: str, depth: int) -> Any:
    """The object that ``reduce_wrapped`` named.

    Args:
        module: where it was defined.
        qualname: its name there.
        depth: how many decorators stand over it.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: it is not there, or has fewer decorators here.
    """
    __import__(module)
    for number, found in enumerate(iter_wrapped(find_attribute(module, qualname))):
        if number == depth:
            return found
    raise AttributeError(
        f"module {module!r} has no {qualname!r} with {depth} decorators over it in this process"
    )


def find_attribute(module: str, qualname: str) -> Any:
    """What a loaded module has under a dotted name, as it stands in the class: nothing is bound.

    Args:
        module: its name; nothing is found in ``__main__``, which no other process imports.
        qualname: the dotted name.
    """
    found: Any = sys.modules.get(module, _MISSING)
    for name in qualname.split("."):
        if isinstance(found, type):
            if name.startswith("__") and not name.endswith("__"):
                found = vars(found).get(f"_{found.__name__.lstrip('_')}{name}", _MISSING)
            else:
                found = vars(found).get(name, _MISSING)
        else:
            found = getattr(found, name, _MISSING)
    return None if found is _MISSING else found


def iter_wrapped(obj: Any) -> Iterator[Any]:
    """An object, what it wraps, and so on.

    Args:
        obj: the outermost; None for nothing.
    """
    for _ in range(MAX_WRAPPERS):
        if obj is None:
            return
        yield obj
        try:
            obj = getattr(obj, "__wrapped__", None)
        except Exception:  # noqa: BLE001 - a program's own __getattr__ may raise anything
            return


def _names(obj: Any) -> tuple[str, str]:
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module == "__main__":
        return "", ""
    return module, qualname
