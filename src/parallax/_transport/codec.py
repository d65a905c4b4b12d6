"""Objects to and from frames: pickle protocol 5, cloudpickle where plain pickle does not do.

Guarantees: large contiguous buffers (arrays) travel out of band, uncopied by the pickler, and
come back writable. What is defined in ``__main__`` travels by value and comes back as the very
class it was.
Assumptions: plain pickle is five times faster than cloudpickle on small items (measured), so it
goes first; a pickle that mentions ``__main__`` is made again by value, because the worker never
runs the caller's main script.
"""

from __future__ import annotations

import collections
import copyreg
import functools
import io
import sys
from _thread import allocate_lock

from parallax._core.light_stdlib import NamedTuple, Pickler, dumps, loads
from parallax._shm.registry import any_shared, find_shared
from parallax._transport.out_of_band import (
    OUT_OF_BAND_MARK,
    has_large_buffers,
    is_hidden,
    loads_out_of_band,
    make_pickler,
    reduce_view,
)
from parallax._transport.wrapped_functions import is_importable, reduce_wrapped

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any, TypeAlias

    from parallax._core.light_stdlib import PickleBuffer

    #: How objects of some types are taken apart, as in ``copyreg.dispatch_table``.
    Reducers: TypeAlias = Mapping[type, Callable[[Any], Any]]

__all__ = [
    "OUT_OF_BAND_MARK",
    "Encoded",
    "decode",
    "dumps_by_value",
    "encode",
    "encode_by_value",
    "encode_reply",
    "live_in_main",
    "track_main",
    "worker_main",
]

#: Buffers from this many bytes on travel out of band. Below, one more part in a frame costs more
#: than the copy that it saves.
MIN_BUFFER_BYTES = 1 << 15

#: Buffers of one object that travel out of band. Their lengths stand in the frame's header, which
#: has to fit what is read at once; the others are copied.
MAX_BUFFERS = 4096


class Encoded(NamedTuple):
    """An object as one pickle and the large buffers it refers to."""

    payload: bytes
    buffers: list[memoryview]
    #: where its large parts lie in shared memory, if it is kept to be sent several times.
    slabs: dict[int, Any] | None = None

    @property
    def nbytes(self) -> int:
        """All bytes that travel."""
        return len(self.payload) + sum(b.nbytes for b in self.buffers)


#: Formats of memoryviews that can be cast.
_NATIVE = frozenset([*"cbBhHiIlLqQnNfdP?", *(f"@{c}" for c in "cbBhHiIlLqQnNfdP?")])


class _Keeper:
    """Decides buffer by buffer: True keeps it in band."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def __call__(self, buffer: PickleBuffer) -> bool:
        raw = buffer.raw()
        if len(self.buffers) >= MAX_BUFFERS or (
            raw.nbytes < MIN_BUFFER_BYTES and not find_shared(raw)
        ):
            return True
        if type(raw.obj) is memoryview and raw.obj.format in _NATIVE:
            # Not as an export of that object: CPython crashes when it collects both together.
            raw = memoryview(raw.obj).cast("B")
        self.buffers.append(raw)
        return False


def encode(obj: Any, *, shared: bool = False, reducers: Reducers | None = None) -> Encoded:
    """Encode an object for a worker.

    Args:
        obj: the object.
        shared: functions of ``__main__`` that travel by value share one namespace in the worker,
            over all objects encoded like this; see ``worker_main``.
        reducers: go before those that are registered for everybody.

    Raises:
        Exception: whatever the pickler raised; ``culprit`` then tells where.
    """
    keep = _Keeper()
    try:
        data = _dumps(obj, keep, reducers)
    except Exception as error:  # noqa: BLE001 - anything a __reduce__ raises
        found = _dumps_wrapped(obj, keep) if not reducers and _is_hidden(error) else None
        if found is None:
            # cloudpickle has the last word
            return encode_by_value(obj, shared=shared, reducers=reducers)
        data = found
    if b"__main__" in data:
        return encode_by_value(obj, shared=shared, reducers=reducers)
    return Encoded(data, keep.buffers)


def encode_by_value(
    obj: Any,
    modules: tuple[ModuleType, ...] = (),
    *,
    shared: bool = False,
    reducers: Reducers | None = None,
) -> Encoded:
    """Encode with cloudpickle: functions and classes of ``__main__`` travel by value.

    Args:
        obj: the object.
        modules: further modules whose functions and classes travel by value, because the worker
            cannot import them.
        shared: as for ``encode``.
        reducers: as for ``encode``.
    """
    import cloudpickle

    keep = _Keeper()
    registered = []
    try:
        for module in modules:
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                registered.append(module)
        bulk = any_shared() or has_large_buffers(obj)
        with io.BytesIO() as file:
            if bulk:
                file.write(OUT_OF_BAND_MARK)
            pickler = _taught(_value_pickler(bulk), reducers)(file, 5, buffer_callback=keep)
            if shared:
                # Where cloudpickle looks for the namespace that functions of one module share.
                pickler.globals_ref[id(vars(sys.modules["__main__"]))] = _WorkerMain()
            pickler.dump(obj)
            return Encoded(file.getvalue(), keep.buffers)
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def encode_reply(obj: Any) -> Encoded:
    """Encode a result on the worker's side.

    Classes that came from the parent by value go back as a reference to the parent's own class.
    By value they would be a second class there, and would overwrite the first one's attributes.
    """
    keep = _Keeper()
    try:
        data = _dumps(obj, keep)
        return Encoded(data, keep.buffers)
    except Exception:  # noqa: BLE001 - as in encode
        keep = _Keeper()
    bulk = has_large_buffers(obj)
    with io.BytesIO() as file:
        if bulk:
            file.write(OUT_OF_BAND_MARK)
        _reply_pickler(bulk)(file, 5, buffer_callback=keep).dump(obj)
        return Encoded(file.getvalue(), keep.buffers)


def decode(payload: Any, buffers: Any = ()) -> Any:
    """Rebuild an object. The buffers become the memory of its arrays."""
    if payload[0] == OUT_OF_BAND_MARK[0]:
        return loads_out_of_band(payload, buffers)
    return loads(payload, buffers=buffers)


def _dumps(obj: Any, keep: _Keeper, reducers: Reducers | None = None) -> bytes:
    if not reducers and not any_shared() and not has_large_buffers(obj):
        data = dumps(obj, 5, buffer_callback=keep)
        if not is_hidden(data):
            return data
        keep.buffers.clear()
    with io.BytesIO() as file:
        file.write(OUT_OF_BAND_MARK)
        _taught(_bulk_pickler(), reducers)(file, 5, buffer_callback=keep).dump(obj)
        return file.getvalue()


@functools.lru_cache(maxsize=1)
def _bulk_pickler() -> Any:
    return make_pickler(Pickler)


def _taught(kind: Any, reducers: Reducers | None) -> Any:
    """A pickler class, with reducers that go before its own."""
    if not reducers:
        return kind
    own = getattr(kind, "dispatch_table", None)
    rest = own if isinstance(own, collections.ChainMap) else copyreg.dispatch_table
    table = collections.ChainMap(dict(reducers), rest)
    return type("TaughtPickler", (kind,), {"dispatch_table": table})


#: What pickle says of a function that is not found under its own name.
_HIDDEN = "not the same object"


def _is_hidden(error: Exception) -> bool:
    return type(error).__name__ == "PicklingError" and _HIDDEN in str(error)


def _dumps_wrapped(obj: Any, keep: _Keeper) -> bytes | None:
    """The same once more, with functions under decorators by reference; None if that fails too."""
    bulk = any_shared() or has_large_buffers(obj)
    while True:
        keep.buffers.clear()
        with io.BytesIO() as file:
            if bulk:
                file.write(OUT_OF_BAND_MARK)
            try:
                _wrapped_pickler(bulk)(file, 5, buffer_callback=keep).dump(obj)
            except Exception:  # noqa: BLE001 - as in encode
                return None
            data = file.getvalue()
        if bulk or not is_hidden(data):
            return data
        bulk = True


_CACHED = type(functools.lru_cache(len))
_FUNCTIONS = frozenset({type(functools.update_wrapper), _CACHED})


@functools.lru_cache(maxsize=2)
def _wrapped_pickler(bulk: bool) -> Any:
    class WrappedPickler(Pickler):
        def reducer_override(self, obj: Any) -> Any:
            return reduce_wrapped(obj) if type(obj) in _FUNCTIONS else NotImplemented

    return make_pickler(WrappedPickler) if bulk else WrappedPickler


_worker_main: dict[str, Any] = {"__name__": "__main__"}


def worker_main() -> dict[str, Any]:
    """The namespace that functions of the parent's ``__main__`` share in this worker.

    An initializer that sets a global and the functions that read it must mean the same one.
    """
    return _worker_main


def track_main() -> None:
    """Have forks of this process know its classes of ``__main__`` when they come by value."""
    main = list(vars(sys.modules["__main__"]).values())
    found = [m for m in main if isinstance(m, type) and m.__module__ == "__main__"]
    if found:
        from cloudpickle import cloudpickle as tracking

        for each in found:
            try:
                tracking._get_or_create_tracker_id(each)
            except TypeError:  # one that cannot be hashed
                continue


def live_in_main() -> None:
    """Take the real ``__main__`` for that namespace: this worker was forked from its parent."""
    global _worker_main  # noqa: PLW0603 - a fact about the process
    _worker_main = vars(sys.modules["__main__"])
    tracking: Any = sys.modules.get("cloudpickle.cloudpickle")
    if tracking is not None:
        # It may be held by a thread that is not there.
        tracking._DYNAMIC_CLASS_TRACKER_LOCK = allocate_lock()


class _WorkerMain:
    """Stands for that namespace in a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return worker_main, ()


def _tracked_class(tracker_id: str) -> type:
    from cloudpickle import cloudpickle as tracking

    found: type = tracking._DYNAMIC_CLASS_TRACKER_BY_ID[tracker_id]
    return found


class _Late:
    """Stands for a function that is filled in later, so that it may refer to its own cache."""

    __slots__ = ("fn",)
    fn: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def _empty_cache(parameters: dict[str, Any]) -> Any:
    late = _Late()
    cache = functools.lru_cache(**parameters)(late)
    cache.__dict__["_late"] = late
    return cache


def _fill_cache(cache: Any, fn: Any) -> None:
    cache.__dict__["_late"].fn = fn
    functools.update_wrapper(cache, fn)


@functools.lru_cache(maxsize=2)
def _value_pickler(bulk: bool) -> Any:
    """The parent's pickler class: cloudpickle's, which cannot send a cached function by value."""
    import cloudpickle

    def by_value(module: Any) -> bool:
        names: set[str] = cloudpickle.list_registry_pickle_by_value()
        return any(f"{module}.".startswith(f"{name}.") for name in names)

    class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind in _FUNCTIONS or issubclass(kind, functools.partial):
                here = by_value(obj.__module__)
                if not here and (reduced := reduce_wrapped(obj)) is not NotImplemented:
                    return reduced
                if kind is _CACHED and (here or not is_importable(obj)):
                    make = (_empty_cache, (obj.cache_parameters(),))
                    return (*make, obj.__wrapped__, None, None, _fill_cache)
                # What @parallel makes; its own __reduce__ must suit every pickler.
                own = getattr(kind, "_reduce_by_value", None)
                if own is not None and (here or not is_importable(obj)):
                    return own(obj)
            if kind is memoryview and (reduced := reduce_view(obj)) is not NotImplemented:
                return reduced
            if kind is io.TextIOWrapper:
                _refuse_file(obj)
            return super().reducer_override(obj)

    return make_pickler(ValuePickler) if bulk else ValuePickler


def dumps_by_value(obj: Any) -> bytes:
    """An object that is not importable as bytes for any unpickler, its buffers among them.

    Args:
        obj: the object.
    """
    with io.BytesIO() as file:
        _value_pickler(False)(file, 5).dump(obj)
        return file.getvalue()


@functools.lru_cache(maxsize=2)
def _reply_pickler(bulk: bool) -> Any:
    """The worker's pickler class; made when it is needed, because cloudpickle loads slowly."""
    import cloudpickle
    from cloudpickle import cloudpickle as tracking

    made_here = _made_here()

    class ReplyPickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type):
                tracker_id = tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj)
                if tracker_id is not None and obj not in made_here:
                    return _tracked_class, (tracker_id,)
                reduced = super().reducer_override(obj)
                if obj in tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS:
                    made_here.add(obj)  # the caller's process may have forgotten it next time
                return reduced
            if type(obj) in tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS:
                slots = copyreg._slotnames(type(obj))  # type: ignore[attr-defined]
                if slots:
                    return _without_dict(obj.__reduce_ex__(5), slots)
            elif type(obj) is memoryview and (reduced := reduce_view(obj)) is not NotImplemented:
                return reduced
            elif type(obj) is io.TextIOWrapper:
                _refuse_file(obj)
            return super().reducer_override(obj)

    return make_pickler(ReplyPickler) if bulk else ReplyPickler


def _refuse_file(file: Any) -> None:
    """Cloudpickle makes a StringIO of an open file, which is not the same."""
    if file is not sys.stdout and file is not sys.stderr:
        raise TypeError(f"cannot pickle an open file ({getattr(file, 'name', '')!r})")


@functools.lru_cache(maxsize=1)
def _made_here() -> Any:
    """The classes that this worker has made, unlike those that came from the caller's process."""
    from cloudpickle import cloudpickle as tracking

    return tracking.weakref.WeakSet()


def _without_dict(reduced: Any, slots: list[str]) -> Any:
    """Take the slots out of an instance's ``__dict__``.

    cloudpickle rebuilds a class with ``__slots__`` without them: in the worker its instances
    have a ``__dict__``, in the caller's process they have none.
    """
    state = reduced[2] if isinstance(reduced, tuple) and len(reduced) > 2 else None
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        rest = {name: value for name, value in state[0].items() if name not in slots}
        return (*reduced[:2], (rest or None, state[1]), *reduced[3:])
    return reduced
