"""Objects to and from frames: pickle protocol 5, cloudpickle where plain pickle does not do.

Guarantees: large contiguous buffers (arrays) travel out of band, uncopied by the pickler, and
arrive writable. What is defined in ``__main__`` travels by value, and comes back as the very class
that was sent.
Assumptions: plain pickle is five times faster than cloudpickle on small items (measured), so it is
tried first. A pickle that mentions ``__main__`` (``__mp_main__`` in
children of ``multiprocessing``) is replaced by one by value, because the worker
never runs the caller's main script; so is one that mentions a module that the program has passed to
``cloudpickle.register_pickle_by_value``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache

from parallax._core.light_stdlib import Any, Pickler, dumps, loads
from parallax._shm.registry import any_shared
from parallax._transport import nesting_depth
from parallax._transport.encoded import BufferCollector, Encoded, Reducers, dump, with_reducers
from parallax._transport.out_of_band import (
    OUT_OF_BAND_MARK,
    has_date_arrays,
    has_large_buffers,
    loads_out_of_band,
    make_pickler,
)
from parallax._transport.wrapped_functions import FUNCTION_TYPES, reduce_wrapped

__all__ = ["Encoded", "decode", "encode", "encode_reply"]

#: What pickle says about a function that is not found under its own name.
_NOT_UNDER_ITS_NAME = "not the same object"

_NONE: set[str] = set()


def encode(
    obj: Any,
    *,
    shared: bool = False,
    reducers: Reducers | None = None,
    aliases: bool = True,
    known: Sequence[Any] = (),
) -> Encoded:
    """Encode an object for a worker; raises whatever the pickler does.

    Functions of ``__main__`` that are ``shared`` have one namespace there, see ``worker_main``.
    ``reducers`` precede those that are registered. With ``aliases`` a class travels by another name
    that its module has for it. ``known`` objects come first among the buffers to decode.
    """
    if nesting_depth.UNLIMITED:
        nesting_depth.check_nesting(obj)
    collector = BufferCollector()
    data: bytes | None
    try:
        data = _dumps(obj, collector, reducers, known)
    except Exception as error:  # noqa: BLE001 - any __reduce__ may raise anything
        wrapped = type(error).__name__ == "PicklingError" and _NOT_UNDER_ITS_NAME in str(error)
        data = None
        if wrapped and not reducers and not known:
            data = _dumps_wrapped(obj, collector)
    if data is None or b"_main__" in data or _is_registered(data):
        from parallax._transport.by_value import encode_by_value

        return encode_by_value(obj, shared=shared, reducers=reducers, aliases=aliases, known=known)
    return Encoded(data, collector.buffers)


def encode_reply(obj: Any, known: Sequence[Any] = (), *, as_worker: bool = False) -> Encoded:
    """Encode a result; classes that came by value go back as references to the caller's own."""
    if nesting_depth.UNLIMITED:
        nesting_depth.check_nesting(obj)
    collector = BufferCollector()
    try:
        data = _dumps(obj, collector, known=known)
        if not _is_registered(data) and not (as_worker and b"_main__" in data):
            return Encoded(data, collector.buffers)
    except Exception:  # noqa: BLE001 - as in encode
        pass
    collector = BufferCollector()
    from parallax._transport.by_value import reply_pickler

    pickler_class = reply_pickler(has_large_buffers(obj))
    return Encoded(dump(pickler_class, obj, collector, known), collector.buffers)


def decode(payload: Any, buffers: Any = ()) -> Any:
    """Rebuild an object; the buffers become the memory of its arrays."""
    if payload[0] == OUT_OF_BAND_MARK[0]:
        return loads_out_of_band(payload, buffers)
    return loads(payload, buffers=buffers)


def registered_by_value() -> set[str]:
    """The modules whose functions and classes are to travel by value, as the program wants it."""
    # Not by its public function, which makes a copy: each submit asks.
    return getattr(sys.modules.get("cloudpickle.cloudpickle"), "_PICKLE_BY_VALUE_MODULES", _NONE)


def _is_registered(data: bytes) -> bool:
    """Whether a pickle mentions one of those modules, or what might be one inside of it."""
    # A copy: another thread may register a module.
    names = registered_by_value()
    return bool(names) and any(name.encode() in data for name in [*names])


def _dumps(
    obj: Any,
    collector: BufferCollector,
    reducers: Reducers | None = None,
    known: Sequence[Any] = (),
) -> bytes:
    if not reducers and not any_shared() and not has_large_buffers(obj):
        plain = dump(Pickler, obj, collector, known) if known else None
        data = plain or dumps(obj, 5, buffer_callback=collector)
        if not has_date_arrays(data):
            return data
        collector.buffers.clear()
    return dump(with_reducers(make_pickler(Pickler), reducers), obj, collector, known)


def _dumps_wrapped(obj: Any, collector: BufferCollector) -> bytes | None:
    """Pickle with decorated functions by reference; None if that fails, too."""
    out_of_band = any_shared() or has_large_buffers(obj)
    while True:
        collector.buffers.clear()
        try:
            data = dump(_wrapped_pickler(out_of_band), obj, collector)
        except Exception:  # noqa: BLE001 - as in encode
            return None
        if out_of_band or not has_date_arrays(data):
            return data
        out_of_band = True


@lru_cache(maxsize=2)
def _wrapped_pickler(out_of_band: bool) -> Any:
    class WrappedPickler(Pickler):
        def reducer_override(self, obj: Any) -> Any:
            return reduce_wrapped(obj) if type(obj) in FUNCTION_TYPES else NotImplemented

    return make_pickler(WrappedPickler) if out_of_band else WrappedPickler
