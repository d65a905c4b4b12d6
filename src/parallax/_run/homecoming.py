"""How a run whose workers may not go on comes home: to the caller's thread, in order.

Guarantees: the caller's thread begins when no worker holds a chunk, so that what items change here
is changed in the order of the loop.
"""

from __future__ import annotations

from parallax._core.light_stdlib import Any
from parallax._run.crew_table import CALLER
from parallax._scheduling import events

#: Seconds of an item up to which the order of what items change is worth waiting for workers where
#: nothing has changed so far. More leaves the caller's thread idle, less loses the order.
MAX_AWAITED_S = 0.1


class Homecoming:
    """The way home of one run; its methods take the ``ChunkFlow``."""

    def __init__(self) -> None:
        self._going = False
        #: items that were taken and wait for all before them.
        self.held: list[Any] = []

    def go(self, flow: Any) -> None:
        """Have the caller's thread run all that is left, once no worker has a chunk."""
        flow.route, flow.wanted, self._going = "loop", 1, True
        for worker in (CALLER, *flow.table.others("loop")):
            flow.handle(events.Retire(worker))
        if (task := flow.take_task()) is not None:
            flow.handle(events.Returned(CALLER, task[0].id))
        for route, crew in flow.table.crews.items():
            for worker in flow.table.up(route) if crew.recalls else ():
                crew.recall(worker)

    def waits(self, flow: Any) -> bool:
        """The route is the loop again: whether it begins when workers are done, and not at once."""
        scheduler = flow.scheduler
        if scheduler is None or not scheduler.in_flight or (scheduler.mean or 1.0) > MAX_AWAITED_S:
            return False
        self.go(flow)
        self.settle(flow)  # the only chunk under way may have been the caller's, which is back
        return True

    def hold(self, flow: Any, items: list[Any]) -> None:
        """Items came that run here, each before the next is taken, when those before are done."""
        self.held = items
        if flow.table.up(flow.route) - {CALLER}:
            flow.handle(events.Retire(CALLER))
        else:  # nobody else runs those before
            self._begin(flow)
        self.settle(flow)

    def settle(self, flow: Any) -> None:
        """Events were handled: go on if all workers are done."""
        scheduler = flow.scheduler
        if scheduler is None or scheduler.in_flight:
            return
        if self.held and not scheduler.unsent:
            self._begin(flow)
        if self._going:
            self._going = False
            flow.make_ready(CALLER, flow.table.join(CALLER))

    def _begin(self, flow: Any) -> None:
        items, self.held = self.held, []
        self.go(flow)
        flow.scheduler.limit_chunks(1)
        flow.arrive(items)
