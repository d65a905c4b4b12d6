"""What is known about a run's callable, and the plan that follows from it at any moment.

Purpose: joins the meter, the GIL sampler, the side-effect guard and the memory of earlier calls
into one ``Measurement``, and asks the planner. Starts no worker and decides nothing itself.
Guarantees: measuring happens on items that count; the sampler never runs outside an item of the
caller's thread; verdicts from a loaded machine are not remembered.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from parallax._core.chunks import ChunkResult, Route
from parallax._core.cores import gil_enabled
from parallax._core.errors import SharedStateWarning
from parallax._core.plans import Measurement, Payload, Plan
from parallax._core.thread_clocks import RunDelay
from parallax._guard.effects import Observer, Verdict, except_shared, judge, scan
from parallax._profiling.gil_sampler import Mark
from parallax._profiling.history import PastRun, key_of, past_run, remember_run
from parallax._profiling.meters import (
    GilReading,
    GilSampler,
    Meter,
    OtherCallsLoad,
    native_threads,
    working,
)
from parallax._routing.planner import Facts, plan

__all__ = ["Profiler"]

SPREAD = "its items make parallel calls, which use the cores already"

#: Seconds inside an unfinished item before it says anything about its cost.
LOOK = 0.006

#: Seconds of work after which an unclear GIL reading is taken as it is.
ENOUGH = 0.04

#: Half-width of the GIL reading that is clear at once.
CLEAR = 0.25

#: Items that are watched one by one while the guard is undecided. A cache that fills later than
#: this keeps its callable in the process.
WATCHED = 12

#: Blocks from which on the later half of the work tells what is to come. Fewer would let one
#: long item speak for all.
TREND = 4

#: Cores kept busy by all threads together below which nothing holds them up but waiting.
SATURATED = 0.7

#: Spread of item times (standard deviation over mean) up to which one item is like the other.
EVEN = 0.25

#: Items that a callable with side effects runs in the loop before threads are thought of.
SURE_ITEMS = 3

#: Share of the time without a core from which on the machine counts as loaded.
LOADED = 0.06

#: Share of the time in which threads of other calls keep this process busy from which on waiting
#: is taken for queueing behind them.
CROWDED = 0.67

#: Remembered item times that differ by more than this factor from what is seen are dropped.
STALE = 4.0


class Profiler:
    """Sees to one run's measurement."""

    def __init__(
        self, fn: Callable[..., Any], *, guard: bool, threads: int = 32, crowded: bool = False
    ) -> None:
        """Recall what is known of a callable.

        Args:
            fn: the user's callable.
            guard: look for side effects; without it the callable is taken as free.
            threads: most threads for waiting work at first.
            crowded: workers of other calls may compete for this process's GIL.
        """
        self._fn = fn
        self._key = key_of(fn)
        self.past_run: PastRun | None = past_run(self._key)
        self.meter = Meter()
        self.payload: Payload | None = None
        self.speeds: dict[Route, float] = {}
        self.thread_cap = threads
        self._crowd = OtherCallsLoad(time.perf_counter(), time.process_time()) if crowded else None
        #: items were seen to have workers of their own.
        self.spread = False
        self.stay: str = ""  # a reason not to leave the process, found out on the way
        self._native = 1.0
        self._guard = guard
        self._verdict = Verdict("free", "", None, True)
        self._observer: Observer | None = None
        self._history: tuple[bool, ...] = ()
        self.reads: tuple[Any, ...] = ()
        self._sampler: GilSampler | None = None
        self._tick: Callable[[float], None] | None = None
        self._mark: Mark | None = None
        self._frozen = False
        self._share: float | None = None
        self._waiting = 0.0  # share of an item, as seen before workers began
        self._began = 0.0  # of the item or block that the caller's thread is in, 0 if none
        self._process_cpu = 0.0
        self._inline_cpu = 0.0
        self._coding, self._coded = 0.0, 0
        self._workers = 1
        self._worker_items = 0
        self._worker_wall = self._worker_cpu = 0.0
        self._worker_threads = False
        #: seconds of items that the caller's thread has run.
        self.inline_wall = 0.0
        self._raw_cpu = 0.0
        self._delay: RunDelay | None = None
        self._tick_delay: RunDelay | None = None
        self._delayed = 0.0
        self._tick_wall = 0.0
        self._thinking = 0.0  # since when the sampler's thread thinks, 0 if it does not
        self._last_reading: GilReading | None = None

    # -- the guard -----------------------------------------------------------------------------

    def inspect(self, sample: tuple[Any, ...]) -> None:
        """Look at the callable's code before its first item.

        Args:
            sample: the arguments of the first item.
        """
        if not self._guard:
            return
        effects = except_shared(scan(self._fn, sample), self._fn, sample)
        self.reads = effects.reads
        if effects.findings or effects.opaque:
            self._observer = Observer(self._fn, effects)
            self._history = self.past_run.history if self.past_run else ()
            self._effects = effects
            self._verdict = judge(effects, self._history)

    def look_for_reads(self) -> None:
        """Find the module globals that the callable reads, where the guard did not look."""
        if not self.reads:
            self.reads = scan(self._fn).reads

    @property
    def watching(self) -> bool:
        """Items must be watched one by one now, to settle what the guard saw in the code."""
        observer = self._observer
        return (
            observer is not None and not self._verdict.settled and len(observer.history) < WATCHED
        )

    def before(self, args: tuple[Any, ...]) -> None:
        """An item that is watched begins."""
        if self._observer is not None:
            self._observer.before(args)

    def after(self) -> None:
        """It ended."""
        if self._observer is not None:
            self._observer.after()
            self._verdict = judge(self._effects, (*self._history, *self._observer.history))

    @property
    def verdict(self) -> Verdict:
        """Where the callable may run."""
        if self.spread and self._verdict.limit != "loop":
            return Verdict("loop", SPREAD, None, True)
        if self.stay and self._verdict.limit == "free":
            return Verdict("process", self.stay, None, True)
        return self._verdict

    def warn(self) -> None:
        """Tell once per callable that its shared state kept it from running in parallel."""
        finding = self._verdict.finding
        if finding is None or self._verdict.limit != "loop":
            return
        mark = (finding.filename, finding.line, finding.target)
        if mark in _warned:
            return
        _warned.add(mark)
        text = f"{self._verdict.reason}"
        level = _user_level()
        warnings.warn(SharedStateWarning(text), stacklevel=level)

    # -- measuring -----------------------------------------------------------------------------

    def start_sampler(self, on_sample: Callable[[float], None]) -> None:
        """Begin to sample the GIL while the caller's thread works."""
        if self._sampler is None:
            self._process_cpu = time.process_time()
            self._own_cpu = time.thread_time()
            self._inline_cpu = 0.0
            self._tick_cpu = self._tick_wall = 0.0
            self._delay = RunDelay()
            self._delayed = self._delay()
            self._tick_delay = None

            def tick(now: float) -> None:
                if self._tick_delay is None:
                    self._tick_delay = RunDelay()
                before, self._thinking = time.thread_time(), time.perf_counter()
                on_sample(now)
                spent = time.perf_counter() - self._thinking
                self._thinking = 0.0
                self._tick_cpu += time.thread_time() - before
                self._tick_wall += spent

            self._sampler = GilSampler(tick)
            self._sampler.start()

    def stop_sampler(self) -> None:
        """End sampling; what was read is kept."""
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            try:
                sampler.stop()
            finally:
                for reader in (self._delay, self._tick_delay):
                    if reader is not None:
                        reader.close()
                self._delay = self._tick_delay = None
            if not self._frozen:
                self._last_reading = sampler.reading()

    @property
    def sampling(self) -> bool:
        """Whether the sampler runs."""
        return self._sampler is not None

    def begins(self, now: float) -> None:
        """The caller's thread enters an item or a block of items."""
        self._began = now
        self._mark = self._sampler.mark() if self._sampler is not None else None

    def ends(self, items: int, wall: float, cpu: float, *, alone: bool) -> None:
        """It left it.

        Args:
            items: how many items it was.
            wall: seconds on the clock.
            cpu: seconds on the thread's CPU clock.
            alone: no other worker of the run has begun.
        """
        self._began = 0.0
        self.inline_wall += wall
        delay = self._delay_since()
        self._raw_cpu += cpu
        cpu_share = working(cpu, wall, delay)
        if alone or (self._waiting > 0.8 and self.meter.summary().items == 0):
            self.meter.add(items, wall, wall * cpu_share)
        if alone and self._sampler is not None and not self._frozen:
            self._inline_cpu += cpu
            if self._inline_cpu > 0.005 and self._crowd is None:
                used = time.process_time() - self._process_cpu
                # Our own thinking, in this thread and the sampler's, is no thread of the callable.
                ours = time.thread_time() - self._own_cpu - self._inline_cpu
                ours += self._sampler.mark().cpu + self._tick_cpu
                self._native = native_threads(used, self._inline_cpu, ours)

    def _delay_since(self) -> float:
        before, self._delayed = self._delayed, self._delay_now()
        return max(0.0, self._delayed - before)

    def _delay_now(self) -> float:
        """Run queue delays of the caller's thread and of the sampler's, and our own thinking there.

        A thread that hands over the GIL waits until the other has taken it. If that one gets no
        core, the first one sleeps, and it looks like waiting.
        """
        readers = (self._delay, self._tick_delay)
        since = self._thinking
        now_thinking = time.perf_counter() - since if since else 0.0
        return (
            self._tick_wall
            + now_thinking
            + sum(reader() for reader in readers if reader is not None)
        )

    def measurement(self, now: float) -> Measurement | None:
        """What is known now, or None if it is too little to act on."""
        cost = self.meter.summary()
        elapsed = now - self._began if self._began else 0.0
        sampler = self._sampler
        items = cost.items
        by_workers = self._by_workers()
        if by_workers is not None:
            items, wall, cpu = by_workers
        elif cost.items == 0:
            if self.past_run is not None:
                return replace(self.past_run.measurement, remembered=True, payload=self.payload)
            if elapsed < LOOK or sampler is None:
                return None
            busy = sampler.busy(self._mark)
            cpu = elapsed * (1.0 if busy is None else busy)
            delay = max(0.0, self._delay_now() - self._delayed)
            wall, cpu = elapsed, elapsed * working(cpu, elapsed, delay)
            items = 0
        else:
            wall, cpu = cost.wall, cost.cpu
            if cost.recent_blocks >= TREND:
                wall, cpu = cost.recent_wall, cpu * (cost.recent_wall / wall if wall else 1.0)
            if elapsed > 2 * wall:
                wall = (wall * cost.items + elapsed) / (cost.items + 1)
        held: float | None = None
        error = 1.0
        live = sampler is not None and not self._frozen
        reading = sampler.reading() if live and sampler else self._last_reading
        if reading is not None and reading.held is not None:
            held, error = reading.held, reading.error
        remembered = self._fitting(wall)
        if remembered is not None and (held is None or error > CLEAR):
            held, error = remembered.held, remembered.error
        if self._share is not None and wall > 0:
            held = min(1.0, self._share * cpu / wall)
        if not gil_enabled():
            held, error = 0.0, 0.0
        if self._crowd is not None and self._crowd.busy(now, time.process_time()) > CROWDED:
            cpu = wall
        return Measurement(
            items=items,
            wall=wall,
            cpu=min(cpu, wall),
            held=held,
            error=error,
            native=self._native if held is None or held < 0.5 else 1.0,
            spread=cost.spread,
            payload=self.payload,
            remembered=remembered is not None and not items,
        )

    def _by_workers(self) -> tuple[int, float, float] | None:
        """Items, wall and CPU seconds per item as far as workers tell more than this thread."""
        cost = self.meter.summary()
        even = cost.items >= 3 and cost.spread < EVEN and not cost.dear_first
        if even or self._worker_items < max(4, cost.items):
            return None  # alone in this thread is the better witness
        items = self._worker_items
        wall, cpu = self._worker_wall / items, self._worker_cpu / items
        # Threads that leave the cores idle between them really wait, whatever the start was like.
        idle = cpu / wall * self._workers < SATURATED if wall > 0 else False
        if self._worker_threads and self._waiting < 0.8 and not idle:
            # On threads the wall time includes queueing for the GIL and the cores: take the CPU
            # time, and for waiting the share that was seen before there was a queue.
            wall = cpu / (1.0 - self._waiting)
        elif self._worker_threads and cost.items and self._waiting >= 0.8:
            wall = cost.wall
        return items, wall, min(cpu, wall)

    def coded(self, seconds: float, items: int) -> None:
        """Add what it really took here to send items and take their results."""
        self._coding += seconds
        self._coded += items
        if self.payload is not None and self._coded >= 4:
            self.payload = replace(self.payload, seconds=self._coding / self._coded)

    def worker_did(self, result: ChunkResult, *, threads: bool, workers: int) -> None:
        """Add what a worker's chunk took, one of ``workers``."""
        self._workers = workers
        if threads != self._worker_threads:
            self._worker_threads = threads
            self._worker_items, self._worker_wall, self._worker_cpu = 0, 0.0, 0.0
        self._worker_items += len(result.values)
        self._worker_wall += result.wall
        self._worker_cpu += result.cpu + result.delay

    def _fitting(self, wall: float) -> Measurement | None:
        """The remembered measurement, if items still look like it."""
        if self.past_run is None:
            return None
        then = self.past_run.measurement
        if then.wall > wall * STALE or wall > then.wall * STALE:
            self.past_run = None
            return None
        return then

    def freeze(self) -> None:
        """Workers begin: from now on what they do tells more than what the sampler hears."""
        if self._frozen:
            return
        seen = self.measurement(time.perf_counter())
        if self._crowd is not None:
            self._crowd.freeze(time.perf_counter(), time.process_time())
        if self._sampler is not None:
            self._last_reading = self._sampler.reading()
        if seen is not None:
            self._waiting = seen.waiting
        if seen is not None and seen.held is not None and seen.cpu > 0:
            # Other figures will replace the times; what stays is how much of the CPU time it was.
            self._share = min(1.0, seen.held * seen.wall / seen.cpu)
        self._frozen = True

    def plan(
        self,
        now: float,
        remaining: int | None,
        facts: Facts,
    ) -> tuple[Measurement, Plan] | None:
        """What should be done now, or None while nothing can be said.

        Args:
            now: the clock.
            remaining: items left to start.
            facts: what the run knows; the guard's limit and observed speeds are filled in here.
        """
        seen = self.measurement(now)
        if seen is None:
            return None
        clear = seen.held is not None and seen.error <= CLEAR
        spent = self.inline_wall + (now - self._began if self._began else 0.0)
        waits = seen.waiting >= 0.8 and self._crowd is None
        if not clear and not waits and spent < ENOUGH and facts.current == "loop":
            return None
        if seen.held is None:
            # Still unclear after much work: the pessimistic guess, which observed cores correct.
            seen = replace(seen, held=min(1.0, seen.cpu / seen.wall if seen.wall else 1.0))
        if self._observer is not None and self.watching and facts.current == "loop":
            return None
        if self.verdict.limit == "process" and facts.current == "loop":
            # Threads would change the order of side effects, so they must be worth it beyond
            # doubt, and a loaded machine leaves doubt.
            if seen.items < SURE_ITEMS:
                return None
            if self.delayed > LOADED and seen.waiting < 0.9:
                seen = replace(seen, held=1.0, error=0.0)
        return seen, plan(seen, remaining, self.facts(facts))

    def facts(self, facts: Facts) -> Facts:
        """Add what the guard and the workers have told."""
        verdict = self.verdict
        return replace(
            facts,
            limit=verdict.limit,
            limit_reason=verdict.reason,
            observed=dict(self.speeds),
            thread_cap=self.thread_cap,
        )

    # -- judging by what workers do ------------------------------------------------------------

    def equivalent(self, result: ChunkResult, *, threads: bool) -> float:
        """Loop seconds that a chunk done by a worker stands for.

        Wall time on a thread includes queueing for the GIL, so the CPU time is the better
        witness; for even items their number is the best.
        """
        cost = self.meter.summary()
        if cost.items >= 3 and cost.spread < EVEN and not cost.dear_first:
            return len(result.values) * cost.wall
        if cost.items and cost.cpu > 0.2 * cost.wall and self._raw_cpu > 0:
            return result.cpu * self.inline_wall / self._raw_cpu
        if cost.items == 0 and threads and result.cpu > 0.2 * result.wall:
            return result.cpu
        return result.wall

    @property
    def delayed(self) -> float:
        """Share of the time in which the caller's thread could run and had no core."""
        reading = self._sampler.reading() if self._sampler is not None else self._last_reading
        return reading.delayed if reading is not None else 0.0

    def keep(self, seen: Measurement | None) -> None:
        """Remember for the next call, unless the machine was too busy to tell."""
        if seen is None or seen.items + (1 if seen.remembered else 0) < 1:
            return
        if self.spread or self._crowd is not None:
            return  # what was seen is what others did
        if self.delayed > 2 * LOADED:
            return
        history = self._history
        if self._observer is not None:
            history = (*self._history, *self._observer.history)[-WATCHED:]
            if self._history and self._history[0]:
                history = (True, *history[1:])
        remember_run(
            self._key,
            PastRun(
                replace(seen, payload=None, remembered=False),
                history,
                self.speeds.get("threads"),
                self.speeds.get("processes"),
            ),
        )


_warned: set[tuple[str, int, str]] = set()


def _user_level() -> int:
    """The stack level of the caller's own code, for ``warnings.warn`` in our caller."""
    level = 2
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("parallax."):
        frame = frame.f_back
        level += 1
    return level
