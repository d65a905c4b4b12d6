"""What is known of a call's function, and the plan that follows from it at any moment.

Purpose: joins the measurements of the caller's thread and of the workers, the limits that the
guard sets and what earlier calls have found into one ``Measurement``, and asks the planner.
Guarantees: starts no worker; measures only items whose results count; nothing that was measured on
a loaded machine is kept for later calls.
"""

from __future__ import annotations

from collections.abc import Callable

from parallax._core.chunks import ChunkResult, Route
from parallax._core.cores import gil_enabled, installed_cores, running_threads
from parallax._core.light_stdlib import Any
from parallax._core.plans import Measurement, Plan
from parallax._core.records import replace
from parallax._guard.watch import steps_for
from parallax._profiling.caller_meter import CallerMeter
from parallax._profiling.contention import ContentionMeter
from parallax._profiling.history import PastRun, key_of, past_run, remember_run
from parallax._profiling.meters import FreeCores
from parallax._profiling.worker_meter import WorkerMeter
from parallax._routing.planner import Facts, best_route, plan
from parallax._routing.route_limits import RouteLimits
from parallax._routing.throughput import POOR_SPEED

#: Seconds of work after which an unclear GIL reading is acted on. Smaller starts the wrong workers
#: more often, larger keeps the other cores idle for longer.
MAX_UNCLEAR_S = 0.04

#: Items left per core from which on the first item, which may have filled caches, does not speak
#: for all, unless it takes so many seconds. Fewer keep the other cores idle during the second.
MANY_ITEMS, MAX_FIRST_ITEM_S = 16, 0.5

#: Half-width of a GIL reading up to which it is acted on at once.
CLEAR_ERROR = 0.25

#: Items that run alone before threads begin without a GIL, unless they are long: by them it is seen
#: whether threads hinder each other. Fewer leave that unclear, more keep the other cores idle.
MIN_ITEMS_ALONE = 3

#: Items that a callable with side effects runs in the loop before threads are thought of. Fewer
#: changes the order of side effects for a gain that is not certain.
MIN_ITEMS_BEFORE_THREADS = 3

#: Share of the time without a core from which on the machine counts as loaded.
LOADED_SHARE = 0.06

#: Share of the time in which other calls' threads keep this process busy, from which on waiting is
#: taken for queueing behind them.
CROWDED_SHARE = 0.67

#: Seconds of a chunk in worker processes, at least, and the share of them for a look.
MIN_CHUNK_S = 0.02
CHUNK_LOOK_SHARE = 0.01

#: Item times of an earlier call that differ by more than this factor from what is seen are dropped.
STALE_FACTOR = 4.0


class Profiler:
    """Profiles the function of one call.

    Without ``guard`` no route is closed for side effects; ``threads`` is the first ``thread_cap``;
    ``crowded``: workers of other calls may compete for this process's GIL.
    """

    def __init__(
        self, fn: Callable[..., Any], *, guard: bool, threads: int = 32, crowded: bool = False
    ) -> None:
        self._key = key_of(fn)
        #: what an earlier call has found, as long as the items look like it.
        self.past_run: PastRun | None = past_run(self._key)
        self._gil = gil_enabled()
        if self.past_run is not None and self.past_run.gil != self._gil:
            self.past_run = None
        self.caller = CallerMeter(crowded=crowded)
        self.workers = WorkerMeter()
        self._threads = ContentionMeter()
        history = self.past_run.history if self.past_run is not None else ()
        kept = self.past_run.kept if self.past_run is not None else None
        self.limits = RouteLimits(fn, history, kept, guard=guard)
        #: routes at work in this call: loop seconds done per second.
        self.observed_speeds: dict[Route, float] = {}
        if self.past_run is not None and self.past_run.poor_threads is not None:
            self.observed_speeds["threads"] = self.past_run.poor_threads
        self.thread_cap = threads
        self._free = FreeCores(installed_cores())
        self._delayed = 0.0  # share of the time in which the caller's thread had no core
        self._workers_began = False
        self._held_per_cpu: float | None = None

    @property
    def working(self) -> float:
        """Share of the time in which the caller's thread had a core, or needed none."""
        return max(0.05, 1.0 - self._delayed)

    @property
    def weighed(self) -> bool:
        """Whether it is known what sending items costs, or that they cannot be sent."""
        return self.workers.payload is not None or bool(self.limits.stay_reason)

    def measurement(self, now: float) -> Measurement | None:
        """What is known now; None if it is too little to act on."""
        caller, cost = self.caller, self.caller.cost()
        contention = self._threads.factor
        times = self.workers.times(cost, caller.waiting, contention)
        if times is None and not cost.items and self.past_run is not None:
            past = self.past_run.measurement
            return replace(past, remembered=True, payload=self.workers.payload)
        times = times or caller.times(now)
        if times is None:
            return None
        items, wall, cpu = times
        reading = caller.reading()
        held, error = (None, 1.0) if reading is None else (reading.held, reading.error)
        self._delayed = 0.0 if reading is None else reading.delayed
        similar = self.past_run.measurement if self.past_run is not None else None
        if similar is not None and max(wall, similar.wall) > min(wall, similar.wall) * STALE_FACTOR:
            similar = self.past_run = None
            if not self._workers_began:
                self.observed_speeds.clear()
        if similar is not None and (held is None or error > CLEAR_ERROR):
            held, error = similar.held, similar.error
        if self._held_per_cpu is not None and wall > 0:
            held = min(1.0, self._held_per_cpu * cpu / wall)
        if not self._gil:
            held, error = 0.0, 0.0
        if contention == 1.0 and similar is not None:
            contention = similar.contention
        if caller.others_busy(now) > CROWDED_SHARE:
            cpu = wall
        return Measurement(
            items=items,
            wall=wall,
            cpu=min(cpu, wall),
            held=held,
            error=error,
            native=caller.native if held is None or held < 0.5 else 1.0,
            spread=cost.spread,
            payload=self.workers.payload,
            contention=contention,
            remembered=similar is not None and not items,
        )

    def look_around(self, own: int) -> None:
        """Look how many threads of the machine want a core now, ``own`` of this program."""
        self._free.add(running_threads(), own)

    def _cores_left(self) -> float:
        """Cores that other programs leave, below 1 the part of one."""
        free, delayed = self._free.cores(), self._delayed
        # A few looks may miss what a thread that had to wait for a core has felt all the time.
        return min(free, 1.0 - delayed) if delayed > 2 * LOADED_SHARE else free

    def gil_came(self) -> bool:
        """Whether the GIL was switched on since this was asked last: an import may do that."""
        if self._gil or not gil_enabled():
            return False
        self._gil = True
        # All that is known of threads was seen without a GIL.
        self.past_run = self._held_per_cpu = None
        self._threads = ContentionMeter()
        self.observed_speeds.pop("threads", None)
        return True

    def ran_beside(self, result: ChunkResult) -> float:
        """Threads have run a chunk; the factor that corrects ``loop_seconds`` of earlier ones."""
        caller, before = self.caller, self._threads.factor
        if caller.waiting > 0.5:
            return 1.0  # how much an item computes after it has waited is not known yet
        if not self._threads.add(result, caller.cost(), caller.overtaken):
            return 1.0
        self.observed_speeds.pop("threads", None)  # it was taken for more, or less
        return 1.0 if caller.cost().even else before / self._threads.factor

    def contends(self) -> bool:
        """Whether it is worth seeing what items take alone now, beside what threads take."""
        return self._threads.doubtful(self.caller.cost())

    def ran_alone(self, items: int, cpu: float) -> None:
        """So many items ran alone once more, in so many CPU seconds."""
        self._threads.settle(items, cpu)
        self.observed_speeds.pop("threads", None)

    def loop_seconds(self, result: ChunkResult, *, threads: bool) -> float:
        """Seconds that a plain loop would take for a worker's chunk."""
        contention = self._threads.factor if threads else 1.0
        return self.caller.loop_seconds(result, threads=threads, contention=contention)

    def workers_begin(self, now: float) -> None:
        """Workers begin: from now on what they do is better evidence than the GIL reading."""
        if self._workers_began:
            return
        seen = self.measurement(now)
        self.caller.workers_begin(now, None if seen is None else seen.waiting)
        if seen is not None and seen.held is not None and seen.cpu > 0:
            # Other figures will replace the times; what stays is how much of the CPU time it was.
            self._held_per_cpu = min(1.0, seen.held * seen.wall / seen.cpu)
        self._workers_began = True

    def plan(
        self, now: float, remaining: int | None, facts: Facts
    ) -> tuple[Measurement, Plan] | None:
        """What should be done now; None while nothing can be said."""
        seen = self.measurement(now)
        if seen is None:
            return None
        in_loop = facts.current == "loop"
        clear = seen.held is not None and seen.error <= CLEAR_ERROR
        waits = self._waits(seen)
        spent = self.caller.wall + self.caller.elapsed(now)
        # Where a thread has to wait for a core, one that had to may speak for the first few.
        few = MIN_ITEMS_ALONE if self._delayed > 2 * LOADED_SHARE else 1
        first = seen.items <= few and not seen.remembered and spent < MAX_FIRST_ITEM_S
        if in_loop and first and not waits and (remaining or 0) > MANY_ITEMS * facts.cores:
            return None
        # A reading needs the time in which items ran, and not that in which they had no core.
        spent *= 1.0 - self._delayed
        alone = self._gil or seen.remembered or seen.items >= MIN_ITEMS_ALONE
        if in_loop and not (clear and alone) and not waits and spent < MAX_UNCLEAR_S:
            return self._hopeless(seen, remaining, facts)
        if seen.held is None:
            # Still unclear after much work: the pessimistic guess, which observed cores correct.
            seen = replace(seen, held=min(1.0, seen.cpu / seen.wall if seen.wall else 1.0))
        if in_loop and self.limits.watching:
            return None
        if in_loop and self.limits.verdict.limit == "process":
            # Threads would change the order of side effects, so they must be worth it beyond
            # doubt, and a loaded machine leaves doubt.
            if seen.items < MIN_ITEMS_BEFORE_THREADS:
                return None
            if self._delayed > LOADED_SHARE and seen.waiting < 0.9:
                seen = replace(seen, held=1.0, error=0.0)
        return seen, plan(seen, remaining, self.facts_with_limits(facts))

    def _hopeless(
        self, seen: Measurement, remaining: int | None, facts: Facts
    ) -> tuple[Measurement, Plan] | None:
        """The loop, where that is best however the GIL is held, so that none need measure it."""
        if seen.items < MIN_ITEMS_ALONE or self.limits.watching:
            return None
        facts = self.facts_with_limits(facts)
        if best_route(replace(seen, held=0.0, error=0.0), remaining, facts)[0] != "loop":
            return None
        return seen, replace(plan(seen, remaining, facts), settled=True)

    def waits(self, now: float) -> bool:
        """Whether items wait nearly all the time: that is for threads, and no fork is hoped for."""
        seen = self.measurement(now)
        return seen is not None and self._waits(seen)

    def _waits(self, seen: Measurement) -> bool:
        return seen.waiting >= 0.8 and not self.caller.crowded

    def may_pay(self, now: float, remaining: int, facts: Facts) -> bool:
        """Whether processes would be used if items turned out to hold the GIL all the time."""
        seen = self.measurement(now)
        if seen is None or seen.waiting > 0.5:
            return False
        worst = replace(seen, held=1.0, error=0.0, native=self.caller.native)
        return best_route(worst, remaining, self.facts_with_limits(facts))[0] == "processes"

    def facts_with_limits(self, facts: Facts) -> Facts:
        """The facts with the limits of the callable and the speeds that were observed."""
        verdict = self.limits.verdict
        return replace(
            facts,
            limit=verdict.limit,
            limit_reason=verdict.reason,
            observed=dict(self.observed_speeds),
            free=self._cores_left(),
            thread_cap=self.thread_cap,
        )

    def net(self) -> tuple[Any, ...] | None:
        """The net for workers: how closely to look, and which changes are harmless."""
        watch, seen = self.limits.watch, self.caller.cost()
        if watch is None:
            return None
        chunk = max(MIN_CHUNK_S, seen.recent_wall if seen.items else 0.0)
        return steps_for(CHUNK_LOOK_SHARE * chunk), self.limits.caches, [*watch.harmless]

    def remember(self, seen: Measurement | None) -> None:
        """Keep a measurement for later calls, unless it tells more of the machine than of items."""
        if seen is None or not (seen.items or seen.remembered):
            return
        if self.limits.nested or self.caller.crowded or self._delayed > 2 * LOADED_SHARE:
            return
        kept = replace(seen, payload=None, remembered=False)
        limits = self.limits
        speed = self.observed_speeds.get("threads", POOR_SPEED)
        poor = speed if speed < POOR_SPEED else None
        run = PastRun(kept, limits.history, self._gil, limits.shared is not None, limits.kept, poor)
        remember_run(self._key, run)
