"""``ParallelFunction``: a function that can also be mapped, submitted and explained.

The decorated function is a ``functools.partial`` of the user's function without arguments. A call
runs C code only and costs about 30 ns more than an undecorated one (a method, which is bound first,
about 250 ns), and code that unwraps partials (the side-effect guard, the history of measurements,
``inspect``) finds the user's function.

Guarantees: ``map`` and the other methods pass on the user's function, so that it is measured,
guarded and sent as without the decorator. Importing a decorated function does not load the engines:
worker processes import it only to call it.
"""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import operator
import sys
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType
from typing import Generic, ParamSpec, TypeVar, overload

from parallax._core.light_stdlib import TYPE_CHECKING, Any, loads
from parallax._core.options import (
    CALL_OPTIONS,
    EXPLAIN_OPTIONS,
    MAP_OPTIONS,
    MapOptions,
    StreamOptions,
    check,
    check_names,
    is_cluster,
    resolve,
)
from parallax._transport.wrapped_functions import find_attribute, is_importable, reduce_wrapped

if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Concatenate

    from typing_extensions import Self, Unpack

    from parallax._api.map import Results, ResultStream
    from parallax._reporting.reports import Report

P = ParamSpec("P")
P2 = ParamSpec("P2")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


if TYPE_CHECKING:

    class _Called(Generic[P, R_co]):
        """Calls have the types of the user's function."""

        __name__: str
        __qualname__: str
        __self__: Any
        _fn: Callable[P, R_co]
        _given: dict[str, Any]
        #: it is known not to be wrapped by @classmethod.
        _in_order: bool
        #: for a bound method: the function in its class.
        _origin: Any

        @property
        def __wrapped__(self) -> Callable[P, R_co]: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
else:

    class _Called(functools.partial, Generic[P, R_co]):
        __slots__ = ()


class ParallelFunction(_Called[P, R_co]):
    """A function with ``map``, ``imap``, ``starmap``, ``submit``, ``explain`` and ``options``.

    Made by ``parallel``. Called, it is the function itself. Options given to a method win over
    those of the decorator.
    """

    __slots__ = ("_fn", "_given", "_in_order")

    if not TYPE_CHECKING:

        def __new__(cls, fn, given):
            """Take the callable and the checked options."""
            self = super().__new__(cls, fn)
            self._fn = fn
            self._given = given
            self._in_order = False
            # The attributes of a callable object are not copied.
            updated = vars(fn) if hasattr(fn, "__code__") else {}
            vars(self).update({k: v for k, v in updated.items() if not hasattr(cls, k)})
            return functools.update_wrapper(self, fn, updated=())

    # -- the calls -----------------------------------------------------------------------------

    def map(self, /, *iterables: Iterable[Any], **options: Unpack[MapOptions]) -> Results[R_co]:
        """Call it on every item: ``parallel_map``.

        Args:
            *iterables: the items. Several give the function several arguments, as in ``map``.
            **options: any of ``parallel_map``'s, over those of the decorator.

        Returns:
            A list of the results, with the run's report as its attribute ``report``.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument has a value that cannot be used.
            Exception: as ``parallel_map``.
        """
        from parallax._api.map import parallel_map

        return parallel_map(self._target(), *iterables, **self._over(options))

    def imap(
        self, /, *iterables: Iterable[Any], **options: Unpack[StreamOptions]
    ) -> ResultStream[R_co]:
        """Call it on every item, lazily: ``parallel_imap``.

        Args:
            *iterables: the items; they may be endless.
            **options: any of ``parallel_imap``'s, over those of the decorator.

        Returns:
            An iterator of results.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument has a value that cannot be used.
        """
        from parallax._api.map import parallel_imap

        return parallel_imap(self._target(), *iterables, **self._over(options))

    def starmap(
        self, tuples: Iterable[Iterable[Any]], /, **options: Unpack[MapOptions]
    ) -> Results[R_co]:
        """Call it with the arguments in each tuple, as ``itertools.starmap`` does.

        Args:
            tuples: the positional arguments of each call. What is no iterable is an error of the
                input, and ends it.
            **options: any of ``parallel_map``'s, over those of the decorator.

        Returns:
            A list of the results, with the run's report as its attribute ``report``.

        Raises:
            TypeError: an argument has the wrong type, or a tuple has the wrong length.
            ValueError: an argument has a value that cannot be used.
            Exception: as ``parallel_map``.
        """
        from parallax._api.map import spread_map

        return spread_map(self._target(), tuples, {**self._given, **checked(options)})

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Future[R_co]:
        """Call it once, somewhere else, on an executor that the whole program shares.

        Of the decorator's options ``backend``, ``max_workers``, ``item_timeout`` and ``retries``
        count.

        Args:
            *args: its arguments.
            **kwargs: its keyword arguments.

        Returns:
            A ``concurrent.futures.Future``.

        Raises:
            RuntimeError: the program is ending.
        """
        from parallax._executors.executor import Executor, shared_executor

        names = ("backend", "max_workers", *CALL_OPTIONS)
        options = resolve({name: self._given.get(name) for name in names})
        executor = options.backend
        if isinstance(executor, str) or is_cluster(executor):
            executor = shared_executor(options)
        elif options.retries:
            executor = Executor(backend=executor).options(retries=options.retries)
        future: Future[R_co] = executor.submit(self._target(), *args, **kwargs)
        return future

    def explain(self, /, *iterables: Iterable[Any]) -> Report:
        """Run the first items and say what ``map`` would do with the rest.

        Args:
            *iterables: the items.

        Returns:
            The report; ``print`` it, or read its attributes.

        Raises:
            TypeError: an argument has the wrong type.
            Exception: what the function or the input raised.
        """
        from parallax._api.map import explain

        given = {name: self._given[name] for name in EXPLAIN_OPTIONS if name in self._given}
        return explain(self._target(), *iterables, **given)

    def options(self, /, **options: Unpack[MapOptions]) -> Self:
        """The same function with other options, which win over those that it has.

        Args:
            **options: any of ``parallel_map``'s.

        Raises:
            TypeError: an unknown option, or one of the wrong type.
            ValueError: a value that cannot be used.
        """
        self._target()
        changed: Self = new_function(self._fn, {**self._given, **checked(options)})
        return changed

    def _over(self, options: Any) -> dict[str, Any]:
        return {**self._given, **{k: v for k, v in options.items() if v is not None}}

    def _target(self) -> Callable[..., R_co]:
        """The user's function; refuses a call through a classmethod that drops the class."""
        if not self._in_order:
            self._check_order()
        return self._fn

    def _check_order(self) -> None:
        # Up to 3.12 a classmethod binds the callable that it wraps: only later versions need this.
        qualname = str(getattr(self, "__qualname__", ""))
        holder = qualname.rpartition(".")[0]
        if sys.version_info >= (3, 13) and holder and not holder.endswith("<locals>"):
            found = find_attribute(str(self.__module__), qualname)
            near = [found] if found is not None else gc.get_referrers(self)
            if any(type(each) is classmethod and each.__func__ is self for each in near):
                raise TypeError(
                    f"{qualname}: on this Python, a classmethod over @parallel calls map without "
                    f"the class. Put @parallel on top:\n\n    @parallel\n    @classmethod\n"
                )
        self._in_order = True

    # -- as a method ---------------------------------------------------------------------------

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: ParallelFunction[Concatenate[Any, P2], R], instance: object, owner: Any = None, /
    ) -> ParallelFunction[P2, R]: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        if instance is None:
            return self
        fn = self._fn
        if type(fn) is FunctionType:
            bound: Any = MethodType(fn, instance)
        elif hasattr(fn, "__get__"):
            bound = fn.__get__(instance, owner)
        else:
            return self  # a callable object, which a class does not bind
        made = _make(_Bound, bound)
        made._origin = self
        return made

    def __set_name__(self, owner: type, name: str) -> None:
        self._in_order = True  # it is stored in the class without another decorator around it

    # -- as an object --------------------------------------------------------------------------

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            # Attributes of the wrapped function, such as cache_info.
            if name.startswith("__") and name.endswith("__"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self._fn, name)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._given.items())
        return f"<parallel {self._fn!r}{options}>"

    def __reduce__(self) -> Any:
        if is_importable(self):
            return self.__qualname__
        found = reduce_wrapped(self)
        if found is not NotImplemented:
            return found
        from parallax._transport.by_value import dumps_by_value  # loads cloudpickle

        return loads, (dumps_by_value(self),)

    def _reduce_by_value(self) -> Any:
        # The state follows later: through its globals the function may refer back to this object.
        return _bare, (self._fn, self._given), dict(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class _Bound(ParallelFunction[P, R_co]):
    """A method bound to an object, or a class method bound to its class."""

    __slots__ = ("_origin",)

    if not TYPE_CHECKING:
        _fn = __wrapped__ = property(operator.attrgetter("func"))
        _given = property(operator.attrgetter("_origin._given"))
        __doc__ = property(operator.attrgetter("func.__doc__"))

        @property
        def __signature__(self):
            return inspect.signature(self._fn)

        def __getattr__(self, name):
            return getattr(self._fn, name)

    def options(self, /, **options: Unpack[MapOptions]) -> Self:
        changed: Self = _bind(self._origin.options(**options), self.__self__)
        return changed

    def _target(self) -> Callable[..., R_co]:
        return self._fn

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Bound):
            return NotImplemented
        return self._fn == other._fn and self._given == other._given

    def __hash__(self) -> int:
        return hash(self._fn)

    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        return self

    def __reduce__(self) -> Any:
        return _bind, (self._origin, self.__self__)

    _reduce_by_value = __reduce__

    def __deepcopy__(self, memo: Any) -> Self:
        bound: Self = _bind(self._origin, copy.deepcopy(self.__self__, memo))
        return bound


#: ``partial.__new__``, without the attributes that the class adds.
_make: Any = functools.partial.__new__


def checked(options: Any) -> dict[str, Any]:
    """The given options, checked."""
    check_names("@parallel", options, MAP_OPTIONS)
    check(options)
    return {name: value for name, value in options.items() if value is not None}


#: Makes a ``ParallelFunction`` of a callable and the checked options.
new_function: Any = ParallelFunction


def _bare(fn: Callable[..., Any], given: dict[str, Any]) -> Any:
    """A function that is being unpickled; its attributes follow with the state."""
    made = _make(ParallelFunction, fn)
    made._fn, made._given, made._in_order = fn, given, True
    return made


def _bind(origin: ParallelFunction[..., Any], instance: Any) -> Any:
    return origin.__get__(instance, type(instance))
