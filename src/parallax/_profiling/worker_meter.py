"""What chunks cost in other threads and processes: their items, and sending them.

Guarantees: pure; nothing here reads a clock.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.records import replace

if TYPE_CHECKING:
    from parallax._core.chunks import ChunkResult
    from parallax._core.plans import Payload
    from parallax._profiling.meters import ItemCost

#: Cores that all threads together keep busy below which they wait, and do not queue for the GIL.
#: Smaller misses threads that wait, larger takes queueing on a loaded machine for waiting.
SATURATED_CORES = 0.7

#: Items done by workers, and items sent, from which on they count as evidence.
MIN_ITEMS = 4


class WorkerMeter:
    """Adds up what the workers of one call report."""

    def __init__(self) -> None:
        #: what sending an item costs; None until it was measured.
        self.payload: Payload | None = None
        self._encoding_s = 0.0
        self._encoded_items = 0
        self._threads = False
        self._workers = 1
        self._items = 0
        self._wall = self._cpu = self._delay = 0.0

    def add_encoding(self, seconds: float, items: int) -> None:
        """Add the seconds that it took this process to send items and to take their results."""
        self._encoding_s += seconds
        self._encoded_items += items
        if self.payload is not None and self._encoded_items >= MIN_ITEMS:
            self.payload = replace(self.payload, seconds=self._encoding_s / self._encoded_items)

    def add_chunk(self, result: ChunkResult, *, threads: bool, workers: int) -> None:
        """Add a chunk that one of so many threads or processes has run."""
        self._workers = workers
        if threads != self._threads:
            self._threads = threads
            self._items, self._wall, self._cpu, self._delay = 0, 0.0, 0.0, 0.0
        self._items += len(result.values)
        self._wall += result.wall
        self._cpu += result.cpu
        self._delay += result.delay

    def times(
        self, cost: ItemCost, waiting: float, contention: float = 1.0
    ) -> tuple[int, float, float] | None:
        """Items, wall and CPU seconds per item; None if the caller's thread is better evidence.

        ``cost`` and ``waiting`` are those of the caller's thread before workers began;
        ``contention``: threads take so many times as much CPU time as one that is alone.
        """
        if cost.even or self._items < max(MIN_ITEMS, cost.items):
            return None
        wall, cpu = self._wall / self._items, (self._cpu + self._delay) / self._items
        # Threads that leave the cores idle between them really wait, whatever the start was like.
        idle = cpu / wall * self._workers < SATURATED_CORES if wall > 0 else False
        if self._threads and waiting < 0.8 and not idle:
            # On threads the wall time includes queueing for the GIL and the cores: take the CPU
            # time, and for waiting the share that was seen before there was a queue.
            cpu = self._cpu / self._items / contention
            wall = cpu / (1.0 - waiting)
        elif self._threads and cost.items and waiting >= 0.8:
            wall = cost.wall
        return self._items, wall, min(cpu, wall)
