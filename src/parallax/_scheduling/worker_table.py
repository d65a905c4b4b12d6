"""The workers of one run as the scheduler sees them: what each holds, and who has room.

Guarantees: finding a worker with room takes the same time with two workers and with a thousand,
because those with room are filed, not searched for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from parallax._core.chunks import Chunk

__all__ = ["WorkerEntry", "WorkerTable"]


@dataclass
class WorkerEntry:
    """One worker."""

    depth: int
    target: float
    recall: bool = False
    flight: deque[Chunk] = field(default_factory=deque)
    #: when its oldest chunk can have begun.
    since: float = 0.0
    killed: bool = False
    #: when it was asked to give back what it has not begun; None again when it holds nothing.
    asked: float | None = None
    answered: bool = False

    @property
    def held(self) -> int:
        """Items that it holds."""
        return sum(chunk.size for chunk in self.flight)


class WorkerTable:
    """Who is there."""

    def __init__(self) -> None:
        #: those that take chunks.
        self.active: dict[int, WorkerEntry] = {}
        #: whether any of them could ever be asked to give items back.
        self.recall = False
        #: those that get nothing more, and still hold something.
        self.retired: dict[int, WorkerEntry] = {}
        #: those that hold nothing and may be given something, longest waiting first.
        self.idle: dict[int, None] = {}
        #: those that hold one chunk and may be given a second.
        self.half: dict[int, None] = {}
        #: items that a worker may still be given. Kept while it is retired: taken back, it is no
        #: younger.
        self.quota: dict[int, int] = {}

    def find(self, name: int) -> WorkerEntry | None:
        """A worker, retired or not; None if it is not known."""
        return self.active.get(name) or self.retired.get(name)

    def all(self) -> Iterator[tuple[int, WorkerEntry]]:
        """Every worker with its name."""
        yield from self.active.items()
        yield from self.retired.items()

    def enlist(self, name: int, depth: int, target: float, quota: int | None, recall: bool) -> None:
        """A worker takes chunks, for the first time or again."""
        worker = self.retired.pop(name, None) or self.active.get(name)
        if worker is None:
            worker = WorkerEntry(depth, target)
        worker.depth, worker.target, worker.recall = depth, target, recall
        self.recall = self.recall or recall
        self.active[name] = worker
        if quota is not None:
            self.quota[name] = min(quota, self.quota.get(name, quota))
        self.file(name)

    def retire(self, name: int) -> None:
        """A worker gets nothing more."""
        worker = self.active.pop(name, None)
        if worker is not None and worker.flight:
            self.retired[name] = worker
        self.file(name)

    def remove(self, name: int) -> WorkerEntry | None:
        """A worker is gone; what was known of it."""
        worker = self.active.pop(name, None) or self.retired.pop(name, None)
        self.quota.pop(name, None)
        self.file(name)
        return worker

    def give(self, name: int, chunk: Chunk, now: float) -> None:
        """A worker is sent a chunk."""
        worker = self.active[name]
        if not worker.flight:
            worker.since = now
        worker.flight.append(chunk)
        if name in self.quota:
            self.quota[name] -= chunk.size
        self.file(name)

    def take(self, name: int, number: int) -> Chunk | None:
        """A worker no longer has a chunk; None if it had no such chunk."""
        worker = self.find(name)
        if worker is None:
            return None
        for chunk in worker.flight:
            if chunk.id == number:
                worker.flight.remove(chunk)
                break
        else:
            return None
        if not worker.flight:
            worker.asked = None
            self.retired.pop(name, None)
        self.file(name)
        return chunk

    def cut(self, name: int, number: int, keep: int) -> Chunk | None:
        """A worker gave back the end of a chunk; the chunk as it was, None if it had no such."""
        worker = self.find(name)
        if worker is None:
            return None
        worker.answered = True
        for place, chunk in enumerate(worker.flight):
            if chunk.id == number and 0 <= keep < chunk.size:
                if not keep:
                    return self.take(name, number)
                worker.flight[place] = chunk._replace(size=keep)
                return chunk
        return None

    def unrun(self, name: int, items: int) -> None:
        """A worker did not run so many items of what it was given."""
        if name in self.quota:
            self.quota[name] += items
            self.file(name)

    def spent(self, name: int) -> bool:
        """Whether a worker may be given nothing more, and holds nothing."""
        worker = self.find(name)
        return self.quota.get(name) == 0 and not (worker and worker.flight)

    def file(self, name: int) -> None:
        """Note whether a worker has room, after anything about it has changed."""
        worker = self.active.get(name)
        held, depth = (len(worker.flight), worker.depth) if worker else (0, 0)
        if worker and (worker.killed or self.quota.get(name) == 0):
            depth = 0
        if held == 0 < depth:
            self.idle.setdefault(name)
        else:
            self.idle.pop(name, None)
        # Nothing is queued again behind what a worker was asked to give back.
        if held == 1 < depth and worker and worker.asked is None:
            self.half.setdefault(name)
        else:
            self.half.pop(name, None)
