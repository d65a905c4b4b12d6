"""What was seen of a callable and what will be done about it, as values.

Purpose: frozen nouns with no behaviour beyond arithmetic on their own fields.
"""

from __future__ import annotations

from parallax._core.chunks import Route
from parallax._core.records import field, record

__all__ = ["Measurement", "Payload", "Plan"]


@record(frozen=True, slots=True)
class Payload:
    """What one item costs to send to another process and back."""

    bytes_in: float = 0.0
    bytes_out: float = 0.0
    #: seconds to encode one item and decode its result; the worker takes about as long again.
    seconds: float = 0.0
    #: bytes of the callable with everything it captured, sent once per worker.
    callable_bytes: float = 0.0


@record(frozen=True, slots=True)
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


@record(frozen=True, slots=True)
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
