"""The items of a run between the input and their results.

Guarantees: an item is kept until its result is there, and not for longer. Who has it meanwhile is
the scheduler's to know.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter

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
        self._parts: list[_Part] = []
        self._end = self._unsent = first
        #: the indices of items that may have been run and are to be sent again.
        self._maybe_run: set[int] = set()
        #: how often an item was sent that may have been run before.
        self.rerun = 0

    def add(self, items: Sequence[Any]) -> None:
        """Take items from the input; a list must not be used by anybody else any more."""
        if items:
            self._parts.append(_Part(self._end, items))
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
        for part, where in [*self._pieces(start, size)]:
            count = where.stop - where.start
            if isinstance(part.items, list):
                part.items[where] = [None] * count
            part.left -= count
            if not part.left:
                self._parts.remove(part)

    def _items(self, start: int, size: int) -> Sequence[Any]:
        pieces = [part.items[where] for part, where in self._pieces(start, size)]
        return pieces[0] if len(pieces) == 1 else [*chain.from_iterable(pieces)]

    def _pieces(self, start: int, size: int) -> Iterator[tuple[_Part, slice]]:
        """The parts that have these items, and where."""
        number = bisect_right(self._parts, start, key=attrgetter("start")) - 1
        end = start + size
        while start < end:
            part = self._parts[number]
            stop = min(end, part.start + len(part.items))
            yield part, slice(start - part.start, stop - part.start)
            start, number = stop, number + 1
