"""A map call as its stall monitor sees it: which items are in flight, at which workers, where."""

from __future__ import annotations

import time
from collections.abc import Sequence

from parallax._core.chunks import Chunk
from parallax._reporting.stall_monitor import stack_of
from parallax._reporting.stall_policy import InFlight, WorkerSnapshot
from parallax._run.caller_state import CallerState
from parallax._run.crew_table import CALLER
from parallax._run.dispatcher import Dispatcher
from parallax._scheduling.input import Input

clock = time.perf_counter

#: Seconds to wait for a run's lock. A thread that holds it longer is the one that hangs.
RUN_LOCK_TIMEOUT_S = 1.0

#: Seconds for worker processes to give back unbegun items. Smaller names items that wait behind
#: the one that hangs, larger delays the message.
RECALL_WAIT_S = 0.1


class MapStallView:
    """The stall view of one run."""

    def __init__(self, name: str, source: Input, dispatch: Dispatcher, caller: CallerState) -> None:
        self._name = name
        self._source = source
        self._dispatch = dispatch
        self._caller = caller

    def quiet_since(self) -> float | None:
        # While the reader of a stream is away, results wait for it that nobody has seen.
        found = [] if self._caller.away else self._in_flight()
        if not found:
            return None
        since = max(self._caller.last, min(begun for *_, begun in found))
        return time.monotonic() - (clock() - since)

    def details(self) -> tuple[str, Sequence[InFlight], int | None]:
        """What is in flight, with stacks, and how many items wait."""
        found = self._recalled(self._in_flight())
        now = clock()
        flights = []
        for worker, chunk, begun in found:
            at = self._where(worker)
            flights.append(InFlight(_item(chunk, at.done), at.who, now - begun, at.stack))
        scheduler, waiting = self._dispatch.flow.scheduler, self._source.left
        if waiting is not None and scheduler is not None:
            waiting += scheduler.unsent
        elif self._source.total is not None:
            waiting = self._source.total - sum(chunk.start + chunk.size for _, chunk, _ in found)
        return f"item of `{self._name}`", flights, waiting

    def _in_flight(self) -> list[tuple[int, Chunk, float]]:
        caller, scheduler = self._caller, self._dispatch.flow.scheduler
        if scheduler is None:
            # The caller's thread is the loop, and tells of itself.
            since, size, _ = caller.block
            if self._source.total is not None:
                size = min(size, self._source.total - caller.delivered)
            return [(CALLER, Chunk(0, caller.delivered, size), since)] if size else []
        if not self._dispatch.lock.acquire(timeout=RUN_LOCK_TIMEOUT_S):
            return []
        try:
            return scheduler.flights()
        finally:
            self._dispatch.lock.release()

    def _recalled(self, found: list[tuple[int, Chunk, float]]) -> list[tuple[int, Chunk, float]]:
        """Have worker processes give back what they have not begun; what is in flight then."""
        asked = False
        for worker, chunk, _ in found:
            crew = self._dispatch.flow.table.crew_of(worker)
            if crew is not None and crew.recalls and chunk.size > 1:
                crew.recall(worker)
                asked = True
        if not asked:
            return found
        time.sleep(RECALL_WAIT_S)
        return self._in_flight() or found

    def _where(self, worker: int) -> WorkerSnapshot:
        if worker == CALLER:
            stack = stack_of(self._caller.thread)
            return WorkerSnapshot("the caller's thread", stack, len(self._caller.block[2]))
        crew = self._dispatch.flow.table.crew_of(worker)
        return crew.where(worker) if crew is not None else WorkerSnapshot("a worker that has ended")


def _item(chunk: Chunk, done: int | None) -> str:
    last = chunk.start + chunk.size - 1
    if done is not None:
        return f"item {min(chunk.start + done, last)}"
    if chunk.size == 1:
        return f"item {last}"
    # One that has given back what it has not begun is at its last item.
    return f"item {last} (or, if it answers to nothing, one from {chunk.start} on)"
