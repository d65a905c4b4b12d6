"""C modules of the standard library, without the Python modules that wrap them.

``socket``, ``pickle``, ``signal``, ``threading`` and ``typing`` take 15 ms to import, as long as
the interpreter takes to start, mostly for enumerations and generics that a worker never uses.
Modules that every worker loads import the C modules from here, where they exist.

Guarantees: the names have the meaning of the modules that they come from, and type checkers see
those modules.
"""

from __future__ import annotations

#: Type checkers take this for typing's own constant, by its name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import signal as signals
    import socket as sockets
    from pickle import PickleBuffer, Pickler, PicklingError, Unpickler, dumps, loads
    from threading import local
    from typing import Any, Generic, NamedTuple, TypeVar, overload
else:
    from collections import namedtuple

    try:
        import _signal as signals
        import _socket as sockets
        from _pickle import PickleBuffer, Pickler, PicklingError, Unpickler, dumps, loads
        from _thread import _local as local
    except ImportError:
        import signal as signals
        import socket as sockets
        from pickle import PickleBuffer, Pickler, PicklingError, Unpickler, dumps, loads
        from threading import local

    class _Fields(type):
        """Makes a named tuple of a class body, as ``typing.NamedTuple`` does."""

        def __new__(cls, name: str, _: Any, space: dict[str, Any]) -> type:
            fields = list(space.pop("__annotations__", ()))
            defaults = [space.pop(field) for field in fields if field in space]
            made = namedtuple(name, fields, defaults=defaults, module=space.pop("__module__"))
            for key, value in space.items():
                setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Fields, "NamedTuple", (), {})

    class Generic:
        """A base whose parameters are for type checkers only."""

        __slots__ = ()

        def __class_getitem__(cls, _: Any) -> type:
            return cls

    def TypeVar(name: str, **_: Any) -> str:  # noqa: N802 - as in typing
        """A type variable, which is for type checkers only."""
        return name

    def overload(fn: Any) -> None:
        """A signature that is for type checkers only."""


__all__ = [
    "TYPE_CHECKING",
    "Generic",
    "NamedTuple",
    "PickleBuffer",
    "Pickler",
    "PicklingError",
    "TypeVar",
    "Unpickler",
    "dumps",
    "loads",
    "local",
    "overload",
    "signals",
    "sockets",
]
