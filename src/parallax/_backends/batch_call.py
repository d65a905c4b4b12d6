"""Several calls of one callable as a single task: how short items of a map travel.

Guarantees: every call has its result or its own error, whatever the others do; one that does not
pickle, or does not unpickle, leaves the others readable.
"""

from __future__ import annotations

import time

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import PickleBuffer
from parallax._core.plain_types import PLAIN_TYPES
from parallax._transport import codec

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Packed", "Part", "run_part"]


class Packed:
    """A result that is a pickle of its own."""

    __slots__ = ("buffers", "payload")

    def __init__(self, payload: bytes, buffers: list[Any]) -> None:
        self.payload = payload
        self.buffers = buffers

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.payload, [PickleBuffer(each) for each in self.buffers])

    def open(self) -> Any:
        """Rebuild the result; raises whatever its class does."""
        return codec.decode(self.payload, self.buffers)


class Part:
    """What such a task gives back."""

    __slots__ = ("failures", "seconds", "values")

    def __init__(self, values: list[Any], failures: tuple[Failure, ...], seconds: float) -> None:
        #: one entry per call; that of a failed one is None.
        self.values = values
        self.failures = failures
        #: for all calls together.
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return Part, (self.values, self.failures, self.seconds)


def run_part(fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]) -> Part:
    """Call ``fn`` with each tuple of arguments; in a worker.

    Args:
        fn: the user's callable.
        piece: the arguments of each call.
    """
    values: list[Any] = []
    failures: list[Failure] = []
    begun = time.perf_counter()
    for args in piece:
        try:
            values.append(fn(*args))
        except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
            failures.append(Failure(len(values), error))
            values.append(None)
    seconds = time.perf_counter() - begun
    for offset, value in enumerate(values):
        if type(value) not in PLAIN_TYPES:
            try:
                reply = codec.encode_reply(value)
                values[offset] = Packed(reply.payload, reply.buffers)
            except BaseException:  # noqa: BLE001 - whatever a __reduce__ raises
                failures += _stuck(value, offset)
                values[offset] = None
    if failures:
        from parallax._backends.portable_errors import (
            portable,  # loads what a worker without failures never needs
        )

        failures = list(portable(ChunkResult(values, tuple(failures), 0.0, 0.0)).failures)
    return Part(values, tuple(failures), seconds)


def _stuck(value: Any, offset: int) -> list[Failure]:
    from parallax._backends.portable_errors import isolate

    found = isolate(ChunkResult([value], (), 0.0, 0.0)).failures
    return [failure._replace(offset=offset) for failure in found]
