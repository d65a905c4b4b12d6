"""Measurements of a callable, and the plans that follow from them, as frozen values."""

from __future__ import annotations

from parallax._core.chunks import Route
from parallax._core.records import field, record


@record(frozen=True, slots=True)
class Payload:
    """The cost of sending one item to another process and its result back."""

    bytes_in: float = 0.0
    bytes_out: float = 0.0
    #: seconds to encode one item and decode its result here; a worker needs about the same time.
    seconds: float = 0.0
    #: bytes of the callable with all captured data, sent once per worker.
    callable_bytes: float = 0.0
    #: seconds that a worker spends once on comparing what it is sent with what it has.
    once: float = 0.0


@record(frozen=True, slots=True)
class Measurement:
    """What was measured while the callable ran real items in the caller's thread."""

    items: int
    #: mean wall seconds per item.
    wall: float
    #: mean CPU seconds per item, of the thread that runs it.
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
    #: how many times as much CPU time an item takes beside other threads; above 1 without a GIL.
    contention: float = 1.0
    #: whether this comes from an earlier call of the same code.
    remembered: bool = False

    @property
    def waiting(self) -> float:
        """Share of an item's time in which it used no CPU, 0..1."""
        return max(0.0, 1.0 - self.cpu / self.wall) if self.wall > 0 else 0.0


@record(frozen=True, slots=True)
class Plan:
    """The route of the remaining items, and the reason for it."""

    route: Route
    workers: int
    reason: str
    #: predicted seconds for the remaining items, by route; only allowed routes are listed.
    costs: dict[Route, float] = field(default_factory=dict)
    #: items left when the plan was made; None if the length of the input is unknown.
    remaining: int | None = None
    #: False while further measurements may change the plan.
    settled: bool = True
