"""An executor's worker processes as the stall monitor sees them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from parallax._backends.processes.parent.task import TaskWorker
from parallax._backends.processes.parent.task_workers import TaskWorkers
from parallax._reporting.stall_policy import InFlight

#: Seconds to wait for the executor's lock. Who holds it for longer is what hangs.
EXECUTOR_LOCK_TIMEOUT_S = 1.0


class TaskStallView:
    def __init__(self, workers: TaskWorkers, lock: Any) -> None:
        self._workers = workers
        self._lock = lock

    def quiet_since(self) -> float | None:
        begun = [since for *_, since in self._in_flight()]
        return max(self._workers.last, min(begun)) if begun else None

    def details(self) -> tuple[str, Sequence[InFlight], int | None]:
        """The calls in flight, with stacks, and how many calls wait."""
        now = time.monotonic()
        flights = []
        for worker, name, since in self._in_flight():
            at = worker.where()
            flights.append(InFlight(f"`{name}`", at.who, now - since, at.stack))
        return "call of an executor", flights, len(self._workers.queue.tasks)

    def _in_flight(self) -> list[tuple[TaskWorker, str, float]]:
        """Workers with the name of the call that each is running, and since when."""
        if not self._lock.acquire(timeout=EXECUTOR_LOCK_TIMEOUT_S):
            return []
        try:
            found = []
            for worker in self._workers.workers.values():
                if worker.batches and worker.begun:
                    batch = worker.batches[0]
                    known = batch.tasks[0].known if batch.tasks else None
                    found.append((worker, known.name if known else "a call", batch.since))
            return found
        finally:
            self._lock.release()
