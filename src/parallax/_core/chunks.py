"""The values that travel between the parts and between processes.

Purpose: frozen nouns without behaviour.
Guarantees: this module imports next to nothing, because every worker process loads it.
"""

from __future__ import annotations

from parallax._core.light_stdlib import NamedTuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    Route: TypeAlias = Literal["loop", "threads", "processes"]
else:
    Route = str

__all__ = ["Chunk", "ChunkResult", "Failure", "Route"]


class Chunk(NamedTuple):
    """A run of consecutive items that goes to one worker in one piece."""

    id: int
    start: int
    size: int
    #: how many times these items have been handed out before.
    attempt: int = 0


class Failure(NamedTuple):
    """An exception in the place of one item's result."""

    #: position within the chunk, from 0.
    offset: int
    error: BaseException
    #: the traceback as text where the exception crossed a process boundary, else "".
    traceback: str = ""


class ChunkResult(NamedTuple):
    """What a worker gives back for one chunk.

    ``values`` has one entry per item that was run; the entry of a failed item is None and its
    exception stands in ``failures``. Fewer values than items means that the worker stopped at a
    failure because the caller wants the first error only.
    """

    values: list[Any]
    failures: tuple[Failure, ...]
    #: seconds on the clock, and on the worker thread's CPU clock, for the whole chunk.
    wall: float
    cpu: float
    #: seconds of that wall time in which the thread could run and had no core.
    delay: float = 0.0
