"""Reports: what was measured, which route was chosen and why, and what that came to.

Purpose: values that a run or an executor fills in; their text answers a user who asks why.
Guarantees: the text uses no word of this package but those of its public interface.
"""

from __future__ import annotations

import os

from parallax._core.chunks import ChunkResult, Route
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.plans import Measurement, Plan
from parallax._core.records import field, record
from parallax._reporting.recording import Recording
from parallax._routing.planner import nature, seconds

if TYPE_CHECKING:
    from parallax._reporting import export
else:
    export = lazy_module("parallax._reporting.export")

#: Lines of a report for people: more are not read.
MAX_LINES = 8

#: Letters of a line, which may name what the program has named.
MAX_LINE = 1000


class Exports:
    """The forms of a report that are not for reading in a terminal."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, by the schema in docs/reports.md."""
        return export.as_dict(self)

    def to_json(self, *, indent: int | None = None) -> str:
        """``to_dict`` as JSON text, with ``indent`` spaces per level or by default in one line."""
        return export.as_json(self, indent)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write a timeline of what was recorded: one page that needs no network.

        Args:
            path: the file, which is replaced if it exists.

        Raises:
            ValueError: nothing was recorded; the call has to be made with ``record=True``.
            OSError: the file cannot be written; it names the path.
        """
        export.write_page(self, path)

    def to_perfetto(self, path: str | os.PathLike[str]) -> None:
        """Write what was recorded as Chrome trace events, for https://ui.perfetto.dev.

        ``path`` and Raises: as for ``to_html``.
        """
        export.write_trace(self, path)

    def _repr_html_(self) -> str:
        return export.as_html(self)


@record(frozen=True, slots=True)
class RouteChange:
    """A change of route during a run."""

    #: seconds after the start, and items finished by then.
    at: float
    items: int
    route: Route
    workers: int
    reason: str
    #: when the run was expected to end, in seconds after its start; None if that was not known.
    predicted: float | None = None


@record(slots=True)
class Report(Exports):
    """What a run measured, chose and achieved.

    Each figure is an attribute of its own, because users read them by name: that makes 30. An
    exception that ended the run has the report as its attribute ``parallax_report``.

    Attributes:
        callable: the name of the user's function.
        backend: what was asked for: "auto", the backend that was named, or the class of the
            executor that was passed.
        route: where most of the items ran: "loop", "threads", "interpreters", "processes" or
            "executor".
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
        raised: how often an item raised an exception, attempts that were repeated included.
        packing: seconds that this process spent on packing items and unpacking results.
        ended: what ended the run early, in a word or two; "" if nothing did.
        reads: module-level data that the callable reads, as far as its code was looked at.
        writes: what it changes outside of a call, a clause each, as far as that was looked for.
        work: what each worker did, the slowest items, and with ``record=True`` each chunk.
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
    raised: int = 0
    packing: float = 0.0
    ended: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    work: Recording = field(default_factory=Recording)
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
            cost = plan.costs.get(plan.route) if plan.remaining is not None else None
            end = None if cost is None else at + cost
            self.changes.append(
                RouteChange(at, self.items, plan.route, plan.workers, plan.reason, end)
            )

    def add(self, worker: int, first: int, result: ChunkResult, now: float, *moved: int) -> None:
        """Add the items from index ``first`` on that a worker has run; see ``Recording.add``."""
        times = result.begun, result.wall, result.cpu
        route = self.work.add(worker, first, len(result.values), times, now, *moved)
        work, workers = self._totals.get(route, (0.0, 1))
        self._totals[route] = work + result.wall, workers
        self.cpu_seconds += result.cpu
        self.looking += result.looked
        self.raised += len(result.failures)
        if moved:
            self.bytes_in += moved[0]
            self.bytes_out += moved[1]

    def cut(self, error: BaseException) -> None:
        """The run has ended early, by an error that leads to this report from now on.

        The first call counts: others follow from the same error.
        """
        if self.ended:
            return
        stop = error.__cause__  # what a generator has turned into a RuntimeError
        if not isinstance(stop, StopIteration):
            stop = error
        self.ended = type(stop).__name__
        if type(stop) is GeneratorExit:
            self.ended = "its reader"
            return
        for each in (error, stop):  # which may be one, and of a class that cannot be hashed
            try:
                each.parallax_report = self  # type: ignore[attr-defined]
            except Exception:  # noqa: BLE001 - a class may refuse attributes in any way
                continue

    def ran_again(self, first: int, last: int, name: str) -> None:
        """Items ran in a worker and once more at home."""
        what = f"item {first} was" if first == last else f"items {first} to {last} were"
        self.note(
            f"{what} run again in this process: in a worker process its copy of `{name}` changed"
        )

    def item_seconds(self) -> float | None:
        """Mean seconds of an item over the whole run; None where threads may have taken turns."""
        if not self.items or not self._totals.keys() <= {"loop", "processes"}:
            return None
        return sum(work for work, _ in self._totals.values()) / self.items

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
        if self.workers_lost or self.retried:
            lost, again = self.workers_lost, self.retried
            lines.append(f"  worker processes that died: {lost}, items run again: {again}")
        lines.extend(f"  note: {text}" for text in self.notes)
        if len(self.costs) > 1:
            said = ", ".join(f"{seconds(cost)} {PLACES[r]}" for r, cost in self.costs.items())
            lines.append(f"  estimated time: {said}")
        if len(self.changes) > 1 and not self.explained:
            told = [_told(change, at) for at, change in enumerate(self.changes)]
            lines.append(f"  where it ran: {', then '.join(told)}")
        if not self.explained and self.seconds > 0:
            busy = f"  cores kept busy: {self.cores_busy:.1f}"
            if self.work.starting > 0.001:
                busy += f"; workers were at work after {seconds(self.work.starting)}"
            lines.append(busy)
        if self.bytes_in or self.bytes_out:
            sent, received = _bytes(self.bytes_in), _bytes(self.bytes_out)
            lines.append(f"  data sent to workers: {sent}, received from them: {received}")
        lines.extend(self._slowest())
        if self.looking > 0.001:
            lines.append(f"  looking for changes of shared state: {seconds(self.looking)}")
        if self.start:
            lines.append(f"  worker processes: {self.start}")
        if self.bytes_spared:
            times = round((self.bytes_once + self.bytes_spared) / self.bytes_once)
            lines.append(f"  {_bytes(self.bytes_once)} sent once, not {times} times")
        if self.workers_recycled:
            lines.append(
                f"  workers recycled: {self.workers_recycled}, at max_tasks_per_child or "
                f"max_memory_per_worker"
            )
        return shortened(lines)

    def _slowest(self) -> list[str]:
        """A line on the slowest item, if it is unlike the others."""
        work = self.work
        items = sum(each.items for each in list(work.workers.values()))
        mean = sum(each.busy for each in list(work.workers.values())) / max(1, items)
        slow = max(work.slowest, default=None)
        if slow is None or slow.seconds < max(3 * mean, 0.01):
            return []
        last = slow.first + slow.items - 1
        which = f"item {last} took" if slow.items == 1 else f"items {slow.first} to {last} took"
        return [f"  slowest: {which} {seconds(slow.seconds)}{' each' * (slow.items > 1)}"]

    def _headline(self) -> str:
        what = f"`{self.callable}`" if self.callable else "the callable"
        if self.route == "loop":
            where = PLACES["loop"]
        else:
            many = self.workers != 1
            kind = {"processes": "worker process", "executor": "worker"}.get(
                self.route, self.route[:-1]
            )
            where = f"in {self.workers} {kind}{('es' if kind[-1] == 's' else 's') * many}"
            if self.route == "executor":
                where += f" of {self.backend}"
        if self.explained:
            return f"{what}: would run {where}"
        cut = f"; ended early by {self.ended}" if self.ended else ""
        end = self.changes[-1].predicted if self.changes else None
        foreseen = "" if cut or end is None else f" ({seconds(end)} predicted)"
        return f"{what}: {_items(self.items)} in {seconds(self.seconds)}{foreseen}, {where}{cut}"

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


def shortened(lines: list[str]) -> str:
    """The first lines of a text, none of them too long, and how many more there are."""
    lines = [" ".join(line[: MAX_LINE + 1].splitlines()) for line in lines]
    lines = [line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…" for line in lines]
    if (more := len(lines) - MAX_LINES) > 0:
        lines[MAX_LINES - 1 :] = [f"  and {more + 1} more: see to_dict()"]
    return "\n".join(lines)


PLACES = {
    "loop": "in a plain loop",
    "threads": "in threads",
    "interpreters": "in interpreters",
    "processes": "in worker processes",
    "executor": "in the executor",
}


def _told(change: RouteChange, number: int) -> str:
    place = PLACES[change.route]
    if (change.route == "loop" and not number) or not change.items:
        return place  # from the first item on
    return f"{place} after {_items(change.items)} ({seconds(change.at)})"


def _items(count: int) -> str:
    return f"{count} item{'s' * (count != 1)}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
