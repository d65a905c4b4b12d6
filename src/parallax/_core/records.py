"""Classes of named fields, as ``dataclasses`` makes them, without the price of importing that.

Importing ``dataclasses`` loads ``inspect``, ``ast`` and ``tokenize``, and each class is compiled
from source: for this package 30 ms more than is to be paid before a user's first item.

Guarantees: type checkers see ``dataclass`` itself; ``dataclasses.fields``, ``asdict`` and
``replace`` work on what is made here; records pickle and copy.
Assumptions: the class body uses neither ``super()`` nor slots of its own, and no base is a record.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from dataclasses import field, replace
else:

    class field:  # noqa: N801 - as in dataclasses
        """A field whose default is made anew for each record."""

        def __init__(self, *, default_factory):
            self.default_factory = default_factory

    class _StandardFields:
        """``__dataclass_fields__``, made when somebody asks for it."""

        def __get__(self, instance, owner):
            import dataclasses

            made = dataclasses.make_dataclass(owner.__name__, owner.__annotations__.items())
            owner.__dataclass_fields__ = made.__dataclass_fields__
            return made.__dataclass_fields__

    class _Record:
        __slots__ = ()
        _defaults = {}  # noqa: RUF012 - each class gets its own
        _made = ()  # fields whose defaults are made anew
        __match_args__ = ()
        __dataclass_fields__ = _StandardFields()

        def __init__(self, *args, **named):
            names = self.__match_args__
            if len(args) > len(names):
                raise TypeError(f"{type(self).__name__} takes {len(names)} fields, not {len(args)}")
            for name, value in zip(names, args):  # noqa: B905 - there may be fewer values
                if name in named:
                    raise TypeError(f"{type(self).__name__} got {name!r} twice")
                named[name] = value
            values = {**self._defaults, **named}
            for name in self._made:
                if name not in named:
                    values[name] = values[name].default_factory()
            store = object.__setattr__
            for name in names:
                if name not in values:
                    raise TypeError(f"{type(self).__name__} needs a value for {name!r}")
                store(self, name, values[name])
            if len(values) > len(names):
                wrong = next(name for name in named if name not in names)
                raise TypeError(f"{type(self).__name__} has no field {wrong!r}")

        def _values(self):
            return tuple(getattr(self, name) for name in self.__match_args__)

        def __eq__(self, other):
            if type(other) is not type(self):
                return NotImplemented
            return self._values() == other._values()

        __hash__ = None

        def __repr__(self):
            shown = (name for name in self.__match_args__ if not name.startswith("_"))
            fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
            return f"{type(self).__qualname__}({fields})"

        def __reduce__(self):
            return type(self), self._values()

    class _Frozen(_Record):
        __slots__ = ()

        def __setattr__(self, name, value):
            raise AttributeError(f"cannot assign to field {name!r}")

        def __delattr__(self, name):
            raise AttributeError(f"cannot delete field {name!r}")

        def __hash__(self):
            return hash(self._values())

    def record(cls=None, /, *, frozen=False, slots=True):
        """Make a class of named fields of one with annotations."""
        if cls is None:
            return lambda cls: record(cls, frozen=frozen, slots=slots)
        space = dict(vars(cls))
        names = tuple(space.get("__annotations__", ()))
        defaults = {name: space.pop(name) for name in names if name in space}
        space.pop("__dict__", None)
        space.pop("__weakref__", None)
        made = tuple(name for name, value in defaults.items() if type(value) is field)
        space |= {"__slots__": names, "__match_args__": names}
        space |= {"_defaults": defaults, "_made": made}
        bases = (_Frozen if frozen else _Record, *cls.__bases__)
        return type(cls.__name__, tuple(base for base in bases if base is not object), space)

    def replace(obj, /, **changes):
        """The same record with other values in some of its fields."""
        made, store = object.__new__(type(obj)), object.__setattr__
        for name in obj.__match_args__:
            store(made, name, changes.pop(name) if name in changes else getattr(obj, name))
        if changes:
            raise TypeError(f"{type(obj).__name__} has no field {next(iter(changes))!r}")
        return made


__all__ = ["field", "record", "replace"]
