"""A map call as its monitor sees it: what is in flight, with whom, and where."""

from __future__ import annotations

import time
from collections.abc import Sequence

from parallax._backends.contract import Crew
from parallax._core.chunks import Chunk
from parallax._reporting.stall_monitor import stack_of
from parallax._reporting.stall_policy import Activity, InFlight, WorkerSnapshot
from parallax._run.controller import CallerState
from parallax._run.dispatcher import CALLER, Dispatcher
from parallax._scheduling.input import Input

__all__ = ["MapStallView"]

clock = time.perf_counter

#: Seconds to wait for a run's lock. Who holds it for longer is what hangs, and cannot be asked.
PATIENCE = 1.0

#: Seconds for worker processes to give back what they have not begun.
ANSWER = 0.1


class MapStallView:
    """One run.

    Args:
        name: of the user's callable.
        source: its input.
        dispatch: its workers.
        caller: its caller's thread.
    """

    def __init__(self, name: str, source: Input, dispatch: Dispatcher, caller: CallerState) -> None:
        self._name = name
        self._source = source
        self._dispatch = dispatch
        self._caller = caller

    def activity(self) -> Activity | None:
        """What is to be seen at a glance; None if nothing is in flight."""
        # While the reader of a stream is away, results wait for it that nobody has seen.
        found = [] if self._caller.away else self._in_flight()
        if not found:
            return None
        since = max(self._caller.last, min(begun for *_, begun in found))
        return Activity(time.monotonic() - (clock() - since), len(found))

    def details(self) -> tuple[str, Sequence[InFlight], int | None]:
        """What is in flight, with stacks, and how many items wait."""
        found = self._asked(self._in_flight())
        now = clock()
        flights = []
        for worker, chunk, begun in found:
            at = self._where(worker)
            flights.append(InFlight(_item(chunk, at.done), at.who, now - begun, at.stack))
        scheduler, waiting = self._dispatch.scheduler, self._source.left
        if waiting is not None and scheduler is not None:
            waiting += scheduler.unsent
        elif self._source.total is not None:
            waiting = self._source.total - sum(chunk.start + chunk.size for _, chunk, _ in found)
        return f"item of `{self._name}`", flights, waiting

    def _in_flight(self) -> list[tuple[int, Chunk, float]]:
        caller, scheduler = self._caller, self._dispatch.scheduler
        if scheduler is None:
            # The caller's thread is the loop, and tells of itself.
            since, size, _ = caller.block
            if self._source.total is not None:
                size = min(size, self._source.total - caller.delivered)
            return [(CALLER, Chunk(0, caller.delivered, size), since)] if size else []
        if not self._dispatch.lock.acquire(timeout=PATIENCE):
            return []
        try:
            return scheduler.flights()
        finally:
            self._dispatch.lock.release()

    def _asked(self, found: list[tuple[int, Chunk, float]]) -> list[tuple[int, Chunk, float]]:
        """Have worker processes give back what they have not begun; what is in flight then."""
        asked = False
        for worker, chunk, _ in found:
            crew = self._crew(worker)
            if crew is not None and crew.recalls and chunk.size > 1:
                crew.recall(worker)
                asked = True
        if not asked:
            return found
        time.sleep(ANSWER)
        return self._in_flight() or found

    def _crew(self, worker: int) -> Crew | None:
        crews = list(self._dispatch.crews.values())
        return next((crew for crew in crews if crew.owns(worker)), None)

    def _where(self, worker: int) -> WorkerSnapshot:
        if worker == CALLER:
            stack = stack_of(self._caller.thread)
            return WorkerSnapshot("the caller's thread", stack, len(self._caller.block[2]))
        crew = self._crew(worker)
        return crew.where(worker) if crew is not None else WorkerSnapshot("a worker that has ended")


def _item(chunk: Chunk, done: int | None) -> str:
    last = chunk.start + chunk.size - 1
    if done is not None:
        return f"item {min(chunk.start + done, last)}"
    if chunk.size == 1:
        return f"item {last}"
    # One that has given back what it has not begun is at its last item.
    return f"item {last} (or, if it answers to nothing, one from {chunk.start} on)"
