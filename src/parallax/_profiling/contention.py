"""Whether threads hinder each other where no GIL does: by shared objects, counts and locks.

Threads that write to the same cache lines, as those that count references to one object do, and
those of C code whose locks spin, keep their cores busy and get little done. The CPU clock does not
show that, and neither does the GIL sampler. What shows it: an item takes more CPU time beside other
threads than it took alone.

Guarantees: pure. The factor is 1 unless the difference is clear, given how uneven items are.
Assumption: the first items of threads are like the last ones of the caller's, which are beside them
in the input. Later ones may be dearer; they do not count.
"""

from __future__ import annotations

import math
from collections import deque

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from parallax._core.chunks import ChunkResult
    from parallax._profiling.meters import ItemCost

#: Chunks of threads that are compared, at least and at most. Fewer judge by chance, more count
#: items that are far from those that ran alone.
MIN_COMPARED_CHUNKS, MAX_COMPARED_CHUNKS = 6, 24

#: The least factor that counts. Threads that share a cache or the two halves of a core get near it,
#: and so do processes.
MIN_CONTENTION = 1.3

#: CPU seconds of an item that must have run alone to tell what one takes alone.
MIN_ALONE_S = 0.005

#: Standard errors by which the factor must be above 1.
CLEAR_ERRORS = 2.0


class ContentionMeter:
    """Compares the items of threads with those that ran alone."""

    def __init__(self) -> None:
        #: how many times as much CPU time an item takes beside other threads.
        self.factor = 1.0
        self._chunks = self._items = 0
        self._cpu = self._squares = 0.0
        self._latest: deque[tuple[int, float]] = deque(maxlen=MIN_COMPARED_CHUNKS)
        self._settled = False

    def add(self, result: ChunkResult, cost: ItemCost, overtaken: tuple[float, float]) -> bool:
        """Add a chunk that ran beside others; whether the factor has changed.

        ``cost`` is what items cost alone. ``overtaken`` is used if none has ended alone: of an item
        during which the others began, the CPU seconds before that, and in all.
        """
        count = len(result.values)
        if not count or result.cpu <= 0.0:
            return False
        self._latest.append((count, result.cpu))
        if self._settled or self._chunks >= MAX_COMPARED_CHUNKS:
            return False
        self._chunks += 1
        self._items += count
        self._cpu += result.cpu
        self._squares += result.cpu * result.cpu / count
        if self._chunks < MIN_COMPARED_CHUNKS:
            return False
        before, self.factor = self.factor, self._compare(cost, overtaken)
        return self.factor != before

    def doubtful(self, cost: ItemCost) -> bool:
        """Whether threads take more CPU time, as it seems, but those alone may have been others."""
        if self._settled or self.factor > 1.0 or len(self._latest) < MIN_COMPARED_CHUNKS:
            return False
        return bool(cost.items) and self._mean() > MIN_CONTENTION * cost.cpu

    def settle(self, items: int, cpu: float) -> None:
        """Compare the latest items of threads with those that ran alone after them."""
        if items and cpu > 0.0:
            factor = self._mean() * items / cpu
            self.factor = factor if factor > MIN_CONTENTION else 1.0
        self._settled = True

    def _mean(self) -> float:
        """CPU seconds per item of the latest chunks of threads."""
        return sum(cpu for _, cpu in self._latest) / sum(count for count, _ in self._latest)

    def _compare(self, cost: ItemCost, overtaken: tuple[float, float]) -> float:
        mean = self._cpu / self._items
        spread = math.sqrt(max(0.0, self._squares / self._items / (mean * mean) - 1.0))
        alone, whole = overtaken
        if cost.items and cost.cpu > 0.0:
            factor = mean / cost.cpu
            spread = max(spread, cost.spread)
            error = factor * spread * math.sqrt(1.0 / cost.items + 1.0 / self._items)
        elif alone > MIN_ALONE_S:
            # Of that item, the part that ran beside others took as many times as much as of these.
            factor = 1.0 + (mean - whole) / alone
            error = mean / alone * spread * math.sqrt(1.0 + 1.0 / self._items)
        else:
            return 1.0
        clear = factor > MIN_CONTENTION and factor - 1.0 > CLEAR_ERRORS * error
        return factor if clear else 1.0
