"""What all encoders share: the encoded form of an object, and how a pickler class is run."""

from __future__ import annotations

import io
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from copyreg import dispatch_table

from parallax._core.light_stdlib import Any, NamedTuple, PickleBuffer, TypeAlias
from parallax._shm.registry import find_shared

#: Reducers of some types, as in ``copyreg.dispatch_table``.
Reducers: TypeAlias = "Mapping[type, Callable[[Any], Any]]"

#: Smaller buffers stay in the pickle: another part of a frame costs more than the copy it saves.
MIN_BUFFER_BYTES = 1 << 15

#: Buffers of one object outside the pickle; further ones are copied into it. The header of a frame
#: has the length of each, and must fit into one read.
MAX_BUFFERS = 4096

#: Formats of memoryviews that can be cast.
_CASTABLE_FORMATS = frozenset([*"cbBhHiIlLqQnNfdP?", *(f"@{c}" for c in "cbBhHiIlLqQnNfdP?")])


class Encoded(NamedTuple):
    """An object as one pickle and the large buffers that the pickle refers to."""

    payload: bytes
    buffers: list[memoryview]
    #: the slabs of its large parts in shared memory, if the object is kept to be sent again.
    slabs: dict[int, Any] | None = None
    #: the module-level state that a callable reads; see ``module_state.Packed``.
    state: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        return len(self.payload) + sum(b.nbytes for b in self.buffers)


class BufferCollector:
    """The buffer callback of a pickler: True keeps a buffer in the pickle."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def __call__(self, buffer: PickleBuffer) -> bool:
        raw = buffer.raw()
        small = raw.nbytes < MIN_BUFFER_BYTES
        if len(self.buffers) >= MAX_BUFFERS or (small and not find_shared(raw)):
            return True
        if type(raw.obj) is memoryview and raw.obj.format in _CASTABLE_FORMATS:
            # Not as an export of that object: CPython crashes when it collects both together.
            raw = memoryview(raw.obj).cast("B")
        self.buffers.append(raw)
        return False


#: Opcodes that put the next object among the buffers in the memo, where a pickle can refer to it.
_KNOWN = b"\x97\x940"  # NEXT_BUFFER MEMOIZE POP


def dump(
    pickler_class: Any,
    obj: Any,
    buffer_callback: Callable[[PickleBuffer], Any],
    known: Sequence[Any] = (),
) -> bytes:
    """Pickle an object behind its class's mark; ``known`` come first among its buffers."""
    with io.BytesIO() as file:
        file.write(getattr(pickler_class, "payload_mark", b""))
        pickler = pickler_class(file, 5, buffer_callback=buffer_callback)
        if known:
            pickler.memo = {id(each): (n, each) for n, each in enumerate(known)}
            file.write(b"\x80\x05" + _KNOWN * len(known))
        pickler.dump(obj)
        return file.getvalue()


def with_reducers(pickler_class: Any, reducers: Reducers | None) -> Any:
    """The pickler class, with reducers that take precedence over its own."""
    if not reducers:
        return pickler_class
    own = getattr(pickler_class, "dispatch_table", None)
    rest = own if isinstance(own, ChainMap) else dispatch_table
    return type(
        "ReducingPickler", (pickler_class,), {"dispatch_table": ChainMap(dict(reducers), rest)}
    )
