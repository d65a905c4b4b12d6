"""The values that travel between the parts: what was seen, what is planned, what came out.

Purpose: frozen nouns with no behaviour beyond arithmetic on their own fields.
Guarantees: this module imports nothing of parallax, so that every layer may use it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

Route: TypeAlias = Literal["loop", "threads", "processes"]

__all__ = ["Chunk", "ChunkResult", "Failure", "Measurement", "Payload", "Plan", "Route"]


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
    #: seconds of the longest item.
    longest: float


@dataclass(frozen=True, slots=True)
class Payload:
    """What one item costs to send to another process and back."""

    bytes_in: float = 0.0
    bytes_out: float = 0.0
    #: seconds of this process's CPU to encode one item and decode its result.
    seconds: float = 0.0
    #: bytes of the callable with everything it captured, sent once per worker.
    callable_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was seen of the callable while it ran real items in the caller's thread."""

    #: finished items that the figures rest on.
    items: int
    #: mean seconds per item on the clock.
    wall: float
    #: mean seconds per item on the running thread's CPU clock.
    cpu: float
    #: share of the item's wall time during which it held the GIL, 0..1; None if not known yet.
    held: float | None = None
    #: half-width of the interval around ``held``.
    error: float = 1.0
    #: CPU seconds of the whole process per CPU second of the running thread, >= 1.
    native: float = 1.0
    #: standard deviation of item times over their mean.
    spread: float = 0.0
    payload: Payload | None = None
    #: taken from an earlier call with the same code.
    remembered: bool = False

    @property
    def waiting(self) -> float:
        """Share of an item's time in which it used no CPU, 0..1."""
        return max(0.0, 1.0 - self.cpu / self.wall) if self.wall > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done with the items that are left, and why."""

    route: Route
    workers: int
    reason: str
    #: predicted seconds for the items left, by route; a missing route was not allowed.
    costs: dict[Route, float] = field(default_factory=dict)
    #: items left when the plan was made; None if the input's length is not known.
    remaining: int | None = None
    #: False while more measuring could still change it.
    settled: bool = True
