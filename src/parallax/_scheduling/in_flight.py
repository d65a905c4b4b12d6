"""The items of a run between the input and their results.

Each item is in one of three places: it waits to be sent for the first time, a worker holds it, or
it came back and has to be sent again.

Guarantees: an item is kept until its result is there, and not for longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from parallax._core.chunks import Chunk
from parallax._core.light_stdlib import Any, NamedTuple


class SentChunk(NamedTuple):
    """A chunk that a worker holds, with its items."""

    worker: int
    chunk: Chunk
    items: Sequence[Any]


class ItemsInFlight:
    """The items of one run; not thread-safe."""

    def __init__(self) -> None:
        #: items that were never sent, and the position in the first list.
        self._fresh: deque[Sequence[Any]] = deque()
        self._at = 0
        self._sent: dict[int, SentChunk] = {}
        self._returned: dict[int, Any] = {}  # by index
        #: the indices of returned items that may have been run.
        self._maybe_run: set[int] = set()
        #: how often an item was sent that may have been run before.
        self.rerun = 0

    def add(self, items: Sequence[Any]) -> None:
        """Take items from the input; a list must not be used by anybody else any more."""
        if items:
            self._fresh.append(items)

    def first(self) -> list[Any]:
        """The next item that was never sent, in a list; an empty list if there is none."""
        return [self._fresh[0][self._at]] if self._fresh else []

    def hand_out(self, worker: int, chunk: Chunk) -> Sequence[Any]:
        items: Sequence[Any]
        if chunk.start in self._returned:
            indices = range(chunk.start, chunk.start + chunk.size)
            items = [self._returned.pop(i) for i in indices]
            ran = self._maybe_run.intersection(indices)
            self._maybe_run -= ran
            self.rerun += len(ran)
        else:
            items = self._take(chunk.size)
        self._sent[chunk.id] = SentChunk(worker, chunk, items)
        return items

    def answered(self, chunk: int) -> SentChunk | None:
        """A worker no longer has a chunk; None if the chunk is unknown."""
        return self._sent.pop(chunk, None)

    def held_by(self, worker: int) -> list[SentChunk]:
        """The chunks that a worker holds, in the order in which they were sent."""
        return [sent for sent in self._sent.values() if sent.worker == worker]

    def cut(self, chunk: int, keep: int) -> bool:
        """A worker gave back a chunk from offset ``keep`` on; False if the chunk is unknown."""
        held = self._sent.get(chunk)
        if held is None:
            return False
        for offset in range(keep, len(held.items)):
            self._returned[held.chunk.start + offset] = held.items[offset]
        shorter = held.chunk._replace(size=keep)
        self._sent[chunk] = SentChunk(held.worker, shorter, held.items[:keep])
        if not keep:
            del self._sent[chunk]
        return True

    def put_back(self, index: int, item: Any, *, ran: bool) -> None:
        """An item has to be sent again; ``ran`` tells whether it may have been run."""
        self._returned[index] = item
        if ran:
            self._maybe_run.add(index)

    def put_all_back(self, held: SentChunk, *, ran: bool = False) -> None:
        for offset, item in enumerate(held.items):
            self.put_back(held.chunk.start + offset, item, ran=ran)

    def abandoned(self, worker: int, *, began: bool) -> range:
        """A worker is gone, its items have to be sent again; the indices that it may have run."""
        lost = self.held_by(worker)
        for held in lost:
            del self._sent[held.chunk.id]
            self.put_all_back(held)
        if not lost or not began:
            return range(0)
        first = lost[0].chunk
        indices = range(first.start, first.start + first.size)
        self._maybe_run.update(indices)
        return indices

    def drop(self, index: int) -> None:
        """An item that came back is not sent again."""
        self._returned.pop(index, None)
        self._maybe_run.discard(index)

    def _take(self, count: int) -> Sequence[Any]:
        """Take the next ``count`` items that were never sent, which must be there."""
        part = self._part(count)
        if len(part) == count:
            return part
        items = list(part)
        while len(items) < count:
            items += self._part(count - len(items))
        return items

    def _part(self, count: int) -> Sequence[Any]:
        """Take up to ``count`` items, all of one piece."""
        first, at = self._fresh[0], self._at
        part = first if at == 0 and len(first) <= count else first[at : at + count]
        end = at + len(part)
        if end == len(first):
            self._fresh.popleft()
            end = 0
        elif isinstance(first, list):
            # An item that was handed out must not be kept alive here.
            first[at:end] = [None] * len(part)
        self._at = end
        return part
