"""A while in which the caller's thread runs items alone, although threads are there.

For two purposes. Threads of the run end before the program is forked, since a fork must be made
alone: a run whose threads bring nothing goes on with processes that are there within milliseconds.
And where items take more CPU time on threads than the first ones took alone, which may have been
cheaper, or dearer, it is seen what they take alone now.

Guarantees: threads end after the items that they are inside of; if that takes long, processes are
started another way. All methods are called with the dispatcher's lock held.
"""

from __future__ import annotations

import threading

from parallax._core.chunks import ChunkResult
from parallax._core.plans import Plan
from parallax._run.caller_state import CallerState
from parallax._run.chunk_flow import ChunkFlow

#: Seconds of an item up to which threads are waited for. With longer ones cores would be idle until
#: the last thread is done, for about as long as another start takes.
MAX_AWAITED_ITEM_S = 0.08

#: Seconds for that. Less gives up on threads that had no core, more keeps cores idle.
PATIENCE_S = 0.2

#: Items alone, and seconds of them, either of which tells what an item takes.
ITEMS_ALONE, SECONDS_ALONE = 4, 0.04


class Interlude:
    """At most one at a time; ``stream``: the caller's thread may be elsewhere."""

    def __init__(self, flow: ChunkFlow, caller: CallerState, *, stream: bool) -> None:
        self._flow, self._caller, self._stream = flow, caller, stream
        self.active = False
        #: the plan that waits for the end of threads, or is interrupted to measure items.
        self.plan: Plan | None = None
        self.measures = False
        #: items that have run alone, and their CPU seconds.
        self.items, self.cpu = 0, 0.0
        self._wall = 0.0
        self._late = 0.0
        self._alone_since: float | None = None
        self._failed = False

    def ending(self) -> int:
        """Threads of this run that would end before a fork."""
        crew, scheduler = self._flow.table.crews.get("threads"), self._flow.scheduler
        if crew is None or scheduler is None or self._stream or self._failed:
            return 0
        return crew.size if (scheduler.mean or 1.0) <= MAX_AWAITED_ITEM_S else 0

    def begin(self, plan: Plan, now: float, *, measure: bool) -> None:
        """From now on; the run is to go on in the caller's thread."""
        self.active, self.plan, self.measures = True, plan, measure
        self._late = now + PATIENCE_S
        self.items, self.cpu, self._wall, self._alone_since = 0, 0.0, 0.0, None

    def add(self, result: ChunkResult) -> None:
        if self._alone_since is not None and result.begun >= self._alone_since:
            self.items += len(result.values)
            self.cpu += result.cpu
            self._wall += result.wall

    def over(self, now: float) -> bool:
        """Whether it is over, and the plan can be carried out. Tells idle threads to end."""
        if threading.get_ident() != self._caller.thread:
            return False
        flow, late = self._flow, now >= self._late
        if self._alone_since is None and not flow.busy("threads"):
            self._alone_since = now
        if self.measures:
            enough = self.items >= ITEMS_ALONE or self._wall >= SECONDS_ALONE
            self.active = not (enough or late or flow.unbegun() == 0)
        elif "threads" in flow.table.crews and not late:
            if self._alone_since is not None:
                flow.dismiss("threads")
            # Not yet: this thread may hold what they need in order to end.
        else:
            self.active, self._failed = False, late
        return not self.active
