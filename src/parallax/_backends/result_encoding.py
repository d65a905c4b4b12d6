"""How results travel from a worker: those of a chunk, of a batch of tasks, of a piece of a map.

Guarantees: every call has its result or its own error, whatever the others do; in a batch or a
piece a result that does not unpickle leaves the others readable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import Any, PickleBuffer, TypeAlias, dumps
from parallax._core.plain_types import PLAIN_TYPES
from parallax._transport import codec

#: The pickle of a result or failure, and its buffers among all: the first one, and how many.
Part: TypeAlias = "tuple[bytes, int, int]"
#: Results: the values of plain types, with None for the others; wall and CPU seconds; by offset the
#: other values, and the failures.
Packed: TypeAlias = "tuple[list[Any], tuple[float, float], dict[int, Part], dict[int, Part]]"


def encode_result(
    result: ChunkResult, encode: Callable[..., codec.Encoded] = codec.encode_reply
) -> codec.Encoded:
    """Encode the result of a chunk as a whole; what does not pickle becomes a failure."""
    try:
        return encode(tuple(_portable(result)))
    except BaseException:  # noqa: BLE001 - whatever a __reduce__ raises
        from parallax._backends.portable_errors import isolate, without_largest

        isolated = isolate(result)
        while True:
            try:
                return codec.encode_reply(tuple(isolated))
            except Exception as fault:  # noqa: BLE001 - there is memory for each, and not for all
                isolated = without_largest(isolated, fault)


def encode_batch(result: ChunkResult) -> codec.Encoded:
    """Encode the results of a batch: as those of a chunk if there is one only, else packed."""
    if len(result.values) == 1:
        return encode_result(result)
    packed, buffers = pack(result)
    return codec.Encoded(dumps(packed, 5), buffers)  # plainly: the buffers are those of the parts


def pack(result: ChunkResult) -> tuple[Packed, list[Any]]:
    """Encode each result on its own, unless of a plain type; for any pickler, with its buffers."""
    values, failures, wall, cpu, *_ = _portable(result)
    buffers: list[Any] = []
    packed: dict[int, Part] = {}
    for offset, value in enumerate(values):
        if type(value) not in PLAIN_TYPES:
            values[offset] = None
            try:
                packed[offset] = _encode(value, buffers)
            except BaseException:  # noqa: BLE001 - whatever a __reduce__ raises
                from parallax._backends.portable_errors import isolate

                stuck = isolate(ChunkResult([value], (), 0.0, 0.0)).failures
                failures += tuple(failure._replace(offset=offset) for failure in stuck)
    failed = {failure.offset: _encode(failure, buffers) for failure in failures}
    return (values, (wall, cpu), packed, failed), buffers


def _portable(result: ChunkResult) -> ChunkResult:
    if not result.failures:
        return result
    from parallax._backends.portable_errors import portable

    return portable(result)


def _encode(obj: Any, buffers: list[Any]) -> Part:
    reply = codec.encode_reply(obj)
    first = len(buffers)
    buffers += reply.buffers
    return reply.payload, first, len(reply.buffers)


class PieceResult:
    """The packed results of a piece of a map: several calls of one callable as a single task."""

    __slots__ = ("buffers", "packed")

    def __init__(self, packed: Packed, buffers: Sequence[Any]) -> None:
        self.packed = packed
        self.buffers = buffers

    def __reduce__(self) -> tuple[Any, ...]:
        return PieceResult, (self.packed, [PickleBuffer(each) for each in self.buffers])


def run_piece(fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]) -> PieceResult:
    """Call ``fn`` with each tuple of arguments; in a worker."""
    values: list[Any] = []
    failures: list[Failure] = []
    begun = time.perf_counter()
    for args in piece:
        try:
            values.append(fn(*args))
        except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
            failures.append(Failure(len(values), error))
            values.append(None)
    wall = time.perf_counter() - begun
    return PieceResult(*pack(ChunkResult(values, tuple(failures), wall, 0.0)))
