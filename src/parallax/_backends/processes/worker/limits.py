"""How worn a worker is: when it has run so many items, or holds so much memory, that it leaves.

The worker counts for itself. At a limit it stops inside its chunk, answers with what it has run,
and leaves; the parent hands out the rest again.

Guarantees: at least one item of each chunk is run, so that a limit which a fresh worker exceeds
makes progress all the same; without limits a chunk is run as if this module were not there.
"""

from __future__ import annotations

import os
import time

from parallax._backends.capture import run_chunk
from parallax._core.chunks import ChunkResult, Failure

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["WorkerLimits", "private_memory"]

#: Seconds between two looks at the memory. A look takes about 10 us; between two of them items of
#: less than this go unseen.
MEMORY_CHECK_S = 0.001


class WorkerLimits:
    """What one worker has run, and how much it may."""

    def __init__(self) -> None:
        #: items that were run, over the worker's whole life.
        self.ran = 0
        #: a limit was reached: it is time to leave.
        self.out = False
        self._items: int | None = None
        self._memory: int | None = None
        self._looked = 0.0

    def limit(self, limits: dict[str, Any]) -> None:
        """Take over the limits of a run.

        Args:
            limits: "items", how many the worker may run in all its life, and "memory", bytes; as
                far as there are limits.
        """
        self._items = limits.get("items")
        self._memory = limits.get("memory")

    def run(
        self,
        fn: Callable[..., Any],
        items: list[Any],
        values: list[Any],
        *,
        star: bool,
        stop: bool,
        delays: Callable[[], float],
    ) -> ChunkResult:
        """Run a chunk, or as much of it as the limits allow; see ``run_chunk``."""
        if self._items is not None:
            del items[max(1, self._items - self.ran) :]
        if self._memory is None:
            result = run_chunk(fn, items, values, star=star, stop=stop, delays=delays)
        else:
            result = self._run_watched(fn, items, values, star=star, stop=stop, delays=delays)
        self.ran += len(result.values)
        if self._items is not None and self.ran >= self._items:
            self.out = True
        return result

    def _run_watched(
        self,
        fn: Callable[..., Any],
        items: list[Any],
        values: list[Any],
        *,
        star: bool,
        stop: bool,
        delays: Callable[[], float],
    ) -> ChunkResult:
        """Run items one by one, and look at the memory in between."""
        failures: list[Failure] = []
        wall = cpu = 0.0
        delay = delays()
        for item in items:
            part = run_chunk(fn, (item,), star=star, stop=stop)
            wall += part.wall
            cpu += part.cpu
            failures += [f._replace(offset=len(values)) for f in part.failures]
            values += part.values
            if any(stop or not isinstance(f.error, Exception) for f in part.failures):
                break
            now = time.perf_counter()
            if now - self._looked >= MEMORY_CHECK_S:
                self._looked = now
                if self._memory is not None and private_memory() > self._memory:
                    self.out = True
                    break
        return ChunkResult(values, tuple(failures), wall, cpu, delays() - delay)


def private_memory() -> int:
    """Bytes of memory that this process has for itself.

    What it maps together with others does not count: large arguments lie in their parent's memory.
    """
    try:
        # Opened anew each time: an item may close descriptors that are not its own.
        fd = os.open("/proc/self/statm", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        import psutil  # dear to load, and known wherever there is no such file

        return int(psutil.Process().memory_info().rss)
    try:
        _, private_memory, shared, *_ = map(int, os.read(fd, 200).split())
        return (private_memory - shared) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(fd)
