"""Which worker runs which items next: a state machine without threads, clock or I/O.

``Scheduler.handle(event, now)`` takes an event and returns commands; ``events`` describes each.
State changes only there and in ``expect_workers``, ``limit_chunks`` and ``move_window``.

Guarantees: every item that arrived is emitted exactly once, or the run failed; in ordered mode in
input order; never an item beyond ``consumed + window``; an item runs again only when its worker
was lost or a retry is owed. Chunk sizes are ``chunk_size``'s rules, recalls ``recall_policy``'s;
``worker_table`` knows which worker holds what. Tests check that these agree.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence

from parallax._core.chunks import Chunk
from parallax._scheduling import events
from parallax._scheduling.chunk_size import ChunkSizer, piece_size
from parallax._scheduling.recall_policy import RecallPolicy
from parallax._scheduling.reorder_buffer import EmitOrder
from parallax._scheduling.worker_table import WorkerTable


class Scheduler:
    """Decides for one run. See the module's docstring for its guarantees."""

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
        mean: float | None = None,
        guess: float | None = None,
    ) -> None:
        """Start with no workers and no items; those below index ``first`` were finished elsewhere.

        ``total`` is an estimate that includes them; None if not known. Without a ``chunksize`` it
        is chosen by measured times. At most ``window`` items are under way or wait to be consumed.
        Seconds per item: ``mean`` as measured before this run, ``guess`` in an earlier one.
        """
        self._total = total
        self._retries = retries
        self._item_timeout = item_timeout
        self._stop_on_error = stop_on_error
        self._table = WorkerTable()
        self._sizer = ChunkSizer(1 if item_timeout is not None else chunksize, mean, guess)
        self._recalls = RecallPolicy()
        self._order = EmitOrder(first, ordered=ordered)
        self._next = first  # first index never sent
        self._arrived = first  # items the input has given
        self._ended = False
        self._resend: list[tuple[int, Chunk]] = []  # heap by start: lost, failed or given back
        self._attempts: dict[int, int] = {}
        self._consumed = first
        self._window = window
        self._sendable = sys.maxsize if window is None else first + window  # end of the window
        self._last_id = 0
        #: lowest index that failed for good while ``stop_on_error``.
        self.failed: int | None = None

    # -- questions -----------------------------------------------------------------------------

    @property
    def mean(self) -> float | None:
        """Running mean of seconds per item; None before the first."""
        return self._sizer.mean

    @property
    def finished(self) -> bool:
        """Nothing is left to do: all emitted, or no earlier item can fail any more."""
        if self.failed is None:
            return self._ended and self._order.emitted == self._arrived
        low = self.failed
        if any(start < low for start, _ in self._resend):
            return False
        return all(c.start >= low for _, w in self._table.all() for c in w.chunks)

    @property
    def unsent(self) -> int:
        return self._arrived - self._next + sum(c.size for _, c in self._resend)

    @property
    def in_flight(self) -> int:
        return sum(w.held for _, w in self._table.all())

    def left(self) -> int | None:
        """Items not yet finished, or None if the input's length is not known."""
        if self._ended:
            return self._arrived - self._order.finished
        if self._total is None:
            return None
        return max(self._total, self._arrived) - self._order.finished

    def wanted(self) -> int:
        """How many more items would be sent at once if the input gave them now."""
        if self._ended or self.failed is not None or self._resend:
            return 0
        want = self._next - self._arrived
        table = self._table
        for name in (*table.idle, *(table.half_full if self._sizer.sends_ahead else ())):
            size = self._size(table.active[name].target)
            want += min(size, table.quota.get(name, size))
        return max(0, min(want, self._sendable - self._arrived))

    def may_retry(self, index: int) -> bool:
        """Whether an item is run again if it fails now."""
        return self._attempts.get(index, 0) < self._retries

    def held_by(self, worker: int) -> Sequence[Chunk]:
        """The chunks that a worker holds, oldest first."""
        entry = self._table.find(worker)
        return () if entry is None else entry.chunks

    def flights(self) -> list[tuple[int, Chunk, float]]:
        """Each busy worker with its oldest chunk, and the earliest time of that chunk's begin."""
        return [(name, w.chunks[0], w.since) for name, w in self._table.all() if w.chunks]

    def deadline(self) -> float | None:
        """When the next ``Tick`` is needed, on the caller's clock."""
        due = [] if self._recalls.due is None else [self._recalls.due]
        if self._item_timeout is not None:
            workers = (w for _, w in self._table.all() if w.chunks and not w.killed)
            due += [w.since + self._item_timeout for w in workers]
        return min(due, default=None)

    # -- what is known from outside ------------------------------------------------------------

    def expect_workers(self, count: int) -> None:
        """So many workers will take chunks, whether or not they are up."""
        self._sizer.workers = count

    def limit_chunks(self, items: int) -> None:
        """No chunk of new items may be longer, because of the memory that it takes on its way."""
        self._sizer.max_items = items

    def move_window(self, items: int) -> None:
        """Change the window; items that were sent under a larger one stay sent."""
        self._window = items
        self._sendable = max(self._next, self._consumed + items)

    # -- the machine ---------------------------------------------------------------------------

    def handle(self, event: events.Event, now: float) -> list[events.Command]:
        """Take one event, return the commands that follow from it, in order."""
        out: list[events.Command] = []
        if isinstance(event, events.Finished):
            self._on_finished(event, now, out)
        elif isinstance(event, events.Arrived):
            self._arrived += event.items
        elif isinstance(event, events.Ended):
            self._ended = True
        elif isinstance(event, events.Ready):
            # With a time limit per item each must be known to have begun when it was sent.
            depth = event.depth if self._item_timeout is None else min(1, event.depth)
            self._table.add(event.worker, depth, event.target, event.quota, event.recall)
        elif isinstance(event, events.Retire):
            self._table.retire(event.worker)
        elif isinstance(event, events.Lost):
            self._on_lost(event, out)
        elif isinstance(event, events.Returned):
            self._on_returned(event)
        elif isinstance(event, events.Cut):
            self._on_cut(event)
        elif isinstance(event, events.Consumed):
            self._consumed += event.items
            if self._window is not None:
                self._sendable = max(self._sendable, self._consumed + self._window)
        else:
            self._on_tick(now, out)
        self._dispatch(now, out)
        self._recall(now, out, ticked=isinstance(event, events.Tick))
        return out

    def _on_finished(self, event: events.Finished, now: float, out: list[events.Command]) -> None:
        worker = self._table.find(event.worker)
        if worker is not None and worker.chunks and worker.chunks[0].id == event.chunk:
            worker.since = now
        chunk = self._table.take(event.worker, event.chunk)
        if chunk is None:
            raise RuntimeError(f"worker {event.worker} does not have chunk {event.chunk}")
        self._sizer.learn(event.wall, event.ran)
        start = chunk.start
        for offset in sorted((*event.failed, *event.again)):
            index = chunk.start + offset
            again = offset in event.again or self._retry(index)
            if offset in event.again:
                self._requeue(index, 1, chunk.attempt + 1)
            if not again and self._stop_on_error:
                self._fail(index)
            if again or self._stop_on_error:
                # Run again, or the run's error: in neither case a result to deliver.
                self._order.finish(start, index - start, out)
                start = index + 1
        self._order.finish(start, chunk.start + event.ran - start, out)
        if event.ran < chunk.size:
            self._table.restore_quota(event.worker, chunk.size - event.ran)
            if self.failed is None or chunk.start < self.failed:
                self._requeue(chunk.start + event.ran, chunk.size - event.ran, chunk.attempt)

    def _on_lost(self, event: events.Lost, out: list[events.Command]) -> None:
        worker = self._table.remove(event.worker)
        if worker is None:
            return
        chunks = list(worker.chunks)
        if chunks and (event.began or worker.killed):
            suspect = chunks.pop(0)
            if suspect.size > 1:
                # Which of them ended the worker is not known: each runs alone, so that the
                # culprit is named and its neighbours live.
                for index in range(suspect.start, suspect.start + suspect.size):
                    self._requeue(index, 1, suspect.attempt + 1)
            elif worker.killed or not self._retry(suspect.start):
                out.append(events.Blame(suspect.start, event.worker, suspect.attempt + 1))
                if self._stop_on_error:
                    self._fail(suspect.start)
                else:
                    self._order.finish(suspect.start, 1, out)
        for chunk in chunks:
            self._requeue(chunk.start, chunk.size, chunk.attempt)

    def _on_returned(self, event: events.Returned) -> None:
        chunk = self._table.take(event.worker, event.chunk)
        if chunk is None:
            return
        self._table.restore_quota(event.worker, chunk.size)
        pieces = chunk.size if event.split else 1
        for piece in range(pieces):
            self._requeue(chunk.start + piece, chunk.size // pieces, chunk.attempt)

    def _on_cut(self, event: events.Cut) -> None:
        # The chunk may have come back meanwhile, or its worker may be gone: then it is None.
        chunk = self._table.cut(event.worker, event.chunk, event.keep)
        if chunk is None:
            return
        back, end = chunk.size - event.keep, chunk.start + chunk.size
        self._table.restore_quota(event.worker, back)
        size = back
        if self._sizer.fixed is not None:
            # In pieces, or the next idle worker would have to recall its part from the first one.
            size = piece_size(self.mean or 0.0, len(self._table.idle), back)
        for start in range(chunk.start + event.keep, end, size):
            self._requeue(start, min(size, end - start), chunk.attempt)

    def _on_tick(self, now: float, out: list[events.Command]) -> None:
        limit = self._item_timeout
        if limit is None:
            return
        for name, worker in self._table.all():
            if worker.chunks and not worker.killed and now >= worker.since + limit:
                self._table.mark_killed(name)
                out.append(events.Kill(name, worker.chunks[0].start))

    # -- parts ---------------------------------------------------------------------------------

    def _fail(self, index: int) -> None:
        self.failed = index if self.failed is None else min(index, self.failed)

    def _retry(self, index: int) -> bool:
        if not self.may_retry(index):
            return False
        used = self._attempts[index] = self._attempts.get(index, 0) + 1
        self._requeue(index, 1, used)
        return True

    def _requeue(self, start: int, size: int, attempt: int) -> None:
        self._last_id += 1
        heapq.heappush(self._resend, (start, Chunk(self._last_id, start, size, attempt)))

    def _size(self, target: float) -> int:
        left = None
        if self._ended:
            left = self._arrived - self._next
        elif self._total is not None:
            left = max(self._total, self._arrived) - self._next
        active, idle = len(self._table.active), len(self._table.idle)
        return self._sizer.size(target, left, self._order.finished, active, idle)

    def _dispatch(self, now: float, out: list[events.Command]) -> None:
        table = self._table
        # Breadth first: every idle worker gets a chunk before any gets a second one.
        for room in (table.idle, table.half_full):
            while room and (room is table.idle or self._sends_ahead()):
                name = next((n for n in room if not self._holds_suspect(n)), None)
                if name is None:
                    break
                chunk = self._take(table.active[name].target, table.quota.get(name, sys.maxsize))
                if chunk is None:
                    return
                self._recalls.sent(table.send(name, chunk, now), now)
                out.append(events.Send(name, chunk))

    def _sends_ahead(self) -> bool:
        return self._sizer.sends_ahead and not (self._resend and self._resend[0][1].attempt)

    def _holds_suspect(self, name: int) -> bool:
        """Whether a worker runs what may have ended another.

        Where the end of a process loses what it has sent (TCP, so Windows), a crash of the item
        after it would be blamed on this one.
        """
        return any(chunk.attempt for chunk in self._table.active[name].chunks)

    def _take(self, target: float, quota: int) -> Chunk | None:
        if self._resend:
            if self.failed is not None and self._resend[0][0] >= self.failed:
                return None
            return self._take_again(target, quota)
        unsent = min(self._arrived, self._sendable) - self._next
        if self.failed is not None or unsent <= 0:
            return None
        size = min(self._size(target), unsent, quota)
        self._last_id += 1
        chunk = Chunk(self._last_id, self._next, size)
        self._next += size
        return chunk

    def _take_again(self, target: float, quota: int) -> Chunk:
        chunk = heapq.heappop(self._resend)[1]
        size = min(quota, chunk.size)
        if size > 1 and self._sizer.fixed is None:
            if self._next < self._arrived or not self._ended:
                size = min(size, self._size(target))
            else:
                unsent, idle = self.unsent + chunk.size, len(self._table.idle)
                size = min(size, piece_size(self.mean or 0.0, idle, unsent))
        if size < chunk.size:
            self._requeue(chunk.start + size, chunk.size - size, chunk.attempt)
        return chunk._replace(size=size)

    def _recall(self, now: float, out: list[events.Command], *, ticked: bool) -> None:
        """Recall items that their workers have not begun, if others can run them sooner."""
        table = self._table
        if not table.recallable or self.failed is not None:
            self._recalls.due = None  # no worker is asked any more
            return
        idle = len(table.idle)
        if idle and (self._resend or self._next < self._arrived or self.wanted()):
            idle = 0
        for name in self._recalls.choose(table.active, idle, self.mean or 0.0, now, ticked=ticked):
            table.mark_recalled(name, now)
            out.append(events.Recall(name))
