"""Who runs which items next: a state machine without threads, clock or I/O.

``Scheduler.handle(event, now)`` takes what happened and returns what to do::

    Arrived, Ended        the input gave items / has no more
    Ready, Retire         a worker can take chunks / gets no more
    Finished, Lost        a chunk came back / a worker ended with its chunks in flight
    Returned              a worker gave a chunk back unrun
    Consumed              the reader took results (moves the window)
    Tick                  time passed (item timeouts)

                          Send(worker, chunk)      give it these items
                          Emit(start, size)        these results may be delivered
                          Blame(item, worker)      this item ended its worker, for good
                          Kill(worker, item)       this item ran too long

Guarantees: every item that arrived is emitted exactly once, or the run failed; in ordered mode in
input order; never an item beyond ``consumed + window``; an item runs again only when its worker
was lost or a retry is owed. Chunk sizes follow the guided schedule with a floor on time per chunk
(Polychronopoulos and Kuck 1987; the cap of a quarter of an even share keeps the tail short, see
docs/design.md).
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ._messages import Chunk

__all__ = [
    "Arrived",
    "Blame",
    "Command",
    "Consumed",
    "Emit",
    "Ended",
    "Event",
    "Finished",
    "Kill",
    "Lost",
    "Ready",
    "Retire",
    "Returned",
    "Scheduler",
    "Send",
    "Tick",
]

#: A chunk is at most this part of an even share of what is left. Larger parts leave stragglers at
#: the end, smaller ones pay more dispatches.
SHARE = 4

#: Seconds per item above which nothing is sent ahead to a busy worker. Below it a round trip
#: shows in the total; above it an item queued behind a long one could run elsewhere.
AHEAD = 0.01

#: Weight of the newest chunk in the running mean of item times.
NEWEST = 0.4


class Arrived(NamedTuple):
    """The input gave this many more items."""

    items: int


class Ended(NamedTuple):
    """The input has no more items."""


class Ready(NamedTuple):
    """A worker can take chunks of about ``target`` seconds, ``depth`` of them at a time."""

    worker: int
    depth: int = 1
    target: float = 0.02


class Retire(NamedTuple):
    """A worker gets nothing more; what it has in flight still counts."""

    worker: int


class Finished(NamedTuple):
    """A worker ran the first ``ran`` items of a chunk; those in ``again`` are run anew."""

    worker: int
    chunk: int
    ran: int
    failed: tuple[int, ...] = ()
    wall: float = 0.0
    again: tuple[int, ...] = ()


class Lost(NamedTuple):
    """A worker ended; its chunks in flight did not come back.

    ``began`` is False if it cannot have started on its oldest chunk.
    """

    worker: int
    began: bool = True


class Returned(NamedTuple):
    """A worker gave a chunk back unrun; ``split`` it so that each item goes alone."""

    worker: int
    chunk: int
    split: bool = False


class Consumed(NamedTuple):
    """The reader took this many results."""

    items: int


class Tick(NamedTuple):
    """Time passed."""


class Send(NamedTuple):
    """Give these items to this worker."""

    worker: int
    chunk: Chunk


class Emit(NamedTuple):
    """The results of these items may be delivered."""

    start: int
    size: int


class Blame(NamedTuple):
    """This item ended its worker once too often; its result is that loss."""

    item: int
    worker: int
    attempts: int


class Kill(NamedTuple):
    """This item overran its time limit on this worker."""

    worker: int
    item: int


Event: TypeAlias = Arrived | Ended | Ready | Retire | Finished | Lost | Returned | Consumed | Tick
Command: TypeAlias = Send | Emit | Blame | Kill


@dataclass
class _Worker:
    depth: int
    target: float
    flight: deque[Chunk] = field(default_factory=deque)
    #: when its oldest chunk can have begun.
    since: float = 0.0
    killed: bool = False


class Scheduler:
    """Decides for one run. See the module's docstring for events, commands and guarantees."""

    def __init__(
        self,
        *,
        total: int | None = None,
        chunksize: int | None = None,
        window: int | None = None,
        ordered: bool = True,
        retries: int = 0,
        item_timeout: float | None = None,
        stop_on_error: bool = True,
        first: int = 0,
    ) -> None:
        """Start with no workers and no items.

        Args:
            total: estimate of the number of items, ``first`` included; None if not known.
            chunksize: fixed chunk size, or None to choose by measured times.
            window: most items that may be under way or waiting to be consumed.
            ordered: emit in input order, else as they finish.
            retries: how often a failed item is run again.
            item_timeout: seconds after which an item's worker is to be killed.
            stop_on_error: send nothing more after an item failed for good.
            first: index of the first item; lower ones were finished elsewhere.
        """
        self.total = total
        self._chunksize = 1 if item_timeout is not None else chunksize
        #: may be moved during the run.
        self.window = window
        self._ordered = ordered
        self._retries = retries
        self._item_timeout = item_timeout
        self._stop_on_error = stop_on_error

        self._workers: dict[int, _Worker] = {}
        self._retired: dict[int, _Worker] = {}
        self._next = first  # first index never sent
        self._arrived = first  # items the input has given
        self._ended = False
        self._again: list[tuple[int, Chunk]] = []  # heap by start: lost or failed, to run again
        self._attempts: dict[int, int] = {}
        self._done: dict[int, int] = {}  # ordered mode: start -> size, finished but not emitted
        self._waiting = 0  # items in _done
        self._emitted = first  # ordered mode: next index; else a count
        self._consumed = first
        self._ids = 0
        #: running mean of seconds per item; may be set to what is known beforehand.
        self.mean: float | None = None
        #: lowest index that failed for good while ``stop_on_error``.
        self.failed: int | None = None

    # -- questions -----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Nothing is left to do: all emitted, or the failure can no longer be undercut."""
        if self.failed is not None:
            return not self._undercut()
        return self._ended and self._emitted == self._arrived

    @property
    def unsent(self) -> int:
        """Items that have arrived and wait for a worker."""
        return self._arrived - self._next + sum(c.size for _, c in self._again)

    @property
    def in_flight(self) -> int:
        """Items that workers hold now."""
        both = (*self._workers.values(), *self._retired.values())
        return sum(c.size for w in both for c in w.flight)

    def left(self) -> int | None:
        """Items not yet finished, or None if the input's length is not known."""
        if self._ended:
            return self._arrived - self._finished_count()
        if self.total is None:
            return None
        return max(self.total, self._arrived) - self._finished_count()

    def wanted(self) -> int:
        """How many more items would be sent at once if the input gave them now."""
        if self._ended or self.failed is not None or self._again:
            return 0
        slots = [w for w in self._workers.values() if len(w.flight) < self._depth(w)]
        if not slots:
            return 0
        want = sum(self._size(w.target) for w in slots) - (self._arrived - self._next)
        if self.window is not None:
            want = min(want, self._consumed + self.window - self._arrived)
        return max(0, want)

    def busy(self, worker: int) -> bool:
        """Whether a worker has chunks in flight."""
        w = self._workers.get(worker) or self._retired.get(worker)
        return bool(w and w.flight)

    def under_way(self, now: float) -> float:
        """Seconds since the workers' oldest chunks began, added up."""
        both = (*self._workers.values(), *self._retired.values())
        return sum(max(0.0, now - w.since) for w in both if w.flight)

    def deadline(self) -> float | None:
        """When the next ``Tick`` is needed, on the caller's clock."""
        if self._item_timeout is None:
            return None
        due = [
            w.since + self._item_timeout
            for w in (*self._workers.values(), *self._retired.values())
            if w.flight and not w.killed
        ]
        return min(due, default=None)

    # -- the machine ---------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event, return the commands that follow from it, in order.

        Args:
            event: what happened.
            now: seconds on any monotonic clock, the same at every call.
        """
        out: list[Command] = []
        if isinstance(event, Finished):
            self._on_finished(event, now, out)
        elif isinstance(event, Arrived):
            self._arrived += event.items
        elif isinstance(event, Ended):
            self._ended = True
        elif isinstance(event, Ready):
            self._on_ready(event)
        elif isinstance(event, Retire):
            self._on_retire(event)
        elif isinstance(event, Lost):
            self._on_lost(event, out)
        elif isinstance(event, Returned):
            self._on_returned(event)
        elif isinstance(event, Consumed):
            self._consumed += event.items
        else:
            self._on_tick(now, out)
        self._dispatch(now, out)
        return out

    def _on_ready(self, event: Ready) -> None:
        known = self._retired.pop(event.worker, None) or self._workers.get(event.worker)
        if known is None:
            known = _Worker(event.depth, event.target)
        known.depth, known.target = event.depth, event.target
        self._workers[event.worker] = known

    def _on_retire(self, event: Retire) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is not None and worker.flight:
            self._retired[event.worker] = worker

    def _on_finished(self, event: Finished, now: float, out: list[Command]) -> None:
        worker = self._workers.get(event.worker) or self._retired[event.worker]
        chunk = next((c for c in worker.flight if c.id == event.chunk), None)
        if chunk is None:
            raise RuntimeError(f"worker {event.worker} does not have chunk {event.chunk}")
        if chunk is worker.flight[0]:
            worker.since = now
        worker.flight.remove(chunk)
        if event.worker in self._retired and not worker.flight:
            del self._retired[event.worker]
        if event.ran:
            mean = event.wall / event.ran
            self.mean = mean if self.mean is None else self.mean + NEWEST * (mean - self.mean)
        start = chunk.start
        for offset in sorted((*event.failed, *event.again)):
            index = chunk.start + offset
            again = offset in event.again or self._retry(index)
            if offset in event.again:
                self._requeue(index, 1, chunk.attempt + 1)
            if not again and self._stop_on_error:
                self.failed = index if self.failed is None else min(index, self.failed)
            if again or self._stop_on_error:
                # Run again, or the run's error: in neither case a result to deliver.
                self._finish(start, index - start, out)
                start = index + 1
        self._finish(start, chunk.start + event.ran - start, out)
        if event.ran < chunk.size and (self.failed is None or chunk.start < self.failed):
            self._requeue(chunk.start + event.ran, chunk.size - event.ran, chunk.attempt)

    def _on_lost(self, event: Lost, out: list[Command]) -> None:
        worker = self._workers.pop(event.worker, None) or self._retired.pop(event.worker, None)
        if worker is None:
            return
        flight = list(worker.flight)
        if flight and (event.began or worker.killed):
            suspect = flight.pop(0)
            if suspect.size == 1:
                if worker.killed or not self._retry(suspect.start):
                    out.append(Blame(suspect.start, event.worker, suspect.attempt + 1))
                    if self._stop_on_error:
                        lowest = suspect.start if self.failed is None else self.failed
                        self.failed = min(suspect.start, lowest)
                    else:
                        self._finish(suspect.start, 1, out)
            else:
                # Which of them did it is not known: each runs alone, so that the culprit is
                # named and its neighbours live.
                for index in range(suspect.start, suspect.start + suspect.size):
                    self._requeue(index, 1, suspect.attempt + 1)
        for chunk in flight:
            self._requeue(chunk.start, chunk.size, chunk.attempt)

    def _on_returned(self, event: Returned) -> None:
        worker = self._workers.get(event.worker) or self._retired.get(event.worker)
        if worker is None:
            return
        for chunk in worker.flight:
            if chunk.id == event.chunk:
                worker.flight.remove(chunk)
                break
        else:
            return
        if event.worker in self._retired and not worker.flight:
            del self._retired[event.worker]
        pieces = chunk.size if event.split else 1
        for piece in range(pieces):
            self._requeue(chunk.start + piece, chunk.size // pieces, chunk.attempt)

    def _on_tick(self, now: float, out: list[Command]) -> None:
        limit = self._item_timeout
        if limit is None:
            return
        for name, worker in (*self._workers.items(), *self._retired.items()):
            if worker.flight and not worker.killed and now >= worker.since + limit:
                worker.killed = True
                out.append(Kill(name, worker.flight[0].start))

    # -- parts ---------------------------------------------------------------------------------

    def _retry(self, index: int) -> bool:
        used = self._attempts.get(index, 0)
        if used >= self._retries:
            return False
        self._attempts[index] = used + 1
        self._requeue(index, 1, used + 1)
        return True

    def _requeue(self, start: int, size: int, attempt: int) -> None:
        self._ids += 1
        heapq.heappush(self._again, (start, Chunk(self._ids, start, size, attempt)))

    def _finish(self, start: int, size: int, out: list[Command]) -> None:
        if size <= 0:
            return
        if not self._ordered:
            self._emitted += size
            out.append(Emit(start, size))
            return
        self._done[start] = size
        self._waiting += size
        begin = self._emitted
        while (run := self._done.pop(self._emitted, None)) is not None:
            self._emitted += run
        if self._emitted > begin:
            self._waiting -= self._emitted - begin
            out.append(Emit(begin, self._emitted - begin))

    def _finished_count(self) -> int:
        return self._emitted + self._waiting

    def _undercut(self) -> bool:
        """Whether items before the failed one are still to come: they may fail earlier."""
        low = self.failed
        if low is None:
            return False
        if any(start < low for start, _ in self._again):
            return True
        both = (*self._workers.values(), *self._retired.values())
        return any(c.start < low for w in both for c in w.flight)

    def _depth(self, worker: _Worker) -> int:
        if worker.killed:
            return 0
        if self._item_timeout is not None:
            return 1
        if worker.depth > 1 and (self.mean is None or self.mean > AHEAD):
            return 1
        return worker.depth

    def _size(self, target: float) -> int:
        if self._chunksize is not None:
            return self._chunksize
        if self.mean is None:
            return 1
        crew = max(1, len(self._workers))
        if self._ended or self.total is not None:
            end = self._arrived if self._ended else max(self.total or 0, self._arrived)
            share = (end - self._next) // (SHARE * crew)
        else:
            # The length is not known: expect as much again as has been done.
            share = self._finished_count() // crew
        return max(1, min(share, int(target / self.mean) if self.mean > 0 else share))

    def _dispatch(self, now: float, out: list[Command]) -> None:
        # Breadth first: every idle worker gets a chunk before any gets a second one.
        for level in (0, 1):
            for name, worker in self._workers.items():
                if len(worker.flight) == level < self._depth(worker):
                    chunk = self._take(worker)
                    if chunk is None:
                        return
                    if not worker.flight:
                        worker.since = now
                    worker.flight.append(chunk)
                    out.append(Send(name, chunk))

    def _take(self, worker: _Worker) -> Chunk | None:
        if self._again:
            if self.failed is not None and self._again[0][0] >= self.failed:
                return None
            return heapq.heappop(self._again)[1]
        if self.failed is not None:
            return None
        size = min(self._size(worker.target), self._arrived - self._next)
        if self.window is not None:
            size = min(size, self._consumed + self.window - self._next)
        if size <= 0:
            return None
        self._ids += 1
        chunk = Chunk(self._ids, self._next, size)
        self._next += size
        return chunk
