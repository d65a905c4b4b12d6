"""How fast a route really is, in loop seconds done per second, and when a run may leave it.

Purpose: tells whether the prediction that a route was chosen by holds.
Guarantees: pure; the clock is a parameter. Work that began before the span, or has not ended by
the end of the span, counts with the part that lies inside.
"""

from __future__ import annotations

from parallax._core.chunks import ChunkResult

#: Seconds that a route is at work before it is judged. Shorter judges by chance, longer keeps a
#: wrong route longer.
MIN_SPAN_S = 0.2

#: Chunks per worker that a judgement rests on.
MIN_CHUNKS_PER_WORKER = 3

#: The same for threads that are hardly faster than the loop, and what that means: they start at
#: once, so what they do not bring after two rounds they never will. More keeps wrong ones longer.
EARLY_SPAN_S, EARLY_CHUNKS_PER_WORKER, POOR_SPEED = 0.025, 2, 1.2

#: A machine that gives less than this share of its cores is too loaded to judge anything.
MIN_CORE_SHARE = 0.4

#: Changes of route in one run. More would be flapping.
MAX_ROUTE_CHANGES = 6

#: Seconds that a route is kept after the first change, doubled with each further one: on a noisy
#: machine every plan may be wrong, and changing is never free.
ROUTE_HOLD_S = 0.1

#: Seconds that a route may take until its first worker is up.
ROUTE_START_TIMEOUT_S = 2.0

#: Seconds between two reviews of the plan. Smaller spends time on planning, larger keeps a wrong
#: route longer.
PLAN_REVIEW_S = 0.02

#: The same in the loop, at least and at most, and the share of its time that reviews may take:
#: while nothing is decided, and afterwards.
UNDECIDED_REVIEW, SETTLED_REVIEW = (0.004, 0.01, 0.02), (0.02, 0.1, 0.01)


def next_review(spent: float, *, settled: bool) -> float:
    """Seconds until the loop's plan is reviewed again, after a review that took ``spent``."""
    least, most, share = SETTLED_REVIEW if settled else UNDECIDED_REVIEW
    return min(most, max(least, spent / share))


class RouteThroughput:
    """One route from the moment when all its workers are up.

    ``delay``: seconds that the workers had spent without a core before; ``early``: a poor speed
    is told before a good one.
    """

    def __init__(
        self, begin: float, workers: int, cores: int, delay: float, *, early: bool = False
    ) -> None:
        self._early = early
        self._begin = begin
        self._workers = workers
        self._cores = cores
        self._delay = delay
        self._work = 0.0
        self.chunks = 0
        self.items = 0
        self.wall = self._cpu = 0.0

    def add(self, now: float, result: ChunkResult, equivalent: float) -> None:
        """Add a chunk that has ended, for which a plain loop would take ``equivalent`` seconds."""
        part = 1.0
        if result.wall > 0:
            part = min(1.0, max(0.0, now - self._begin) / result.wall)
        self._work += equivalent * part
        self.wall += result.wall * part
        self._cpu += result.cpu * part
        self.items += len(result.values)
        self.chunks += 1

    def correct(self, factor: float) -> None:
        """What a loop would take for the chunks so far is so many times what was thought."""
        self._work *= factor

    def speed(self, now: float, under_way: float, delay: float) -> float | None:
        """Loop seconds done per second, on a machine that gives its cores; None: too early.

        Workers have spent ``under_way`` seconds on chunks that have not ended, and ``delay``
        seconds without a core so far.
        """
        span = now - self._begin
        rounds = self.chunks / min(self._workers, self._cores)
        known = span >= MIN_SPAN_S and rounds >= MIN_CHUNKS_PER_WORKER
        early = self._early and span >= EARLY_SPAN_S and rounds >= EARLY_CHUNKS_PER_WORKER
        if not known and not early:
            return None
        under_way = min(under_way, span * self._workers)
        if self.wall < under_way or not self.wall or not self._work:
            return None  # most of what is known is not finished, or too short for the clocks
        more = 1 + under_way / self.wall
        speed = self._work * more / span
        # Other programs take from every route alike; the prediction for the others does not know of
        # them, so what they took is given back here. Not what workers take from each other.
        lacked = max(0.0, delay - self._delay)
        crowd = max(0.0, self._cpu * more + lacked - self._cores * span)
        share = 1.0 - max(0.0, lacked - crowd) / (span * min(self._workers, self._cores))
        if share < MIN_CORE_SHARE:
            return None
        speed /= share
        return speed if known or speed < POOR_SPEED else None


class RouteHold:
    """Keeps a route until it had its chance, and longer after each change: no flapping."""

    def __init__(self) -> None:
        self._changes = 0
        self._until = 0.0
        self._since = 0.0

    def opened(self, now: float) -> None:
        """The first route besides the loop was taken."""
        self._since = now

    def changed(self, now: float) -> None:
        """Another route was taken."""
        self._changes += 1
        self._since = now
        self._until = now + ROUTE_HOLD_S * 2**self._changes

    def failed(self) -> None:
        """A route could not be taken or kept."""
        self._changes += 1

    def holds(self, now: float, *, starting: bool) -> bool:
        """Whether the present route is kept; ``starting`` while none of its workers is up."""
        if self._changes >= MAX_ROUTE_CHANGES or now < self._until:
            return True
        return starting and now < self._since + ROUTE_START_TIMEOUT_S
