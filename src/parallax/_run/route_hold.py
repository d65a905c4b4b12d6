"""When a run may change its route: a pure rule that keeps a wrong plan from flapping."""

from __future__ import annotations

#: Changes of route in one run. More would be flapping.
MAX_ROUTE_CHANGES = 6

#: Seconds that a route is kept after the first change, doubled with each further one: on a noisy
#: machine every plan may be wrong, and changing is never free.
ROUTE_HOLD_S = 0.1

#: Seconds that a route may take until its first worker is up.
ROUTE_START_TIMEOUT_S = 2.0


class RouteHold:
    """Keeps a route until it had its chance, and longer after each change."""

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
