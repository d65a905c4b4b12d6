"""C modules of the standard library, without the Python modules that wrap them.

``socket``, ``pickle``, ``signal``, ``threading`` and ``typing`` take 15 ms to import, as long as
the interpreter takes to start, mostly for enumerations and generics that a worker never uses.
Modules that every worker loads import the C modules from here, where they exist.

Guarantees: the names have the meaning of the modules that they come from, and type checkers see
those modules.
"""
# ruff: noqa: F401

from __future__ import annotations

#: Type checkers take this for typing's own constant, by its name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import signal as signals
    import socket as sockets
    from pickle import PickleBuffer, Pickler, PicklingError, Unpickler, dumps, loads
    from threading import local
    from typing import (
        Any,
        Generic,
        Literal,
        NamedTuple,
        NoReturn,
        Protocol,
        TypeAlias,
        TypedDict,
        TypeVar,
        overload,
    )
else:
    from _collections import _tuplegetter
    from types import FunctionType

    # In annotations, which nobody evaluates, and as a base.
    Any = Literal = NoReturn = Protocol = TypeAlias = object

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

    class _Named(tuple):
        """What all named tuples have, as those of ``collections``."""

        __slots__ = ()
        _fields = ()

        @classmethod
        def _make(cls, values: Any) -> Any:
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **changes: Any) -> Any:
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return made

        __replace__ = _replace

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            shown = (f"{k}={v!r}" for k, v in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({', '.join(shown)})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    _makers: dict[int, Any] = {}

    class _Fields(type):
        """Makes a named tuple of a class body; to compile code for each would take 0.1 ms."""

        def __new__(cls, name: str, _: Any, space: dict[str, Any]) -> type:
            fields = tuple(space.pop("__annotations__", ()))
            defaults = tuple(space.pop(field) for field in fields if field in space)
            if (count := len(fields)) not in _makers:
                given = "".join(f"_{at}, " for at in range(count))
                text = f"lambda _cls, {given}: _new(_cls, ({given}))"
                _makers[count] = eval(text, {"_new": tuple.__new__})  # noqa: S307 - no input
            maker = _makers[count]
            code = maker.__code__.replace(co_varnames=("_cls", *fields), co_name="__new__")
            new = FunctionType(code, maker.__globals__, "__new__", defaults)
            new.__qualname__ = f"{name}.__new__"
            getters = {field: _tuplegetter(at, None) for at, field in enumerate(fields)}
            named = {"__new__": new, "_fields": fields, "__match_args__": fields}
            named["_field_defaults"] = dict(
                zip(fields[count - len(defaults) :], defaults, strict=True)
            )
            return type(name, (_Named,), {"__slots__": (), **named, **getters, **space})

    NamedTuple = type.__new__(_Fields, "NamedTuple", (), {})

    class Generic:
        """A base whose parameters are for type checkers only."""

        __slots__ = ()

        def __class_getitem__(cls, _: Any) -> type:
            return cls

    class TypedDict:
        """A base that is for type checkers only."""

        def __init_subclass__(cls, total: bool = True) -> None:
            pass

    def TypeVar(name: str, **_: Any) -> str:  # noqa: N802 - as in typing
        """A type variable, which is for type checkers only."""
        return name

    def overload(fn: Any) -> None:
        """A signature that is for type checkers only."""
