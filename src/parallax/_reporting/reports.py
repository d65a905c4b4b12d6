"""Reports: what was measured, which route was chosen and why, and what that came to.

Purpose: values that a run or an executor fills in; their text answers a user who asks why.
Guarantees: the text uses no word of this package but those of its public interface.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.records import field, record
from parallax._routing.planner import nature, seconds

if TYPE_CHECKING:
    from parallax._core.chunks import ChunkResult, Route
    from parallax._core.plans import Measurement, Plan
    from parallax._routing.route_choice import RouteChoice


@record(frozen=True, slots=True)
class RouteChange:
    """A change of route during a run."""

    #: seconds after the start, and items finished by then.
    at: float
    items: int
    route: Route
    workers: int
    reason: str


@record(slots=True)
class Report:
    """What a run measured, chose and achieved.

    Each figure is an attribute of its own, because users read them by name: that makes 23.

    Attributes:
        callable: the name of the user's function.
        backend: what was asked for: "auto", or the backend that was named.
        route: where most of the items ran: "loop", "threads", "interpreters" or "processes".
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
        looking: seconds, over all workers, of looking what items change outside of their call.
        start: how worker processes were started, if a fork of the program was considered.
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
    changes: list[RouteChange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_once: int = 0
    bytes_spared: int = 0
    retried: int = 0
    looking: float = 0.0
    start: str = ""
    workers_lost: int = 0
    workers_recycled: int = 0
    #: whether this is only a prediction: nothing but the first items was run.
    explained: bool = False
    #: seconds of items, and most workers, by route.
    _totals: dict[Route, tuple[float, int]] = field(default_factory=dict)

    @property
    def cores_busy(self) -> float:
        """CPU seconds of the items per second of the run."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0

    def choose(self, plan: Plan, at: float, *, change: bool) -> None:
        """Note a plan, made so many seconds after the start; ``change``: it has a new route."""
        self.reason = plan.reason
        self.costs = dict(plan.costs)
        self.workers = plan.workers
        self.route = plan.route
        work, workers = self._totals.get(plan.route, (0.0, 0))
        self._totals[plan.route] = work, max(plan.workers, workers)
        if change or not self.changes:
            self.changes.append(RouteChange(at, self.items, plan.route, plan.workers, plan.reason))

    def worked(self, route: Route, wall: float, cpu: float) -> None:
        """Add the time of items: seconds on the clock, summed over workers, and of CPU time."""
        work, workers = self._totals.get(route, (0.0, 1))
        self._totals[route] = work + wall, workers
        self.cpu_seconds += cpu

    def add(self, result: ChunkResult, route: Route, *moved: int) -> None:
        """Add a chunk that came back from a worker of a route, and the bytes that it moved."""
        self.worked(route, result.wall, result.cpu)
        self.looking += result.looked
        self.bytes_in += moved[0]
        self.bytes_out += moved[1]
        self.bytes_once += moved[2]
        self.bytes_spared += moved[3]

    def ran_again(self, first: int, last: int, name: str) -> None:
        """Items ran in a worker and once more at home."""
        what = f"item {first} was" if first == last else f"items {first} to {last} were"
        self.note(
            f"{what} run again in this process: in a worker process its copy of `{name}` changed"
        )

    def sum_up(self) -> None:
        """Name the route that did most of the work."""
        if any(work for work, _ in self._totals.values()):
            self.route = max(self._totals, key=lambda route: self._totals[route][0])
            self.workers = self._totals[self.route][1]

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def __str__(self) -> str:
        lines = [self._headline(), f"  why: {self._why()}"]
        if len(self.costs) > 1:
            said = ", ".join(f"{seconds(cost)} {_PLACES[r]}" for r, cost in self.costs.items())
            lines.append(f"  estimated time: {said}")
        if len(self.changes) > 1 and not self.explained:
            lines.append(f"  where it ran: {', then '.join(map(_told, self.changes))}")
        if not self.explained and self.seconds > 0:
            lines.append(f"  cores kept busy: {self.cores_busy:.1f}")
        if self.looking > 0.001:
            lines.append(f"  looking for changes of shared state: {seconds(self.looking)}")
        if self.start:
            lines.append(f"  worker processes: {self.start}")
        if self.bytes_in or self.bytes_out:
            sent, received = _bytes(self.bytes_in), _bytes(self.bytes_out)
            lines.append(f"  data sent to workers: {sent}, received from them: {received}")
        if self.bytes_spared:
            times = round((self.bytes_once + self.bytes_spared) / self.bytes_once)
            lines.append(f"  {_bytes(self.bytes_once)} sent once, not {times} times")
        if self.workers_lost or self.retried:
            lost, again = self.workers_lost, self.retried
            lines.append(f"  worker processes that died: {lost}, items run again: {again}")
        if self.workers_recycled:
            lines.append(
                f"  workers recycled: {self.workers_recycled}, at max_tasks_per_child or "
                f"max_memory_per_worker"
            )
        lines.extend(f"  note: {text}" for text in self.notes)
        return "\n".join(lines)

    def _headline(self) -> str:
        what = f"`{self.callable}`" if self.callable else "the callable"
        if self.route == "loop":
            where = _PLACES["loop"]
        else:
            many = self.workers != 1
            kind = "worker process" if self.route == "processes" else self.route[:-1]
            where = f"in {self.workers} {kind}{('es' if kind[-1] == 's' else 's') * many}"
        if self.explained:
            return f"{what}: would run {where}"
        return f"{what}: {_items(self.items)} in {seconds(self.seconds)}, {where}"

    def _why(self) -> str:
        seen = self.measured
        if not self.reason and not self.items:
            return "there were no items"
        why = self.reason or "it was asked for"
        if seen is None or not (seen.items or seen.remembered):
            return why
        if " takes " not in why and " taken " not in why:
            why += f"; {nature(seen)}"
        counted = f"measured on {_items(seen.items)}"
        return f"{why} ({'known from an earlier call' if seen.remembered else counted})"


_PLACES = {
    "loop": "in a plain loop",
    "threads": "in threads",
    "interpreters": "in interpreters",
    "processes": "in worker processes",
}


def _told(change: RouteChange) -> str:
    place = _PLACES[change.route]
    if change.route == "loop" or not change.items:
        return place
    return f"{place} after {_items(change.items)} ({seconds(change.at)})"


def _items(count: int) -> str:
    return f"{count} item{'s' * (count != 1)}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


@record(frozen=True, slots=True)
class FunctionReport:
    """How the calls of one function are run.

    Attributes:
        name: the function's qualified name.
        route: "threads" or "processes"; None while that is not decided.
        reason: why, in words.
        threads: number of calls that ended in threads.
        processes: number of calls that ended in worker processes.
        seconds: what a call takes on the clock, weighted towards the latest; None before the first.
        cpu_seconds: the same on the CPU clock of its thread.
        changes: how often the route was changed.
    """

    name: str
    route: str | None
    reason: str
    threads: int
    processes: int
    seconds: float | None
    cpu_seconds: float | None
    changes: int

    def __str__(self) -> str:
        ended = {"threads": self.threads, "processes": self.processes}
        counts = [
            f"{count} call{'s' * (count > 1)} {_PLACES[where]}"
            for where, count in ended.items()
            if count
        ]
        text = f"`{self.name}`: {' and '.join(counts) or 'no call has ended'}"
        if self.seconds is not None:
            text += f", about {seconds(self.seconds)} each"
        if self.route is None:
            return f"{text}; where further calls run is not decided: {self.reason}"
        text += f"; calls run {_PLACES[self.route]}, because {self.reason}"
        if self.changes:
            text += f" (changed {self.changes} time{'s' * (self.changes > 1)})"
        return text


@record(frozen=True, slots=True)
class ExecutorReport:
    """What ``Executor.report`` returns.

    Attributes:
        backend: what was asked for.
        functions: one entry per function and kind of arguments, oldest first; empty unless the
            backend is "auto".
    """

    backend: str
    functions: tuple[FunctionReport, ...]

    def __str__(self) -> str:
        if self.backend == "serial":
            return "every call runs in the calling thread, because backend='serial' was asked for"
        if self.backend in _PLACES:
            where = _PLACES[self.backend]
            return f"every call runs {where}, because backend={self.backend!r} was asked for"
        if self.backend != "auto":
            return f"every call runs in the {self.backend} that was passed as backend"
        return "\n".join(map(str, self.functions)) or "no call was submitted yet"


def function_report(choice: RouteChoice) -> FunctionReport:
    """The report on one function."""
    known = choice.calls > 0
    return FunctionReport(
        choice.name,
        choice.route,
        choice.stay or choice.reason,
        choice.ended["threads"],
        choice.ended["processes"],
        choice.wall if known else None,
        choice.cpu if known else None,
        choice.changes,
    )
