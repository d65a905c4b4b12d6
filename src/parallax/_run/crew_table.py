"""The crews of one run: which worker belongs to which crew, which are up, and which were lost.

Guarantees: a worker's number is used once per run. The dispatcher's lock guards all changes;
``crew_of`` may be called from any thread.
"""

from __future__ import annotations

import time
from collections import defaultdict

from parallax._backends.contract import Crew, Died, WorkerEnd
from parallax._core.chunks import Route
from parallax._core.lazy_import import errors
from parallax._reporting.recording import Recording
from parallax._reporting.reports import Report
from parallax._scheduling.events import Blame

#: The number of the caller's thread among the workers.
CALLER = 0

#: Lost workers of which the report tells which items they had. More would fill the report.
MAX_REPORTED_LOSSES = 5


class CrewTable:
    def __init__(self) -> None:
        self.crews: dict[Route, Crew] = {}
        self._route_of: dict[int, Route] = {CALLER: "loop"}
        self._up: dict[Route, set[int]] = defaultdict(set)
        #: when each worker was asked for.
        self.asked_for: dict[int, float] = {}

    def new_id(self, route: Route) -> int:
        """A number for a new worker of a route."""
        number = len(self.asked_for) + 1
        self.asked_for[number] = time.perf_counter()
        self._route_of[number] = route
        return number

    def ordered(self, since: float) -> None:
        """The workers were asked for by then: what was loaded for them is part of their start."""
        self.asked_for = {number: min(asked, since) for number, asked in self.asked_for.items()}

    def route_of(self, worker: int) -> Route:
        return self._route_of[worker]

    def crew_of(self, worker: int) -> Crew | None:
        """The crew of a worker; None for the caller's thread."""
        return self.crews.get(self.route_of(worker))

    def name(self, worker: int) -> str:
        """What a worker is called that has just answered."""
        crew = self.crew_of(worker)
        return "the caller's thread" if crew is None else crew.name(worker)

    def introduce(self, worker: int, work: Recording, name: str = "") -> None:
        """Have a worker in the record of the run, if it is not there yet."""
        if worker not in work.workers:
            asked_for = self.asked_for.get(worker, work.begin)
            work.meet(worker, name or self.name(worker), self.route_of(worker), asked_for)

    def join(self, worker: int) -> Route:
        """A worker is up; return its route."""
        route = self.route_of(worker)
        self._up[route].add(worker)
        return route

    def leave(self, worker: int) -> None:
        """A worker is gone."""
        self._up[self.route_of(worker)].discard(worker)

    def up(self, route: Route) -> set[int]:
        return self._up[route]

    def others(self, route: Route) -> list[int]:
        return [name for other, names in self._up.items() if other != route for name in names]

    def any_up(self) -> bool:
        return any(self._up.values())


class WorkerLosses:
    def __init__(self, item_timeout: float | None) -> None:
        self._item_timeout = item_timeout
        self._ends: dict[int, WorkerEnd] = {}
        #: the item that each worker's death was the last attempt at.
        self._failed: dict[int, int] = {}
        #: workers that are ended because their items overran the time limit.
        self.overran: set[int] = set()
        #: those that died, with the items that they may have run.
        self.lost: list[tuple[WorkerEnd, range]] = []
        #: workers that were replaced at a limit on their items or memory.
        self.recycled = 0

    def died(self, event: Died, indices: range) -> None:
        """A worker died; ``indices`` are those of the items that it may have run."""
        self._ends[event.worker] = event.end
        if event.began:
            self.lost.append((event.end, indices))

    def tell(self, event: Died, indices: range, report: Report, table: CrewTable) -> None:
        """Enter a death in the report, once the scheduler knows what becomes of the items."""
        worker, end, work = event.worker, event.end, report.work
        report.workers_lost = len(self.lost)
        if not event.began and worker not in work.workers:
            return  # it has run nothing
        route = table.route_of(worker)
        names = {"processes": f"worker process {end.pid}", "interpreters": "an interpreter"}
        table.introduce(worker, work, names.get(route, ""))
        reason = end.detail or errors.exit_reason(end.exitcode, oom=end.oom)
        if worker in self.overran:
            reason = f"ended because its item took longer than item_timeout={self._item_timeout}"
        first, failed = indices[0] if indices else -1, worker in self._failed
        work.lose(worker, first, len(indices), int(failed), reason, time.perf_counter())

    def error(self, blame: Blame) -> Exception:
        self._failed[blame.worker] = blame.item
        end = self._ends.get(blame.worker, WorkerEnd())
        if blame.worker in self.overran:
            return errors.ItemTimeoutError(blame.item, self._item_timeout, end.pid)
        return errors.WorkerDiedError(blame.item, attempts=blame.attempts, **end._asdict())

    def notes(self) -> list[str]:
        """A sentence for the report on each of the first workers lost with several items."""
        return [
            f"{'a worker' if end.pid is None else f'worker process {end.pid}'} was lost with items "
            f"{indices[0]} to {indices[-1]} in flight; they were run again one by one, also those "
            f"that it had finished"
            for end, indices in self.lost[:MAX_REPORTED_LOSSES]
            if len(indices) > 1
        ]
