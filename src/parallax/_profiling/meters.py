"""What an item costs and how many cores the workers keep busy.

Purpose: ``ItemMeter`` adds up the items that run in the caller's thread, ``CoresMeter`` tells how
many cores several workers really get, ``native_threads`` whether a callable is parallel by itself.
Guarantees: no thread, clock or I/O in this file; ``now`` and CPU seconds are arguments. A few
arithmetic operations per call, and memory for one window.
Assumption: each meter is fed from one thread at a time.
"""

from __future__ import annotations

import math
from collections import deque

from parallax._core.light_stdlib import NamedTuple

#: Spread of item times up to which one item is taken to be like the other. Smaller counts no items
#: as even on a noisy machine, larger judges workers by items that they did not have.
EVEN_SPREAD = 0.25


class ItemCost(NamedTuple):
    """What one item costs in the caller's thread, all in seconds."""

    items: int  #: items seen, the first block included
    wall: float  #: mean per item; a dear first block is left out
    cpu: float  #: mean CPU time of the thread per item, likewise
    first_wall: float  #: per item of the first block
    recent_wall: float  #: mean per item of about the latest half: shows a trend
    recent_blocks: int  #: blocks that `recent_wall` rests on, of four items where they are larger
    spread: float  #: coefficient of variation between blocks, weighted by items
    dear_first: bool  #: the first block was far dearer and was left out

    @property
    def even(self) -> bool:
        """Whether items are known well enough, and alike enough, to count work in items."""
        return self.items >= 3 and self.spread < EVEN_SPREAD and not self.dear_first


class ItemMeter:
    """Adds up blocks of items that ran alone in the caller's thread.

    The first block often pays for imports, caches and page faults. It is left out of the means
    once the others say that it is unlike them.
    """

    #: How many times the mean of the others makes the first block dear. Smaller takes plain
    #: unevenness for warming up, larger lets an import spoil the estimate.
    _DEAR = 3.0

    def __init__(self) -> None:
        self._first: tuple[int, float, float] | None = None
        self._items = 0
        self._wall = self._cpu = 0.0
        self._squares = 0.0  # of the wall time per item, weighted by items
        self._recent: deque[tuple[int, float]] = deque()
        self._recent_items, self._recent_wall = 0, 0.0

    def add(self, items: int, wall: float, cpu: float) -> None:
        """Add a block of `items` items that took `wall` seconds and `cpu` seconds of the thread."""
        if items <= 0:
            return
        wall, cpu = max(0.0, wall), max(0.0, cpu)
        if self._first is None:
            self._first = (items, wall, cpu)
            return
        self._items += items
        self._wall += wall
        self._cpu += cpu
        self._squares += wall * wall / items
        self._recent.append((items, wall))
        self._recent_items += items
        self._recent_wall += wall
        # Keep the latest half of the time, and at least the latest block.
        while len(self._recent) > 1 and (self._recent_wall - self._recent[0][1]) * 2 > self._wall:
            old_items, old_wall = self._recent.popleft()
            self._recent_items -= old_items
            self._recent_wall -= old_wall

    def summary(self) -> ItemCost:
        """The figures so far; all zero before the first block."""
        if self._first is None:
            return ItemCost(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, False)
        first_items, first_wall, first_cpu = self._first
        first_each = first_wall / first_items
        items, wall, cpu, squares = self._items, self._wall, self._cpu, self._squares
        dear = items > 0 and first_each * items > self._DEAR * wall
        if not dear:
            items, wall, cpu = items + first_items, wall + first_wall, cpu + first_cpu
            squares += first_wall * first_each
        mean = wall / items
        variance = max(0.0, squares / items - mean * mean)
        return ItemCost(
            items=self._items + first_items,
            wall=mean,
            cpu=cpu / items,
            first_wall=first_each,
            recent_wall=self._recent_wall / self._recent_items if self._recent_items else mean,
            recent_blocks=max(len(self._recent), self._recent_items // 4),
            spread=math.sqrt(variance) / mean if mean > 0.0 else 0.0,
            dear_first=dear,
        )


class CoresMeter:
    """Effective cores: CPU seconds that the workers got per second while two or more worked.

    Threads that take turns on the GIL get one core between them, however many they are. A chunk's
    CPU time is known when it ends and counts as spread evenly over it; only the part during which
    another worker was busy counts, so a lonely tail does not look like poor scaling.

    Only the latest ``window`` seconds count: fewer follow changes, more hold enough chunks to mean
    something.
    """

    def __init__(self, window: float = 0.5) -> None:
        self._window = window
        self._running: dict[object, tuple[float, float]] = {}  # worker: began, shared time then
        self._at = 0.0  # when the two clocks below were brought up to date
        self._shared = 0.0  # seconds during which two or more worked
        self._worked = 0.0  # worker seconds during that time
        # Ended chunks: when, its CPU and its wall time while shared, both clocks then.
        self._ended: deque[tuple[float, float, float, float, float]] = deque()
        self._cpu = self._wall = 0.0
        self._origin = (0.0, 0.0)  # both clocks where the window begins

    def started(self, worker: object, now: float) -> None:
        """This worker begins a chunk."""
        self._advance(now)
        self._running[worker] = (now, self._shared)

    def finished(self, worker: object, now: float, cpu_seconds: float) -> None:
        """This worker ends its chunk, which took that much CPU time of its thread."""
        self._advance(now)
        began = self._running.pop(worker, None)
        if began is None:
            return
        wall, shared = now - began[0], self._shared - began[1]
        if wall > 0.0 and shared > 0.0:
            cpu = max(0.0, cpu_seconds) * min(1.0, shared / wall)
            self._ended.append((now, cpu, shared, self._shared, self._worked))
            self._cpu += cpu
            self._wall += shared

    def cores(self, now: float) -> tuple[float, float, float] | None:
        """Effective cores, mean number of busy workers, seconds this rests on; None: no chunk."""
        self._advance(now)
        while len(self._ended) > 1 and self._ended[0][0] < now - self._window:
            _, cpu, wall, shared, worked = self._ended.popleft()
            self._cpu -= cpu
            self._wall -= wall
            self._origin = (shared, worked)
        seconds = self._shared - self._origin[0]
        if not self._ended or seconds <= 0.0:
            return None
        workers = (self._worked - self._origin[1]) / seconds
        return max(0.0, self._cpu / self._wall) * workers, workers, seconds

    def clear(self) -> None:
        """Forget what ended, as when the number of workers changes; running chunks go on."""
        self._ended.clear()
        self._cpu = self._wall = 0.0
        self._origin = (self._shared, self._worked)
        self._running = {
            worker: (max(began, self._at), self._shared)
            for worker, (began, _) in self._running.items()
        }

    def _advance(self, now: float) -> None:
        elapsed, busy = now - self._at, len(self._running)
        if elapsed > 0.0:
            if busy >= 2:
                self._shared += elapsed
                self._worked += elapsed * busy
            self._at = now


class FreeCores:
    """Cores that all others leave, from looks at how many threads want one."""

    def __init__(self, installed: int) -> None:
        self._installed = installed
        self._looks = self._running = 0

    def add(self, running: int | None, own: int) -> None:
        """Add a look: so many threads want a core, of which ``own`` are this program's."""
        if running is not None:
            self._looks += 1
            self._running += max(0, running - own)

    def cores(self) -> float:
        """Those that one program may count on; below 1: the part of one that a thread gets."""
        taken = self._running / self._looks if self._looks else 0.0
        left = self._installed - taken
        return left if left >= 1.0 else self._installed / (taken + 1.0)


def native_threads(process_cpu: float, thread_cpu: float, other: float = 0.0) -> float:
    """Threads that a callable keeps busy by itself, its own included; at least 1.

    ``other``: CPU seconds of work that is not the callable's, such as the sampler's.
    """
    if thread_cpu <= 0.0:
        return 1.0
    return max(1.0, (process_cpu - max(0.0, other)) / thread_cpu)


def working_share(cpu: float, wall: float, delay: float) -> float:
    """Share of an item's time in which it worked, or would have worked without the delay.

    In those ``delay`` seconds no core was free, or planning had the GIL. An item that waits anyway
    loses nothing by them, so they do not count at all.
    """
    return min(1.0, cpu / max(cpu, wall - delay, 1e-9))
