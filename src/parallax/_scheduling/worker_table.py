"""The workers of one run as the scheduler sees them: what each holds, and which have room.

Guarantees: finding a worker with room takes the same time with two workers and with a thousand,
because workers with room are indexed, not searched for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from parallax._core.chunks import Chunk
from parallax._core.records import field, record


@record
class WorkerEntry:
    depth: int
    target: float
    recallable: bool = False
    chunks: deque[Chunk] = field(default_factory=deque)
    #: the earliest time at which its oldest chunk can have begun.
    since: float = 0.0
    killed: bool = False
    #: when it was asked to give back unbegun items; None again when it holds nothing.
    recalled_at: float | None = None
    answered: bool = False

    @property
    def held(self) -> int:
        return sum(chunk.size for chunk in self.chunks)


class WorkerTable:
    def __init__(self) -> None:
        #: workers that take chunks.
        self.active: dict[int, WorkerEntry] = {}
        #: workers that get nothing more, and still hold something.
        self.retired: dict[int, WorkerEntry] = {}
        #: whether any worker could ever be asked to give items back.
        self.recallable = False
        #: workers that hold nothing and may be sent a chunk, longest waiting first.
        self.idle: dict[int, None] = {}
        #: workers that hold one chunk and may be sent a second.
        self.half_full: dict[int, None] = {}
        #: items that a worker may still be sent. Kept while the worker is retired: being taken
        #: back does not renew it.
        self.quota: dict[int, int] = {}

    def find(self, name: int) -> WorkerEntry | None:
        return self.active.get(name) or self.retired.get(name)

    def all(self) -> Iterator[tuple[int, WorkerEntry]]:
        yield from self.active.items()
        yield from self.retired.items()

    def add(self, name: int, depth: int, target: float, quota: int | None, recall: bool) -> None:
        """A worker takes chunks, for the first time or again."""
        worker = self.retired.pop(name, None) or self.active.get(name)
        if worker is None:
            worker = WorkerEntry(depth, target)
        worker.depth, worker.target, worker.recallable = depth, target, recall
        self.recallable = self.recallable or recall
        self.active[name] = worker
        if quota is not None:
            self.quota[name] = min(quota, self.quota.get(name, quota))
        self._index(name)

    def retire(self, name: int) -> None:
        worker = self.active.pop(name, None)
        if worker is not None and worker.chunks:
            self.retired[name] = worker
        self._index(name)

    def remove(self, name: int) -> WorkerEntry | None:
        """A worker is gone; return its last state."""
        worker = self.active.pop(name, None) or self.retired.pop(name, None)
        self.quota.pop(name, None)
        self._index(name)
        return worker

    def send(self, name: int, chunk: Chunk, now: float) -> WorkerEntry:
        worker = self.active[name]
        if not worker.chunks:
            worker.since = now
        worker.chunks.append(chunk)
        if name in self.quota:
            self.quota[name] -= chunk.size
        self._index(name)
        return worker

    def take(self, name: int, number: int) -> Chunk | None:
        """A worker no longer has a chunk; None if it had no such chunk."""
        worker = self.find(name)
        if worker is None:
            return None
        for chunk in worker.chunks:
            if chunk.id == number:
                worker.chunks.remove(chunk)
                break
        else:
            return None
        if not worker.chunks:
            worker.recalled_at = None
            self.retired.pop(name, None)
        self._index(name)
        return chunk

    def cut(self, name: int, number: int, keep: int) -> Chunk | None:
        """A worker gave back the end of a chunk; return the uncut chunk, None if unknown."""
        worker = self.find(name)
        if worker is None:
            return None
        worker.answered = True
        for place, chunk in enumerate(worker.chunks):
            if chunk.id == number and 0 <= keep < chunk.size:
                if not keep:
                    return self.take(name, number)
                worker.chunks[place] = chunk._replace(size=keep)
                return chunk
        return None

    def restore_quota(self, name: int, items: int) -> None:
        """A worker did not run so many items of those that it was sent."""
        if name in self.quota:
            self.quota[name] += items
            self._index(name)

    def mark_killed(self, name: int) -> None:
        """A worker is being ended, and gets nothing more."""
        if (worker := self.find(name)) is not None:
            worker.killed = True
            self._index(name)

    def mark_recalled(self, name: int, now: float) -> None:
        """A worker is asked to give back unbegun items."""
        worker = self.active[name]
        worker.recalled_at, worker.answered = now, False
        self._index(name)

    def _index(self, name: int) -> None:
        """Note whether a worker has room, after anything about it has changed."""
        worker = self.active.get(name)
        held, depth = (len(worker.chunks), worker.depth) if worker else (0, 0)
        if worker and (worker.killed or self.quota.get(name) == 0):
            depth = 0
        if held == 0 < depth:
            self.idle.setdefault(name)
        else:
            self.idle.pop(name, None)
        # Nothing is queued again behind items that a worker was asked to give back.
        if held == 1 < depth and worker and worker.recalled_at is None:
            self.half_full.setdefault(name)
        else:
            self.half_full.pop(name, None)
