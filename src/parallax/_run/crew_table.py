"""The crews of one run: which worker belongs to which crew, and which workers are up.

Guarantees: a worker's number is used once per run. The dispatcher's lock guards all changes;
``crew_of`` may be called from any thread.
"""

from __future__ import annotations

from collections import defaultdict

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from parallax._backends.contract import Crew
    from parallax._core.chunks import Route

#: The number of the caller's thread among the workers.
CALLER = 0


class CrewTable:
    """All crews of a run, by route."""

    def __init__(self) -> None:
        self.crews: dict[Route, Crew] = {}
        self._route_of: dict[int, Route] = {CALLER: "loop"}
        self._up: dict[Route, set[int]] = defaultdict(set)
        self._last_id = CALLER

    def new_id(self) -> int:
        """A number for a new worker of this run."""
        self._last_id += 1
        return self._last_id

    def route_of(self, worker: int) -> Route:
        """The route of a worker; "loop" for one that never joined."""
        return self._route_of.get(worker, "loop")

    def crew_of(self, worker: int) -> Crew | None:
        """The crew of a worker; None for the caller's thread."""
        return self.crews.get(self.route_of(worker))

    def join(self, worker: int) -> Route:
        """A worker is up; return its route."""
        route: Route = "loop"
        if worker != CALLER:
            route = next(r for r, crew in self.crews.items() if crew.owns(worker))
        self._route_of[worker] = route
        self._up[route].add(worker)
        return route

    def leave(self, worker: int) -> None:
        """A worker is gone."""
        self._up[self.route_of(worker)].discard(worker)

    def up(self, route: Route) -> set[int]:
        """The workers of a route that are up."""
        return self._up[route]

    def others(self, route: Route) -> list[int]:
        """The workers of all other routes that are up."""
        return [name for other, names in self._up.items() if other != route for name in names]

    def any_up(self) -> bool:
        """Whether any worker is up."""
        return any(self._up.values())
