"""An executor's worker processes as their watchman sees them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from parallax._backends.processes.parent.task import Lent
from parallax._backends.processes.parent.task_workers import Staff
from parallax._reporting.stall_policy import InFlight, Scene

__all__ = ["WatchedStaff"]

#: Seconds to wait for the executor's lock. Who holds it for longer is what hangs.
PATIENCE = 1.0


class WatchedStaff:
    """The workers of one executor.

    Args:
        staff: they.
        lock: guards them.
    """

    def __init__(self, staff: Staff, lock: Any) -> None:
        self._staff = staff
        self._lock = lock

    def scene(self) -> Scene | None:
        """What is to be seen at a glance; None if no call is in flight."""
        found = self._in_flight()
        if not found:
            return None
        return Scene(max(self._staff.last, min(begun for *_, begun in found)), len(found))

    def flights(self) -> tuple[str, Sequence[InFlight], int | None]:
        """What is in flight, with stacks, and how many calls wait."""
        found, now = self._in_flight(), time.monotonic()
        flights = []
        for lent, name, begun in found:
            at = lent.worker.where()
            flights.append(InFlight(f"`{name}`", at.who, now - begun, at.stack))
        return "call of an executor", flights, len(self._staff.queue.tasks)

    def _in_flight(self) -> list[tuple[Lent, str, float]]:
        if not self._lock.acquire(timeout=PATIENCE):
            return []
        try:
            found = []
            for lent in self._staff.lent:
                if lent.flight and lent.worker.begun:
                    batch = lent.flight[0]
                    known = batch.tasks[0].known if batch.tasks else None
                    found.append((lent, known.name if known else "a call", batch.since))
            return found
        finally:
            self._lock.release()
