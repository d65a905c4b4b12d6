"""Where the items of a run are between the input and their results.

Each is in one of three places: it waits to be sent for the first time, it is with a worker, or it
came back and has to be sent again.

Guarantees: an item is kept until its result is there, and not for longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from parallax._core.chunks import Chunk

__all__ = ["Held", "ItemsInFlight"]


class Held(NamedTuple):
    """A chunk that a worker has."""

    worker: int
    chunk: Chunk
    items: Sequence[Any]


class ItemsInFlight:
    """The items of one run. The dispatcher's lock guards it."""

    def __init__(self) -> None:
        self._fresh = _Stock()
        self._held: dict[int, Held] = {}
        #: items that came back, by index, and which of them have been run, or may have been.
        self._back: dict[int, Any] = {}
        self._ran: set[int] = set()
        #: how often an item was handed out that may have been run before.
        self.again = 0

    def add(self, items: Sequence[Any]) -> None:
        """Take items from the input; a list is ours from now on."""
        self._fresh.add(items)

    def first(self) -> list[Any]:
        """The next item that was never sent, in a list; an empty list if there is none."""
        return self._fresh.first()

    def hand_out(self, worker: int, chunk: Chunk) -> Sequence[Any]:
        """The items of a chunk that goes to a worker."""
        items: Sequence[Any]
        if chunk.start in self._back:
            indices = range(chunk.start, chunk.start + chunk.size)
            items = [self._back.pop(i) for i in indices]
            ran = self._ran.intersection(indices)
            self._ran -= ran
            self.again += len(ran)
        else:
            items = self._fresh.take(chunk.size)
        self._held[chunk.id] = Held(worker, chunk, items)
        return items

    def answered(self, chunk: int) -> Held | None:
        """A worker no longer has a chunk; None if it is not known to have had it."""
        return self._held.pop(chunk, None)

    def cut(self, chunk: int, keep: int) -> bool:
        """A worker gave back a chunk from offset ``keep`` on; False if it does not have it."""
        held = self._held.pop(chunk, None)
        if held is None:
            return False
        for offset in range(keep, len(held.items)):
            self._back[held.chunk.start + offset] = held.items[offset]
        if keep:
            shorter = held.chunk._replace(size=keep)
            self._held[chunk] = Held(held.worker, shorter, held.items[:keep])
        return True

    def put_back(self, index: int, item: Any, *, ran: bool) -> None:
        """An item has to be sent again, that was run or was not."""
        self._back[index] = item
        if ran:
            self._ran.add(index)

    def put_all_back(self, held: Held, *, ran: bool = False) -> None:
        """All items of a chunk have to be sent again, that were run or were not."""
        for offset, item in enumerate(held.items):
            self.put_back(held.chunk.start + offset, item, ran=ran)

    def abandoned(self, worker: int, *, began: bool) -> range:
        """A worker is gone: what it had has to be sent again.

        Args:
            worker: its number.
            began: it may have begun the first of its chunks.

        Returns:
            The indices of the items that it may have run.
        """
        lost = [held for held in self._held.values() if held.worker == worker]
        for held in lost:
            del self._held[held.chunk.id]
            self.put_all_back(held)
        if not lost or not began:
            return range(0)
        first = min((held.chunk for held in lost), key=lambda chunk: chunk.id)
        indices = range(first.start, first.start + first.size)
        self._ran.update(indices)
        return indices

    def drop(self, index: int) -> None:
        """An item that came back is not sent again."""
        self._back.pop(index, None)
        self._ran.discard(index)


class _Stock:
    """Items that were taken from the input and wait to be sent, given out in slices."""

    def __init__(self) -> None:
        self._lists: deque[Sequence[Any]] = deque()
        #: position in the first list.
        self._at = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, items: Sequence[Any]) -> None:
        """Put items at the end; a list is the stock's from now on."""
        if items:
            self._lists.append(items)
            self._count += len(items)

    def first(self) -> list[Any]:
        """The next item in a list, without taking it; an empty list if there is none."""
        return [self._lists[0][self._at]] if self._count else []

    def take(self, count: int) -> Sequence[Any]:
        """Take the next ``count`` items, which must be there."""
        self._count -= count
        part = self._part(count)
        if len(part) == count:
            return part
        items = list(part)
        while len(items) < count:
            items += self._part(count - len(items))
        return items

    def _part(self, count: int) -> Sequence[Any]:
        """Take up to ``count`` items, all of one piece."""
        first, at = self._lists[0], self._at
        part = first if at == 0 and len(first) <= count else first[at : at + count]
        end = at + len(part)
        if end == len(first):
            self._lists.popleft()
            end = 0
        elif isinstance(first, list):
            # What was given out must not be kept alive here.
            first[at:end] = [None] * len(part)
        self._at = end
        return part
