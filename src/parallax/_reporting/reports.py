"""The report of a run: what was measured, what was chosen and why, what it came to.

Purpose: one value that the run fills in; its text reads like a person's answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from parallax._core.chunks import Route
from parallax._core.plans import Measurement, Plan
from parallax._routing.planner import nature, seconds

__all__ = ["Change", "Report"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of route during a run."""

    #: seconds after the start, and items finished by then.
    at: float
    items: int
    route: Route
    workers: int
    reason: str


@dataclass(slots=True)
class Report:
    """What a run measured, chose and achieved.

    Attributes:
        callable: the name of the user's function.
        backend: what was asked for: "auto", or the backend that was named.
        route: the way most of the run went: "loop", "threads" or "processes".
        workers: how many workers that route had.
        reason: why, in one sentence.
        items: items finished.
        seconds: wall time of the run so far.
        cpu_seconds: CPU time of the items, over all workers.
        measured: what an item costs, or None if nothing had to be measured.
        costs: predicted seconds of each route that could be taken, at the time of the choice.
        changes: each choice of route, in order.
        notes: what else the user should know, a sentence each.
        bytes_in: bytes moved to worker processes.
        bytes_out: bytes moved back.
        bytes_once: bytes of what many items used (captured by the callable, or an argument of
            several items) and worker processes were sent once, in shared memory.
        bytes_spared: bytes that sending it with each item would have moved besides.
        retried: how often an item was run that had, or may have, been run before.
        workers_lost: worker processes that died during the run.
        workers_recycled: worker processes that were replaced at ``max_tasks_per_child`` or
            ``max_memory_per_worker``.
    """

    callable: str = ""
    backend: str = "auto"
    route: Route = "loop"
    workers: int = 1
    reason: str = ""
    items: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    measured: Measurement | None = None
    costs: dict[Route, float] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_once: int = 0
    bytes_spared: int = 0
    retried: int = 0
    workers_lost: int = 0
    workers_recycled: int = 0
    #: only a prediction: nothing but the first items was run.
    explained: bool = False
    #: seconds of items by route, and most workers by route.
    _work: dict[Route, float] = field(default_factory=dict, repr=False)
    _crews: dict[Route, int] = field(default_factory=dict, repr=False)

    @property
    def cores_busy(self) -> float:
        """CPU seconds of the items per second of the run."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0

    def choose(self, plan: Plan, at: float, *, change: bool) -> None:
        """Note a choice of route.

        Args:
            plan: the choice.
            at: seconds after the start.
            change: the route is another one than before.
        """
        self.reason = plan.reason
        self.costs = dict(plan.costs)
        self.workers = plan.workers
        self.route = plan.route
        self._crews[plan.route] = max(plan.workers, self._crews.get(plan.route, 0))
        if change or not self.changes:
            self.changes.append(Change(at, self.items, plan.route, plan.workers, plan.reason))

    def worked(self, route: Route, wall: float, cpu: float) -> None:
        """Add the time of items that a route has run.

        Args:
            route: the route.
            wall: seconds on the clock, summed over its workers.
            cpu: seconds of CPU time.
        """
        self._work[route] = self._work.get(route, 0.0) + wall
        self.cpu_seconds += cpu

    def sum_up(self) -> None:
        """Name the route that did most of the work."""
        if self._work:
            self.route = max(self._work, key=lambda r: self._work[r])
            self.workers = self._crews.get(self.route, 1)

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def __str__(self) -> str:
        lines = [self._headline()]
        if self.measured is not None and self.measured.items:
            source = "remembered from an earlier call" if self.measured.remembered else "measured"
            counted = f"{self.measured.items} item{'s' * (self.measured.items != 1)}"
            about = "" if self.measured.remembered else f" on {counted}"
            lines.append(f"  {source}{about}: {nature(self.measured)}")
        lines.append(f"  route: {self._way()}, because {self.reason or 'it was asked for'}")
        others = {r: c for r, c in self.costs.items() if r != self.route}
        if others:
            said = ", ".join(f"{_WAYS[r]} about {seconds(c)}" for r, c in others.items())
            lines.append(f"  the rest would have cost: {said}")
            lines[-1] += f" ({_WAYS[self.route]}: {seconds(self.costs[self.route])})"
        if len(self.changes) > 1:
            told = "; ".join(
                f"{_WAYS[c.route]} after {c.items} items ({seconds(c.at)})" for c in self.changes
            )
            lines.append(f"  it changed its mind: {told}")
        if not self.explained and self.seconds > 0:
            lines.append(f"  cores kept busy: {self.cores_busy:.1f}")
        if self.bytes_in or self.bytes_out:
            lines.append(f"  moved: {_bytes(self.bytes_in)} out, {_bytes(self.bytes_out)} back")
        if self.bytes_spared:
            times = round((self.bytes_once + self.bytes_spared) / self.bytes_once)
            lines.append(f"  {_bytes(self.bytes_once)} sent once, not {times} times")
        if self.workers_lost or self.retried:
            lines.append(f"  workers lost: {self.workers_lost}, items run again: {self.retried}")
        if self.workers_recycled:
            lines.append(
                f"  workers recycled: {self.workers_recycled}, at the limits that were set"
            )
        lines.extend(f"  note: {text}" for text in self.notes)
        return "\n".join(lines)

    def _headline(self) -> str:
        what = f"`{self.callable}`" if self.callable else "the callable"
        if self.explained:
            return f"{what}: would take the route {self._way()}"
        return f"{what}: {self.items} items in {seconds(self.seconds)} by {self._way()}"

    def _way(self) -> str:
        if self.route == "loop":
            return "a plain loop"
        if self.workers == 1:
            return "one thread" if self.route == "threads" else "one process"
        return f"{self.workers} {self.route}"


_WAYS: dict[Route, str] = {"loop": "a loop", "threads": "threads", "processes": "processes"}


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
