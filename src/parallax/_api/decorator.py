"""The decorator ``parallel``: checks a function and makes a ``ParallelFunction`` of it.

Guarantees: functions that cannot be mapped, and wrong options, are refused at decoration.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, overload

from parallax._api.decorated import ParallelFunction, checked, new_function
from parallax._core.callables import runs_nothing
from parallax._core.light_stdlib import TYPE_CHECKING, Any, Protocol
from parallax._core.options import MapOptions

if TYPE_CHECKING:
    from typing import Concatenate, Generic

    from typing_extensions import Unpack

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_MISSING: Any = object()


if TYPE_CHECKING:

    class ParallelClassMethod(ParallelFunction[Concatenate[type[T], P], R_co], Generic[T, P, R_co]):
        """A function whose first parameter is a class; if it is a class method, it gets bound.

        Type checkers show a decorator over ``@classmethod`` the bare function.
        """

        def __get__(  # type: ignore[override]
            self, instance: object, owner: Any = None, /
        ) -> ParallelFunction[P, R_co]: ...

    class Decorator(Protocol):
        """What ``parallel`` with options returns."""

        @overload
        def __call__(
            self, fn: Callable[Concatenate[type[T], P], R], /
        ) -> ParallelClassMethod[T, P, R]: ...
        @overload
        def __call__(self, fn: Callable[P, R], /) -> ParallelFunction[P, R]: ...


@overload
def parallel(
    fn: Callable[Concatenate[type[T], P], R], /, **options: Unpack[MapOptions]
) -> ParallelClassMethod[T, P, R]: ...
@overload
def parallel(fn: Callable[P, R], /, **options: Unpack[MapOptions]) -> ParallelFunction[P, R]: ...
@overload
def parallel(**options: Unpack[MapOptions]) -> Decorator: ...
def parallel(fn: Any = _MISSING, /, **options: Any) -> Any:
    """Make a function one that can also be mapped over items, on all cores.

    ``f(x)`` stays the call that it was. ``f.map(items)``, ``f.imap(items)`` and
    ``f.starmap(tuples)`` are ``parallel_map`` and its kin, ``f.submit(x)`` gives a future,
    ``f.explain(items)`` says what would be done, and ``f.options(...)`` is the same function with
    other options.

    Works on functions and methods, and over ``@staticmethod`` and ``@classmethod``; under
    ``@classmethod`` only up to Python 3.12. ``obj.method.map(items)`` maps the bound method.
    A static method is looked up on its class, not on an object, if type checkers are to follow.

    Args:
        fn: the function. Without it, as in ``@parallel(max_workers=4)``, the call returns the
            decorator.
        **options: any keyword option of ``parallel_map``, as defaults for the calls of ``map`` and
            the others.

    Returns:
        The decorated function.

    Raises:
        TypeError: ``fn`` cannot be mapped, or an option has the wrong type.
        ValueError: an option has a value that cannot be used.
    """
    given = checked(options)
    if fn is _MISSING:
        return functools.partial(_decorate, given=given)
    return _decorate(fn, given)


def _decorate(fn: Any, given: dict[str, Any]) -> Any:
    if isinstance(fn, staticmethod):
        # A static method is not bound, so the order of both decorators does not matter.
        return staticmethod(_decorate(fn.__func__, given))
    if isinstance(fn, classmethod):
        return _ClassMethod(_decorate(fn.__func__, given))
    if isinstance(fn, ParallelFunction):
        return fn.options(**given)
    _check_callable(fn)
    return new_function(fn, given)


def _check_callable(fn: Any) -> None:
    name = getattr(fn, "__qualname__", None) or repr(fn)
    if isinstance(fn, type):
        raise TypeError(
            f"@parallel is for functions and methods, not for classes such as {name}. To make "
            f"instances in parallel, pass the class: parallel_map({name}, items)"
        )
    if not callable(fn):
        hint = ". Put it under @property" if isinstance(fn, property) else ""
        raise TypeError(f"@parallel is for functions and methods, not {fn!r}{hint}")
    kind = runs_nothing(fn)
    if kind == "coroutine":
        raise TypeError(
            f"{name} is a coroutine function: calling it runs nothing, so @parallel cannot map "
            f"it. Leave it as it is and use parallax.amap({name}, items)"
        )
    if kind == "generator":
        raise TypeError(
            f"{name} is a generator function: calling it runs nothing, and a generator cannot be "
            f"sent between processes. Return a list instead"
        )


class _ClassMethod(classmethod):  # type: ignore[type-arg]
    """A classmethod that binds the callable that it wraps, on every version of Python."""

    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        return self.__func__.__get__(type(instance) if owner is None else owner)

    def __reduce__(self) -> Any:
        return _ClassMethod, (self.__func__,)
