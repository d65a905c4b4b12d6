"""The items of a run between the input and their results.

Guarantees: an item is kept until its result is there, and not for longer. Who has it meanwhile is
the scheduler's to know.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from parallax._core.chunks import Chunk
from parallax._core.light_stdlib import Any


class _Part:
    """Items that came in one piece, from index ``start`` on; ``left`` have no result yet."""

    __slots__ = ("items", "left", "start")

    def __init__(self, start: int, items: Sequence[Any]) -> None:
        self.start, self.items, self.left = start, items, len(items)


class ItemsInFlight:
    """The items of one run from index ``first`` on; not thread-safe."""

    def __init__(self, first: int = 0) -> None:
        #: what came and has no result yet, oldest first, and where each part begins.
        self._parts: list[_Part] = []
        self._starts: list[int] = []
        self._end = self._unsent = first
        #: the indices of items that may have been run and are to be sent again.
        self._maybe_run: set[int] = set()
        #: how often an item was sent that may have been run before.
        self.rerun = 0

    def add(self, items: Sequence[Any]) -> None:
        """Take items from the input; a list must not be used by anybody else any more."""
        if items:
            self._parts.append(_Part(self._end, items))
            self._starts.append(self._end)
            self._end += len(items)

    def first(self) -> Sequence[Any]:
        """The next item that was never sent, alone; nothing if there is none."""
        return self._items(self._unsent, 1) if self._unsent < self._end else []

    def hand_out(self, chunk: Chunk) -> Sequence[Any]:
        """The items of a chunk that is sent now."""
        if self._maybe_run:
            ran = self._maybe_run.intersection(range(chunk.start, chunk.start + chunk.size))
            self._maybe_run -= ran
            self.rerun += len(ran)
        self._unsent = max(self._unsent, chunk.start + chunk.size)
        return self._items(chunk.start, chunk.size)

    def may_have_run(self, start: int, size: int = 1) -> range:
        """Note that items which may have been run are sent again; returns their indices."""
        indices = range(start, start + size)
        self._maybe_run.update(indices)
        return indices

    def finish(self, start: int, size: int = 1) -> None:
        """The results of items are there."""
        end = start + size
        while start < end:
            number = bisect_right(self._starts, start) - 1
            part = self._parts[number]
            at = start - part.start
            count = min(end - start, len(part.items) - at)
            if isinstance(part.items, list):
                part.items[at : at + count] = [None] * count
            part.left -= count
            if not part.left:
                del self._parts[number], self._starts[number]
            start += count

    def _items(self, start: int, size: int) -> Sequence[Any]:
        number = bisect_right(self._starts, start) - 1
        at = start - self._starts[number]
        items = self._parts[number].items[at : at + size]
        if len(items) < size:
            items = list(items)
            while len(items) < size:
                number += 1
                items += self._parts[number].items[: size - len(items)]
        return items
