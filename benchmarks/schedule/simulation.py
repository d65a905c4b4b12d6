"""A run without processes: the real scheduler, and workers and a master that are only arithmetic.

The scheduler is driven as a run drives it: the input is asked for as many items as are wanted, a
chunk travels to its worker, runs, and its outcome travels back. The master is one server: each
message that it sends or receives takes its time and waits for those before it, so that a crew
that is too large for its chunks is seen to wait. Time is simulated, so results are exact and the
same on any machine.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from parallax._core.chunks import Chunk
from parallax._scheduling.events import (
    Arrived,
    Cut,
    Ended,
    Event,
    Finished,
    Ready,
    Recall,
    Send,
    Tick,
)
from parallax._scheduling.scheduler import Scheduler


@dataclass(frozen=True)
class Costs:
    """What a chunk costs besides its items, in seconds.

    The master's costs are what `schedule --real` shows on a small virtual machine.
    """

    #: the master's time to send a chunk, and to take its outcome.
    send: float = 60e-6
    receive: float = 60e-6
    #: the master's time per item, there and back: pickling the item, unpickling its result.
    item: float = 1e-6
    #: from the master's write until the worker runs, and from its write until the master reads.
    way: float = 30e-6
    #: from asking for items back until the worker's answer is under way; the master's time to ask.
    signal: float = 150e-6
    ask: float = 10e-6


class Run(NamedTuple):
    """What came out of one simulated run; times in seconds."""

    makespan: float
    #: the master's time that was taken up.
    busy: float
    chunks: int
    recalls: int
    ticks: int


#: How workers answer when items are asked back: at once, when their item ends, or not at all.
ANSWERS = ("signal", "item", "none")


class _Worker:
    """A simulated worker: a queue of chunks and the one it runs."""

    def __init__(self) -> None:
        self.queue: deque[Chunk] = deque()
        self.running: Chunk | None = None
        self.began = 0.0
        self.ends = 0  # the number of the event that ends the running chunk


class Simulation:
    """One run of one list of item times."""

    def __init__(
        self,
        times: Sequence[float],
        workers: int,
        *,
        depth: int,
        target: float,
        costs: Costs,
        answer: str = "signal",
    ) -> None:
        """Prepare.

        Args:
            times: seconds per item, in input order.
            workers: how many workers, all there from the start.
            depth: chunks that a worker may hold.
            target: seconds per chunk to aim at.
            costs: what chunks cost besides their items.
            answer: one of ``ANSWERS``.
        """
        self._count = len(times)
        self._sums = [0.0, *itertools.accumulate(times)]
        self._costs = costs
        self._answer = answer
        self._depth = depth
        self._target = target
        self._workers = [_Worker() for _ in range(workers)]
        self._heap: list[tuple[float, int, str, Any]] = []
        self._number = 0
        self._free = 0.0  # when the master has done what came before
        self._busy = 0.0
        self._given = 0
        self._sent = self._recalls = self._ticks = 0
        self._look: float | None = None
        self.scheduler = Scheduler(total=self._count)

    def run(self) -> Run:
        """Simulate to the end."""
        can = self._answer != "none"
        for name in range(len(self._workers)):
            self._turn(Ready(name, self._depth, self._target, None, can))
        while not self.scheduler.finished:
            now, number, kind, what = heapq.heappop(self._heap)
            if kind == "chunk":
                worker, chunk = what
                self._arrives(worker, chunk, now)
            elif kind == "end":
                self._ends(what, number, now)
            elif kind == "signal":
                self._signalled(what, now)
            elif kind == "tick":
                self._tick(now)
            else:
                event, cost = what
                self._work(now, cost)
                self._turn(event)
        return Run(self._free, self._busy, self._sent, self._recalls, self._ticks)

    # -- the master ----------------------------------------------------------------------------

    def _push(self, at: float, kind: str, what: Any) -> int:
        self._number += 1
        heapq.heappush(self._heap, (at, self._number, kind, what))
        return self._number

    def _work(self, now: float, seconds: float) -> None:
        self._free = max(self._free, now) + seconds
        self._busy += seconds

    def _turn(self, event: Event) -> None:
        scheduler = self.scheduler
        self._execute(event)
        while count := min(scheduler.wanted(), self._count - self._given):
            self._given += count
            self._execute(Arrived(count))
            if self._given == self._count:
                self._execute(Ended())
        due = scheduler.deadline()
        if due is not None and due != self._look:
            self._push(max(due, self._free), "tick", None)
        self._look = due

    def _tick(self, now: float) -> None:
        if self._look is not None and now >= self._look:
            self._look = None
            self._ticks += 1
            self._work(now, self._costs.ask / 2)
            self._turn(Tick())

    def _execute(self, event: Event) -> None:
        costs = self._costs
        for command in self.scheduler.handle(event, self._free):
            if isinstance(command, Send):
                chunk = command.chunk
                self._sent += 1
                self._work(self._free, costs.send + costs.item / 2 * chunk.size)
                self._push(self._free + costs.way, "chunk", (command.worker, chunk))
            elif isinstance(command, Recall):
                self._recalls += 1
                self._work(self._free, costs.ask)
                self._push(self._free + costs.signal, "signal", command.worker)

    # -- the workers ---------------------------------------------------------------------------

    def _arrives(self, name: int, chunk: Chunk, now: float) -> None:
        worker = self._workers[name]
        worker.queue.append(chunk)
        if worker.running is None:
            self._begin(name, now)

    def _begin(self, name: int, now: float) -> None:
        worker = self._workers[name]
        worker.running = chunk = worker.queue.popleft() if worker.queue else None
        if chunk is not None:
            worker.began = now
            worker.ends = self._push(now + self._wall(chunk), "end", name)

    def _wall(self, chunk: Chunk) -> float:
        return self._sums[chunk.start + chunk.size] - self._sums[chunk.start]

    def _ends(self, name: int, number: int, now: float) -> None:
        worker = self._workers[name]
        chunk = worker.running
        if chunk is None or number != worker.ends:
            return  # the chunk was cut meanwhile, and ends at another time
        costs = self._costs
        event = Finished(name, chunk.id, chunk.size, (), self._wall(chunk))
        cost = costs.receive + costs.item / 2 * chunk.size
        self._push(now + costs.way, "message", (event, cost))
        self._begin(name, now)

    def _signalled(self, name: int, now: float) -> None:
        worker = self._workers[name]
        chunk = worker.running
        if chunk is None:
            return
        # An item that begins at this very moment counts as begun.
        base = self._sums[chunk.start] - worker.began
        keep = min(chunk.size, bisect_right(self._sums, base + now) - chunk.start)
        keep = max(1, keep)
        stops = worker.began + self._wall(chunk._replace(size=keep))
        answers = now if self._answer == "signal" else stops
        cuts = []
        if keep < chunk.size:
            worker.running = chunk._replace(size=keep)
            cuts.append(Cut(name, chunk.id, keep))
            worker.ends = self._push(max(stops, now), "end", name)
        # All of it in one frame: the first pays for it.
        cuts += [Cut(name, queued.id, 0) for queued in worker.queue]
        worker.queue.clear()
        for cut in cuts:
            cost = self._costs.receive if cut is cuts[0] else 0.0
            self._push(max(answers, now) + self._costs.way, "message", (cut, cost))


# -- what no scheduler can beat ---------------------------------------------------------------


def ideal(times: Sequence[float], workers: int) -> float:
    """The largest of three lower bounds of any schedule's length, in seconds.

    Total over workers; the longest item; and, since of the ``k * workers + 1`` longest items some
    worker must run ``k + 1``, the sum of the shortest ``k + 1`` of those, for any ``k``.
    """
    falling = sorted(times, reverse=True)
    sums = [0.0, *itertools.accumulate(falling)]
    bound = max(sums[-1] / workers, falling[0])
    for k in range(1, math.ceil(len(falling) / workers)):
        last = k * workers + 1
        bound = max(bound, sums[last] - sums[last - k - 1])
    return bound


def free_of_charge(times: Sequence[float], workers: int) -> float:
    """How long single items in input order take if handing them out costs nothing at all.

    Not a bound, but close to what can be had without knowing the item times beforehand.
    """
    ends = [0.0] * workers
    for seconds in times:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)
