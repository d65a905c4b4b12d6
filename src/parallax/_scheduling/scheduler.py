"""Who runs which items next: a state machine without threads, clock or I/O.

``Scheduler.handle(event, now)`` takes what happened and returns what to do::

    Arrived, Ended        the input gave items / has no more
    Ready, Retire         a worker can take chunks / gets no more
    Finished, Lost        a chunk came back / a worker ended with its chunks in flight
    Returned, Cut         a worker gave a chunk back unrun / the end of one
    Consumed              the reader took results (moves the window)
    Tick                  time passed (item timeouts, workers that keep others waiting)

                          Send(worker, chunk)      give it these items
                          Emit(start, size)        these results may be delivered
                          Blame(item, worker)      this item ended its worker, for good
                          Kill(worker, item)       this item ran too long
                          Recall(worker)           ask back what it has not begun

Guarantees: every item that arrived is emitted exactly once, or the run failed; in ordered mode in
input order; never an item beyond ``consumed + window``; an item runs again only when its worker
was lost or a retry is owed. Chunk sizes are ``chunk_size``'s rules, who is asked to give items back
``recall_policy``'s; ``worker_table`` knows who holds what.
"""

from __future__ import annotations

import heapq
import math
import sys

from parallax._core.chunks import Chunk
from parallax._scheduling import chunk_size, recall_policy
from parallax._scheduling.chunk_size import AHEAD
from parallax._scheduling.events import (
    Arrived,
    Blame,
    Command,
    Consumed,
    Cut,
    Emit,
    Ended,
    Event,
    Finished,
    Kill,
    Lost,
    Ready,
    Recall,
    Retire,
    Returned,
    Send,
    Tick,
)
from parallax._scheduling.worker_table import WorkerTable

__all__ = [
    "Arrived",
    "Blame",
    "Command",
    "Consumed",
    "Cut",
    "Emit",
    "Ended",
    "Event",
    "Finished",
    "Kill",
    "Lost",
    "Ready",
    "Recall",
    "Retire",
    "Returned",
    "Scheduler",
    "Send",
    "Tick",
]


#: Items in a chunk while the time of one is only a guess. More could be many times too long.
GUESSED = 8


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

        self._table = WorkerTable()
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
        self._looked = -math.inf  # when it was last considered to ask for items back
        self._look: float | None = None  # when it is to be considered again
        self._stuck: float | None = None  # the same while no worker idles
        #: running mean of seconds per item; may be set to what is known beforehand.
        self.mean: float | None = None
        #: items of a chunk at most, because of the memory that they take on their way.
        self.most = sys.maxsize
        #: seconds per item in an earlier run: good for first chunks of a few items.
        self.guess: float | None = None
        #: how many workers there will be: the first one that is up must not get all there is.
        self.crew = 1
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
        return sum(w.held for _, w in self._table.all())

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
        want = self._next - self._arrived
        table = self._table
        for name in (*table.idle, *(table.half if self._ahead() else ())):
            size = self._size(table.active[name].target)
            want += min(size, table.quota.get(name, size))
        if self.window is not None:
            want = min(want, self._consumed + self.window - self._arrived)
        return max(0, want)

    def busy(self, worker: int) -> bool:
        """Whether a worker has chunks in flight."""
        known = self._table.find(worker)
        return bool(known and known.flight)

    def spent(self, worker: int) -> bool:
        """Whether a worker's quota is used up and nothing of it is in flight."""
        return self._table.spent(worker)

    def flights(self) -> list[tuple[int, Chunk, float]]:
        """Each busy worker with its oldest chunk, and when that can have begun."""
        return [(name, w.flight[0], w.since) for name, w in self._table.all() if w.flight]

    def under_way(self, now: float) -> float:
        """Seconds since the workers' oldest chunks began, added up."""
        return sum(max(0.0, now - w.since) for _, w in self._table.all() if w.flight)

    def deadline(self) -> float | None:
        """When the next ``Tick`` is needed, on the caller's clock."""
        if self._item_timeout is None:
            return self._look
        due = [
            w.since + self._item_timeout for _, w in self._table.all() if w.flight and not w.killed
        ]
        if self._look is not None:
            due.append(self._look)
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
            self._table.retire(event.worker)
        elif isinstance(event, Lost):
            self._on_lost(event, out)
        elif isinstance(event, Returned):
            self._on_returned(event)
        elif isinstance(event, Cut):
            self._on_cut(event)
        elif isinstance(event, Consumed):
            self._consumed += event.items
        else:
            self._on_sample(now, out)
        self._dispatch(now, out)
        self._take_back(now, out, ticked=isinstance(event, Tick))
        return out

    def _on_ready(self, event: Ready) -> None:
        # With a limit on items each must be known to have begun when it was sent.
        depth = event.depth if self._item_timeout is None else min(1, event.depth)
        self._table.enlist(event.worker, depth, event.target, event.quota, event.recall)

    def _on_finished(self, event: Finished, now: float, out: list[Command]) -> None:
        worker = self._table.find(event.worker)
        if worker is not None and worker.flight and worker.flight[0].id == event.chunk:
            worker.since = now
        chunk = self._table.take(event.worker, event.chunk)
        if chunk is None:
            raise RuntimeError(f"worker {event.worker} does not have chunk {event.chunk}")
        if event.ran:
            self.mean = chunk_size.learn(self.mean, event.wall / event.ran)
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
        if event.ran < chunk.size:
            self._table.unrun(event.worker, chunk.size - event.ran)
        if event.ran < chunk.size and (self.failed is None or chunk.start < self.failed):
            self._requeue(chunk.start + event.ran, chunk.size - event.ran, chunk.attempt)

    def _on_lost(self, event: Lost, out: list[Command]) -> None:
        worker = self._table.remove(event.worker)
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
        chunk = self._table.take(event.worker, event.chunk)
        if chunk is None:
            return
        self._table.unrun(event.worker, chunk.size)
        pieces = chunk.size if event.split else 1
        for piece in range(pieces):
            self._requeue(chunk.start + piece, chunk.size // pieces, chunk.attempt)

    def _on_cut(self, event: Cut) -> None:
        # Late news of a chunk that has come back meanwhile, or of a worker that is gone, is none.
        chunk = self._table.cut(event.worker, event.chunk, event.keep)
        if chunk is not None:
            back = chunk.size - event.keep
            self._table.unrun(event.worker, back)
            size, end = back, chunk.start + chunk.size
            if self._chunksize is not None:
                # Shared out, or the next idle worker would have to ask the first for its part.
                size = chunk_size.piece_size(self.mean or 0.0, len(self._table.idle), back)
            for start in range(chunk.start + event.keep, end, size):
                self._requeue(start, min(size, end - start), chunk.attempt)

    def _on_sample(self, now: float, out: list[Command]) -> None:
        limit = self._item_timeout
        if limit is None:
            return
        for name, worker in self._table.all():
            if worker.flight and not worker.killed and now >= worker.since + limit:
                worker.killed = True
                self._table.file(name)
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
        return any(c.start < low for _, w in self._table.all() for c in w.flight)

    def _ahead(self) -> bool:
        """Whether items are sent ahead to workers that are busy."""
        return self.mean is not None and self.mean <= AHEAD

    def _size(self, target: float) -> int:
        if self._chunksize is not None:
            return self._chunksize
        mean = self.mean if self.mean is not None else self.guess
        if mean is None:
            return 1
        left = None
        if self._ended:
            left = self._arrived - self._next
        elif self.total is not None:
            left = max(self.total, self._arrived) - self._next
        crew = max(self.crew, len(self._table.active))
        active = len(self._table.active)
        idle = len(self._table.idle) + max(0, crew - active)
        size = chunk_size.chunk_size(mean, target, crew, left, self._finished_count(), idle)
        size = min(size, self.most)
        return size if self.mean is not None else min(size, GUESSED)

    def _dispatch(self, now: float, out: list[Command]) -> None:
        table = self._table
        # Breadth first: every idle worker gets a chunk before any gets a second one.
        for room in (table.idle, table.half):
            while room and (room is table.idle or self._ahead()):
                name = next(iter(room))
                chunk = self._take(table.active[name].target, table.quota.get(name))
                if chunk is None:
                    return
                table.give(name, chunk, now)
                if self._stuck is None and table.active[name].held > 1:
                    self._stuck = now + recall_policy.STUCK
                out.append(Send(name, chunk))

    def _take(self, target: float, quota: int | None) -> Chunk | None:
        if self._again:
            if self.failed is not None and self._again[0][0] >= self.failed:
                return None
            return self._take_again(target, quota)
        if self.failed is not None:
            return None
        unsent = self._arrived - self._next
        if not unsent:
            return None
        size = min(self._size(target), unsent)
        if quota is not None:
            size = min(size, quota)
        if self.window is not None:
            size = min(size, self._consumed + self.window - self._next)
        if size <= 0:
            return None
        self._ids += 1
        chunk = Chunk(self._ids, self._next, size)
        self._next += size
        return chunk

    def _take_again(self, target: float, quota: int | None) -> Chunk:
        chunk = heapq.heappop(self._again)[1]
        size = chunk.size if quota is None else min(quota, chunk.size)
        if size > 1 and self._chunksize is None:
            if self._next < self._arrived or not self._ended:
                size = min(size, self._size(target))
            else:
                unsent, idle = self.unsent + chunk.size, len(self._table.idle)
                size = min(size, chunk_size.piece_size(self.mean or 0.0, idle, unsent))
        if size < chunk.size:
            self._requeue(chunk.start + size, chunk.size - size, chunk.attempt)
        return chunk._replace(size=size)

    def _take_back(self, now: float, out: list[Command], *, ticked: bool) -> None:
        """Have workers asked for what they have not begun, if it is better off with others."""
        self._look = None
        table = self._table
        if not table.recall or self.failed is not None:
            return
        idle = len(table.idle)
        if idle and (self._again or self._next < self._arrived or self.wanted()):
            idle = 0
        look = self._looked + recall_policy.pause(len(table.active)) if idle else self._stuck
        # Unless somebody idles it is done at a Tick, when all that has come back is known: a
        # worker whose results have not been read yet is not stuck.
        if look is None or now < look or not (idle or ticked):
            self._look = look
            return
        self._looked = now
        names, self._stuck = recall_policy.victims(table.active, idle, self.mean or 0.0, now)
        for name in names:
            worker = table.active[name]
            worker.asked, worker.answered = now, False
            table.file(name)
            out.append(Recall(name))
            again = recall_policy.ask_again(worker.since, now)
            self._stuck = again if self._stuck is None else min(self._stuck, again)
        self._look = self._stuck
