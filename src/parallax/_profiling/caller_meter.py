"""Items in the caller's thread: how long they take, whether they hold the GIL, what held them up.

Purpose: the measurements that routes are predicted from, taken on items whose results count.
Guarantees: samples are taken only between ``start_sampler`` and ``stop_sampler``; time without a
core and time that measuring itself took are told apart from waiting.
Assumptions: ``begin`` and ``end`` are called in the thread of the items. Any thread may read.
"""

from __future__ import annotations

import time

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.thread_clocks import (
    MIN_TICKS,
    ClockedThread,
    RunDelay,
    clock_tick,
    native_id,
    thread_delay,
)
from parallax._profiling.gil_sampler import GilSampler
from parallax._profiling.meters import ItemMeter, native_threads, working_share

if TYPE_CHECKING:
    from collections.abc import Callable

    from parallax._core.chunks import ChunkResult
    from parallax._profiling.gil_estimate import GilReading
    from parallax._profiling.gil_sampler import Mark
    from parallax._profiling.meters import ItemCost

#: Seconds inside an unfinished item before anything is concluded from it. Shorter takes the start
#: of an item for the whole, longer delays the plan for long items.
UNFINISHED_ITEM_S = 0.006

#: Blocks from which on the later half of the work predicts the rest. Fewer would let one long item
#: speak for all.
TREND_BLOCKS = 4

#: CPU seconds of items, at least, before native threads are counted. Less is noise of the clock.
NATIVE_THREADS_MIN_CPU_S = 0.005

#: Seconds of a block without CPU time from which on it is asked whether a core was lacking. Less
#: takes a busy machine for waiting, more asks for nothing: it takes 15 us.
UNEXPLAINED_S = 0.0002

#: Share of waiting from which on an item counts as one that waits.
MOSTLY_WAITING = 0.8


class CallerMeter:
    """Measures the items of one call that run in the caller's thread."""

    def __init__(self, *, crowded: bool) -> None:
        self._items = ItemMeter()
        self._tick = clock_tick()
        #: seconds of all items so far, by the clock.
        self.wall = 0.0
        self._cpu = 0.0
        #: cores that one item keeps busy by itself, with threads of native code.
        self.native = 1.0
        #: share of waiting in an item, as measured before workers began.
        self.waiting = 0.0
        self._began = 0.0  # of the present block, 0 outside
        self._mark: Mark | None = None
        self._session: _SamplingSession | None = None
        self._hindered = 0.0  # what the session said at the end of the last block
        #: seconds without a core, when that was asked last. Before, any since the thread began may
        #: be the block's: to take queueing for waiting would start threads on a loaded machine.
        self._delay = 0.0
        self._native: int | None = None  # of the thread of the items, if that was noted
        self._reading: GilReading | None = None
        self._workers_began = False
        #: CPU seconds of the item during which workers began: before that, and in all.
        self.overtaken = (0.0, 0.0)
        #: whether workers of other calls may compete for this process's GIL.
        self.crowded = crowded
        self._made_at, self._made_cpu = time.perf_counter(), time.process_time()
        self._others_share: float | None = None  # final since workers of this call began

    @property
    def sampling(self) -> bool:
        """Whether the GIL is being sampled."""
        return self._session is not None

    def start_sampler(
        self, on_sample: Callable[[float], None], thread: ClockedThread | None = None
    ) -> None:
        """Begin to sample the GIL, beside another ``thread`` if this is not that of the items.

        ``on_sample`` is called in the sampler's thread.
        """
        if self._session is None:
            thread = thread or ClockedThread.current()
            session = self._session = _SamplingSession(on_sample, thread)
            self._hindered = thread.delay
            session.sampler.start()

    def stop_sampler(self) -> None:
        """End sampling and keep the reading. Raises what ``on_sample`` raised."""
        session, self._session = self._session, None
        if session is not None:
            self._delay = session.delay()
            session.stop()
            if not self._workers_began:
                self._reading = session.sampler.reading()

    def began_in(self, thread: ClockedThread) -> None:
        """The items began in this thread, before there was this meter."""
        if thread.native_id is not None:
            self._native, self._delay = thread.native_id, thread.delay

    def begin(self, now: float) -> None:
        """The caller's thread enters an item or a block of items."""
        self._began = now
        self._mark = self._session.sampler.mark() if self._session is not None else None

    def end(self, items: int, wall: float, cpu: float, *, alone: bool) -> None:
        """The caller's thread has left a block; ``alone``: no other worker of the call began."""
        self._began = 0.0
        self.wall += wall
        self._cpu += cpu
        session, hindered = self._session, 0.0
        if session is not None:
            before, self._hindered = self._hindered, session.hindered()
            hindered = max(0.0, self._hindered - before)
        elif wall - cpu > UNEXPLAINED_S:
            before, self._delay = self._delay, thread_delay(self._native or native_id())
            hindered = self._delay - before
        if alone or (self.waiting > MOSTLY_WAITING and not self.cost().items):
            # A step of a coarse clock may be more than the block that it falls into.
            self._items.add(items, wall, max(cpu, wall * working_share(cpu, wall, hindered)))
        if not alone and self.overtaken[0] and not self.overtaken[1]:
            self.overtaken = (self.overtaken[0], cpu)
        if alone and session is not None and not self._workers_began:
            native = session.native_threads(cpu)
            if native is not None and not self.crowded:
                self.native = native

    def workers_begin(self, now: float, waiting: float | None) -> None:
        """Other workers begin: the GIL is theirs as well now, so its reading is final."""
        # From now on threads of this very call are among those that keep the process busy.
        self._others_share = self.others_busy(now)
        if self._session is not None:
            self._reading = self._session.sampler.reading()
            if self._began:
                busy = self._session.sampler.busy(self._mark)
                self.overtaken = (self.elapsed(now) * (1.0 if busy is None else busy), 0.0)
        if waiting is not None:
            self.waiting = waiting
        self._workers_began = True

    def cost(self) -> ItemCost:
        """What the finished items cost."""
        return self._items.summary()

    def elapsed(self, now: float) -> float:
        """Seconds inside the present block, 0 outside."""
        return now - self._began if self._began else 0.0

    def times(self, now: float) -> tuple[int, float, float] | None:
        """Items, wall and CPU seconds per item; None if too little is known to act on."""
        cost, elapsed = self.cost(), self.elapsed(now)
        if cost.items == 0:
            session = self._session
            if elapsed < UNFINISHED_ITEM_S or session is None:
                return None
            busy = session.sampler.busy(self._mark)
            cpu = elapsed * (1.0 if busy is None else busy)
            if self._mark is None:  # sampling began inside of the block, perhaps near its end
                cpu = min(elapsed, session.used(cpu))
            hindered = max(0.0, session.hindered() - self._hindered)
            return 0, elapsed, elapsed * working_share(cpu, elapsed, hindered)
        # A coarse clock may be about to step: what is not known to be waiting counts as work.
        wall = cost.wall
        cpu = min(wall, cost.cpu + self._tick / cost.items)
        if cost.recent_blocks >= TREND_BLOCKS:
            wall, cpu = cost.recent_wall, cpu * (cost.recent_wall / wall if wall else 1.0)
        if elapsed > 2 * wall:
            wall = (wall * cost.items + elapsed) / (cost.items + 1)
        return cost.items, wall, cpu

    def reading(self) -> GilReading | None:
        """How the GIL was held, until other workers began."""
        session = self._session
        if session is None or self._workers_began:
            return self._reading
        return session.sampler.reading()

    def others_busy(self, now: float) -> float:
        """Share of the time, 0..1, in which threads of other calls kept this process busy.

        A thread that queues behind them seems to wait.
        """
        if not self.crowded:
            return 0.0
        if self._others_share is not None:
            return self._others_share
        return min(1.0, (time.process_time() - self._made_cpu) / max(now - self._made_at, 1e-9))

    def loop_seconds(self, result: ChunkResult, *, threads: bool, contention: float = 1.0) -> float:
        """Seconds that a plain loop would take for a worker's chunk.

        The wall time of a thread includes queueing for the GIL, so its CPU time is better evidence;
        for even items their number is the best.
        """
        cost = self.cost()
        if cost.even:
            return len(result.values) * cost.wall
        if cost.items and cost.cpu > 0.2 * cost.wall and self._cpu > 0:
            return result.cpu / contention * self.wall / self._cpu
        if cost.items == 0 and threads and result.cpu > 0.2 * result.wall:
            return result.cpu / contention
        return result.wall


class _SamplingSession:
    """A time in which the GIL is sampled, with clocks that tell its own cost from the items'."""

    def __init__(self, on_sample: Callable[[float], None], thread: ClockedThread) -> None:
        self._on_sample: Callable[[float], None] | None = on_sample
        self._process_cpu = time.process_time()
        self._thread_cpu = thread.cpu
        self._items_cpu = 0.0
        self.delay = RunDelay(f"/proc/self/task/{thread.native_id}/schedstat")
        self._sampler_delay: RunDelay | None = None  # opened in the sampler's thread
        self._callback_cpu = self._callback_wall = 0.0
        self._callback_began = 0.0  # 0 outside the callback
        self.sampler = GilSampler(self._sample, thread)

    def stop(self) -> None:
        try:
            self.sampler.stop()
        finally:
            # The session and its sampler are a cycle; the garbage collector would come too late.
            self._on_sample = None
            self.delay.close()
            if self._sampler_delay is not None:
                self._sampler_delay.close()

    def used(self, unknown: float) -> float:
        """CPU seconds of the thread since it was clocked, where that can be told."""
        watched = self.sampler.watched()
        return unknown if watched is None else watched - self._thread_cpu

    def _sample(self, now: float) -> None:
        on_sample = self._on_sample
        if on_sample is None:
            return
        if self._sampler_delay is None:
            self._sampler_delay = RunDelay()
        cpu, self._callback_began = time.thread_time(), time.perf_counter()
        on_sample(now)
        spent = time.perf_counter() - self._callback_began
        self._callback_began = 0.0
        self._callback_cpu += time.thread_time() - cpu
        self._callback_wall += spent

    def hindered(self) -> float:
        """Seconds so far in which the caller's thread could not have worked.

        Run queue delays of the caller's thread and of the sampler's, and the time of the callback.
        A thread that hands over the GIL waits until the other has taken it. If that one gets no
        core, the first one sleeps, and looks as if it waited.
        """
        began = self._callback_began
        seconds = self._callback_wall + (time.perf_counter() - began if began else 0.0)
        seconds += self.delay()
        return seconds + (self._sampler_delay() if self._sampler_delay is not None else 0.0)

    def native_threads(self, cpu: float) -> float | None:
        """Native threads that items keep busy, given the CPU seconds of another block."""
        self._items_cpu += cpu
        if self._items_cpu <= max(NATIVE_THREADS_MIN_CPU_S, MIN_TICKS * clock_tick()):
            return None
        used = time.process_time() - self._process_cpu
        # Measuring and planning, in this thread and the sampler's, is no thread of the callable.
        ours = time.thread_time() - self._thread_cpu - self._items_cpu
        ours += self.sampler.mark().samples.cpu + self._callback_cpu
        return native_threads(used, self._items_cpu, ours)
