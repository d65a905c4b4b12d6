"""Objects that other processes cannot import: functions and classes by value, by cloudpickle.

Guarantees: nothing but a function with ``lru_cache``, which cloudpickle cannot send, open files,
which cloudpickle would turn into other objects, and the file that code names, which cloudpickle
drops, is treated differently than by cloudpickle.
Assumptions: this module is loaded only when plain pickle fails, because cloudpickle loads slowly.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import importlib
import io
import sys
import types
import weakref
from collections import ChainMap
from collections.abc import Sequence
from typing import ClassVar

import cloudpickle
from cloudpickle import cloudpickle as tracking

from parallax._core.light_stdlib import Any
from parallax._shm.registry import any_shared
from parallax._transport.encoded import BufferCollector, Encoded, Reducers, dump, with_reducers
from parallax._transport.main_module import MAIN_NAMES, WorkerMain, number_main_classes
from parallax._transport.out_of_band import (
    has_large_buffers,
    make_pickler,
    reduce_repeating,
    reduce_view,
)
from parallax._transport.wrapped_functions import (
    CACHED_TYPE,
    FUNCTION_TYPES,
    follow_wrapped,
    is_importable,
    reduce_wrapped,
)


def encode_by_value(
    obj: Any,
    *,
    shared: bool = False,
    reducers: Reducers | None = None,
    aliases: bool = True,
    known: Sequence[Any] = (),
) -> Encoded:
    """Encode with cloudpickle: what is of ``__main__`` travels by value; the rest as ``encode``."""
    collector = BufferCollector()
    main = sys.modules["__main__"]
    if main.__name__ != "__main__" and main is sys.modules.get(main.__name__):
        cloudpickle.register_pickle_by_value(main)  # for good: no worker has such a module
    pickler_class = _value_pickler(any_shared() or has_large_buffers(obj), shared, aliases)
    data = dump(with_reducers(pickler_class, reducers), obj, collector, known)
    return Encoded(data, collector.buffers)


def dumps_by_value(obj: Any) -> bytes:
    """An object that is not importable as bytes for any unpickler, including its buffers."""
    return dump(_value_pickler(False, False, True), obj, lambda _: True)


def _reduce_code(code: types.CodeType) -> Any:
    """As cloudpickle, but with the code's file, for tracebacks, warnings, records and sources.

    Newer versions of cloudpickle put ``<dynamic-code>`` in its place.
    """
    make, args = tracking._code_reduce(code)
    return make, tuple(code.co_filename if arg == "<dynamic-code>" else arg for arg in args)


class _FunctionPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends functions with their file, and with imports and annotations that wait for first use."""

    dispatch_table: ClassVar[Any] = ChainMap(
        {types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
    )

    def _dynamic_function_reduce(self, func: Any) -> Any:
        lazy = getattr(types, "LazyImportType", None)
        if lazy is not None:
            _import_now(func, lazy)
        try:
            func.__annotations__  # noqa: B018 - evaluated now, from Python 3.14 on
        except Exception:  # noqa: BLE001 - names for type checkers only, or any other code
            func = _with_annotations_as_text(func)
        return super()._dynamic_function_reduce(func)


def _import_now(func: Any, lazy: Any) -> None:
    """Do the lazy imports of a function (Python 3.15), which is about to use them elsewhere.

    A lazy import tells nothing of itself, and is no module whose submodules would be sent along.
    """
    code, space = func.__code__, func.__globals__
    names = [name for name in tracking._extract_code_globals(code) if name in space]
    for name in names:
        value = space[name]
        if type(value) is lazy:
            space[name] = value = value.resolve()
        if isinstance(value, types.ModuleType):
            root = f"{value.__name__}."
            for pending in list(sys.lazy_modules):  # type: ignore[attr-defined]
                rest = pending.removeprefix(root)
                if rest != pending and not set(rest.split(".")) - set(code.co_names):
                    importlib.import_module(pending)


def _with_annotations_as_text(func: Any) -> Any:
    """A copy of a function whose annotations cannot be evaluated; they need not for a call."""
    closure, defaults = func.__closure__, func.__defaults__
    copy = types.FunctionType(func.__code__, func.__globals__, func.__name__, defaults, closure)
    copy.__kwdefaults__, copy.__qualname__ = func.__kwdefaults__, func.__qualname__
    copy.__module__, copy.__doc__ = func.__module__, func.__doc__
    copy.__dict__.update(func.__dict__)
    with contextlib.suppress(Exception):  # what the text is made of may fail, too
        library = importlib.import_module("annotationlib")
        copy.__annotations__ = library.get_annotations(func, format=library.Format.STRING)
    return copy


@functools.lru_cache(maxsize=8)
def _value_pickler(out_of_band: bool, shared: bool, aliases: bool) -> Any:
    """The pickler class of the caller's process."""

    class ValuePickler(_FunctionPickler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if shared:
                # Here cloudpickle looks for the namespace that functions of one module share.
                self.globals_ref[id(vars(sys.modules["__main__"]))] = WorkerMain()

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind in FUNCTION_TYPES or issubclass(kind, functools.partial):
                by_value = _travels_by_value(obj.__module__)
                if not by_value and (reduced := reduce_wrapped(obj)) is not NotImplemented:
                    return reduced
                by_value = by_value or not is_importable(obj)
                if kind is CACHED_TYPE and by_value:
                    make = (_empty_cache, (obj.cache_parameters(),))
                    return (*make, obj.__wrapped__, None, None, _fill_cache)
                # Of the functions that @parallel creates; their __reduce__ suits every pickler.
                own = getattr(kind, "_reduce_by_value", None)
                if own is not None and by_value:
                    return own(obj)
            if (reduced := _reduce_any(obj)) is not NotImplemented:
                return reduced
            if aliases and isinstance(obj, type) and (reduced := _alias(obj)):
                return reduced
            return super().reducer_override(obj)

    return make_pickler(ValuePickler) if out_of_band else ValuePickler


@functools.lru_cache(maxsize=2)
def reply_pickler(out_of_band: bool) -> Any:
    """The pickler class of the worker."""
    created_here = _classes_created_here()

    class ReplyPickler(_FunctionPickler):
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type):
                if reduced := _alias(obj):
                    return reduced
                tracker_id = tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj)
                if tracker_id is not None and obj not in created_here:
                    return _tracked_class, (tracker_id,)
                reduced = super().reducer_override(obj)
                if obj in tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS:
                    created_here.add(obj)  # the caller may have dropped the class by next time
                return reduced
            if type(obj) in tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS:
                slots = copyreg._slotnames(type(obj))  # type: ignore[attr-defined]
                if slots:
                    return _without_dict(obj.__reduce_ex__(5), slots)
            elif (reduced := _reduce_any(obj)) is not NotImplemented:
                return reduced
            return super().reducer_override(obj)

    return make_pickler(ReplyPickler) if out_of_band else ReplyPickler


@functools.lru_cache(maxsize=1)
def _classes_created_here() -> Any:
    """The classes that this worker created, unlike those that came from the caller's process."""
    return weakref.WeakSet()


def _travels_by_value(module: Any) -> bool:
    names: set[str] = cloudpickle.list_registry_pickle_by_value()
    return any(f"{module}.".startswith(f"{name}.") for name in names)


def _alias(cls: type) -> tuple[Any, ...] | None:
    """How to pickle a class that its module has under another name; None for all others."""
    module = sys.modules.get(cls.__module__)
    if module is None or cls.__module__ in MAIN_NAMES or _travels_by_value(cls.__module__):
        return None
    if is_importable(cls):
        return None
    names = [name for name, value in list(vars(module).items()) if value is cls]
    return (follow_wrapped, (cls.__module__, names[0], 0)) if names else None


def _reduce_any(obj: Any) -> Any:
    """How both pickler classes reduce memoryviews and files; else NotImplemented."""
    if type(obj) is memoryview:
        return reduce_view(obj)
    if type(obj) is io.TextIOWrapper and obj is not sys.stdout and obj is not sys.stderr:
        # Cloudpickle would replace an open file by a StringIO.
        raise TypeError(f"cannot pickle an open file ({getattr(obj, 'name', '')!r})")
    return reduce_repeating(obj)


def _tracked_class(tracker_id: str) -> type:
    found: type = tracking._DYNAMIC_CLASS_TRACKER_BY_ID[tracker_id]
    return found


class _LateFunction:
    """Stands for a function that is set later, so that the function may refer to its own cache."""

    __slots__ = ("fn",)
    fn: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def _empty_cache(parameters: dict[str, Any]) -> Any:
    late = _LateFunction()
    cache = functools.lru_cache(**parameters)(late)
    cache.__dict__["_late"] = late
    return cache


def _fill_cache(cache: Any, fn: Any) -> None:
    cache.__dict__["_late"].fn = fn
    functools.update_wrapper(cache, fn)


def _without_dict(reduced: Any, slots: list[str]) -> Any:
    """Take the slots out of an instance's ``__dict__``.

    cloudpickle rebuilds a class with ``__slots__`` without them: in the worker its instances have
    a ``__dict__``, in the caller's process they have none.
    """
    state = reduced[2] if isinstance(reduced, tuple) and len(reduced) > 2 else None
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        rest = {name: value for name, value in state[0].items() if name not in slots}
        return (*reduced[:2], (rest or None, state[1]), *reduced[3:])
    return reduced


number_main_classes(tracking)
