"""Who takes decisions during a run: asks the profiler, and has the dispatcher do what it says.

Purpose: turns plans into routes, judges routes at work, and finds another way when one fails.
Guarantees: a route is kept until it had its chance; every change is in the report. All methods are
called under the dispatcher's lock, or while nobody else can contend for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from parallax._backends.contract import Call, Died, Done, Refused, Unable
from parallax._core.chunks import Route
from parallax._core.nesting import here
from parallax._core.options import Options
from parallax._core.plans import Plan
from parallax._profiling.history import key_of, past_item_seconds, remember_item_seconds
from parallax._reporting.reports import Report
from parallax._routing.planner import LITTLE, Facts, hindsight, too_little
from parallax._routing.profiler import Profiler
from parallax._routing.requested import MOST_THREADS, THREADS, requested_route
from parallax._routing.throughput import RouteThroughput
from parallax._run.dispatcher import Dispatcher
from parallax._run.worker_factory import WorkerFactory
from parallax._scheduling.input import Input

__all__ = ["CallerState", "Controller"]

#: Bytes that a chunk moves at most, there and back. Each worker holds two chunks, and so does a
#: consumer that is late; smaller pays more dispatches.
CHUNK_BYTES = 1 << 24

#: Lost workers of which the report tells what they had.
TOLD = 5

clock = time.perf_counter

#: Seconds of work left from which the process machinery starts before the verdict is in.
EARLY = 0.1

#: Seconds per item from which an earlier call's verdict is acted on at once. Shorter items are
#: looked at for a moment, which costs nothing.
REMEMBERED = 0.002

#: Seconds between two looks at the plan.
REVIEW = 0.02

#: Seconds of work left that the present route may as well finish.
NOT_WORTH = 0.05

#: Changes of route in one run. More would be flapping.
MOST_CHANGES = 6

#: Seconds that a route is kept after the first change, doubled with each further one: on a noisy
#: machine every verdict may be wrong, and changing is never free.
HOLD = 0.1

#: Seconds that a route may take until its first worker is up.
PATIENT_START = 2.0


@dataclass
class CallerState:
    """What the caller's thread is doing, for other threads to see."""

    #: its ident.
    thread: int = 0
    #: the items that it is inside of and that others need not wait for.
    inside: Sequence[Any] | None = None
    #: an item, and results, that may be weighed.
    sample: list[Any] = field(default_factory=list)
    out: list[Any] = field(default_factory=list)
    #: items whose results were made ready.
    delivered: int = 0
    #: the items that it is inside of: when it began them, how many, and the results so far.
    block: tuple[float, int, Sequence[Any]] = (0.0, 0, ())
    #: when items have ended last, or the reader of a stream came back.
    last: float = 0.0
    #: it is not in this call: the reader of a stream does something else.
    away: bool = False


class Controller:
    """Decides for one run."""

    def __init__(
        self,
        call: Call,
        source: Input,
        options: Options,
        report: Report,
        caller: CallerState,
        stream: bool,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            call: the callable.
            source: the input.
            options: the checked options.
            report: where choices are noted.
            caller: what the caller's thread is doing.
            stream: results are read one by one.
        """
        self._call = call
        self._source = source
        self._options = options
        self._report = report
        self._caller = caller
        self._place = here()
        self._cores = self._place.cores
        self._requested = requested_route(options, self._place, stream=stream)
        self._key = key_of(call.fn)
        #: the route that the caller asked for, None for auto.
        self.forced: Route | None = self._requested.route
        report.backend = options.backend if isinstance(options.backend, str) else "executor"
        report.reason = self._requested.reason
        #: where items are that the caller's own thread runs.
        self.inside = self._place.item(movable=self.forced != "loop")
        self.profiler = Profiler(
            call.fn,
            guard=self.forced is None,
            threads=self._place.part(THREADS),
            crowded=self._place.level > 0 and not self._place.whole,
        )
        self.dispatch = Dispatcher(
            source,
            call,
            options,
            stream=stream,
            on_done=self._on_done,
            on_trouble=self._on_trouble,
            on_turn=self._on_turn,
        )
        self._factory = WorkerFactory(
            call,
            options,
            self.profiler,
            self.dispatch,
            cores=self._cores,
            forced=self.forced is not None,
            place=self._place,
        )
        #: a plan was made that more measuring will not change.
        self.planned = False
        #: only explain: no plan is carried out.
        self.explaining = False
        #: when the next review is due.
        self.review_at = 0.0
        self.begin = clock()
        self._directed_at = 0.0
        self._hold_until = 0.0
        self._changes = 0
        self._closed = False
        #: how the present route does since all its workers are up.
        self._throughput: RouteThroughput | None = None

    def forced_plan(self) -> Plan:
        """The plan for a route that was asked for."""
        count, left = self._requested.workers, self._source.left
        if left is not None:
            count = max(1, min(count, left))
        route = self.forced if left != 0 else "loop"  # no worker is needed for nothing
        return Plan(route or "loop", count, self._report.reason, {}, left)

    def on_sample(self, now: float) -> None:
        """In the sampler's thread, while the caller's is inside an item."""
        dispatch = self.dispatch
        if not self._may_overtake() or not dispatch.lock.acquire(blocking=False):
            return
        try:
            if self._closed or not self._may_overtake():
                return
            if dispatch.begun():
                dispatch.poll()
            elif now >= self.review_at:
                self.review(now)
        finally:
            dispatch.lock.release()
        if (hearing := self._factory.hearing) is not None:
            hearing.pass_on()  # not here: whoever holds up this thread holds up the caller's

    def tell(self, *, last: bool = False) -> None:
        """Pass on what worker processes printed, logged and warned; no lock is held.

        Args:
            last: nothing more will come.
        """
        if (hearing := self._factory.hearing) is not None:
            hearing.close() if last else hearing.tell()

    def _may_overtake(self) -> bool:
        """Whether the caller's thread is inside items that others need not wait for."""
        return self._caller.inside is not None

    def _on_turn(self) -> None:
        """Events were handled; the lock is held."""
        now = clock()
        if self.forced is None and now >= self.review_at and not self._closed:
            self.review(now)

    def recall(self) -> bool:
        """Open at once if an earlier call tells what to do; True if so."""
        past_run, left = self.profiler.past_run, self._source.left
        if past_run is None or left is None or left < 2 or self.explaining:
            return False
        if past_run.measurement.wall < REMEMBERED or past_run.measurement.wall * left < EARLY:
            return False
        items = self._source.peek()
        if not items:
            return False
        self.profiler.limits.inspect(tuple(items[0]) if self._source.star else (items[0],))
        if not self.profiler.limits.watching:
            with self.dispatch.lock:
                self.review(clock())
        return self.dispatch.scheduler is not None

    def review(self, now: float) -> None:
        """Ask the profiler what should be done now, and do it. The lock is held."""
        profiler, dispatch = self.profiler, self.dispatch
        self.review_at = now + (REVIEW if dispatch.scheduler is not None else REVIEW / 5)
        left = self._left()
        if left is not None and left < 1:
            return
        self._judge(now)
        profiler.limits.nested = self.inside.spread
        facts = self._facts()
        decided = profiler.plan(now, left, facts)
        if decided is None:
            self._start_early(now, left)
            return
        if decided[1].route == "processes" and not profiler.weighed:
            self._weigh()
            decided = profiler.plan(now, left, self._facts())
            if decided is None:
                return
        seen, plan = decided
        self._report.measured = seen
        if profiler.limits.verdict.limit == "loop" and threading.get_ident() == self._caller.thread:
            profiler.limits.warn()
        self.planned = self.planned or plan.settled
        self._follow(plan, now)

    def _facts(self) -> Facts:
        place = self._place
        if not place.level:
            return Facts(
                cores=self._cores,
                max_workers=self._options.max_workers,
                process_start=self._factory.start_seconds(),
                current=self.dispatch.route,
            )
        # Asked each time: the run around this one may have taken workers meanwhile.
        return Facts(
            cores=place.cores,
            max_workers=self._options.max_workers,
            current=self.dispatch.route,
            allowed=frozenset({"loop", "threads"}),
        )

    def _follow(self, plan: Plan, now: float) -> None:
        """Do what the plan says, as far as it differs from what is done."""
        dispatch = self.dispatch
        change = plan.route != dispatch.route
        little = plan.costs.get(dispatch.route, 1.0) < NOT_WORTH and dispatch.begun()
        if change and (
            little or self._changes >= MOST_CHANGES or now < self._hold_until or self._starting(now)
        ):
            return
        if change or not self._report.changes or plan.workers > dispatch.wanted:
            self.adopt(plan, now)
        if self.explaining:
            return
        if dispatch.scheduler is None:
            if plan.route != "loop":
                self.open(plan)
        elif change:
            self._changes += 1
            self._throughput, self._directed_at = None, now
            self._hold_until = now + HOLD * 2**self._changes
            self._direct(plan)
        elif plan.workers > dispatch.wanted and plan.route != "loop":
            self._throughput = None
            self._direct(plan)

    def _direct(self, plan: Plan) -> None:
        """Take a plan's route from now on."""
        apart = plan.route != "loop"
        self._place.spread = self._place.spread or apart
        self.inside.share(self._place, plan.workers if apart else 0)
        workers = max(1, plan.workers - self._requested.joins)
        self.dispatch.direct(plan.route, workers, self._factory.crew(plan.route))

    def _starting(self, now: float) -> bool:
        """Whether the present route has not had its chance yet."""
        dispatch = self.dispatch
        if dispatch.route == "loop":
            return False
        return dispatch.up(dispatch.route) == 0 and now < self._directed_at + PATIENT_START

    def adopt(self, plan: Plan, now: float) -> None:
        """Note a plan in the report."""
        change = plan.route != self.dispatch.route or not self._report.changes
        self._report.choose(plan, now - self.begin, change=change)

    def open(self, plan: Plan) -> None:
        """Bring in the scheduler and the first crew. The lock is held, or there is no contest."""
        if not self._report.changes:
            self.adopt(plan, clock())
        dispatch = self.dispatch
        cost = self.profiler.caller.cost()
        seen = self._report.measured
        mean = cost.recent_wall if cost.items else (seen.wall if seen is not None else None)
        caller = self.forced in {None, "loop"} or self._requested.joins
        self.profiler.workers_begin(clock())
        self._directed_at = clock()
        dispatch.keeps_caller = self._requested.joins
        guess = past_item_seconds(self._key)
        done, inside = self._caller.delivered, self._caller.inside
        dispatch.begin(done, mean, guess, caller=caller, inside=inside)
        self._direct(plan)

    def close(self) -> None:
        """The run is over: complete the report and remember what was seen."""
        self._closed = True
        self._factory.close()
        report, profiler = self._report, self.profiler
        report.seconds = clock() - self.begin
        lost = self.dispatch.lost
        report.retried, report.workers_lost = self.dispatch.in_flight.rerun, len(lost)
        for pid, indices in lost[:TOLD]:
            if len(indices) > 1:
                report.note(
                    f"worker process {pid} was lost with items {indices[0]} to {indices[-1]} in "
                    f"flight; they were run again one by one, also those that it had finished"
                )
        report.workers_recycled = self.dispatch.recycled
        if self.dispatch.scheduler is not None:
            remember_item_seconds(self._key, self.dispatch.scheduler.mean)
        seen = profiler.measurement(clock()) or report.measured
        report.measured = seen
        if self.forced is not None or seen is None:
            return
        profiler.remember(seen)
        if not self.explaining and report.items:
            report.sum_up()
            if not report.changes and seen.wall * report.items < LITTLE:
                report.reason = too_little(seen, report.items)
                return
            facts = replace(profiler.facts_with_limits(self._facts()), current=report.route)
            report.costs, report.reason = hindsight(
                seen, report.items, facts, report.route, report.workers
            )

    def _left(self) -> int | None:
        scheduler = self.dispatch.scheduler
        if scheduler is None:
            return self._source.left
        left = scheduler.left()
        return None if left is None else max(0, left - scheduler.in_flight)

    def _judge(self, now: float) -> None:
        """Note how fast the present route really is, once that can be told."""
        dispatch, profiler, throughput = self.dispatch, self.profiler, self._throughput
        route = dispatch.route
        if throughput is None or route == "loop":
            return
        speed = throughput.speed(now, dispatch.under_way(now), dispatch.delay(route))
        if speed is not None:
            profiler.observed_speeds[route] = speed
        cost = profiler.caller.cost()
        waits = cost.items and cost.cpu < 0.5 * cost.wall
        if route == "threads" and waits and throughput.chunks >= 2:
            slower = throughput.wall / throughput.items / cost.wall
            most = self._place.part(MOST_THREADS)
            if slower < 1.3 and dispatch.wanted >= profiler.thread_cap < most:
                profiler.thread_cap *= 2
                profiler.observed_speeds.pop(route, None)

    def _on_done(self, done: Done, route: Route) -> None:
        """A chunk came back; the lock is held."""
        self._caller.last = clock()
        report, dispatch, profiler, result = self._report, self.dispatch, self.profiler, done.result
        report.worked(route, result.wall, result.cpu)
        report.bytes_in += done.bytes_in
        report.bytes_out += done.bytes_out
        report.bytes_once += done.once
        report.bytes_spared += done.spared
        if route != dispatch.route or route == "loop":
            return
        profiler.workers.add_chunk(result, threads=route == "threads", workers=dispatch.wanted)
        if route == "processes":
            profiler.workers.add_encoding(done.seconds, len(result.values))
            moved = done.bytes_in + done.bytes_out
            if moved and dispatch.scheduler is not None:
                most = max(1, CHUNK_BYTES * len(result.values) // moved)
                dispatch.scheduler.limit_chunks(most)
        if self._throughput is None:
            if dispatch.up(route) >= dispatch.wanted:
                self._throughput = RouteThroughput(
                    clock(), dispatch.wanted, self._cores, dispatch.delay(route)
                )
            return
        self._throughput.add(
            clock(), result, profiler.caller.loop_seconds(result, threads=route == "threads")
        )

    def _start_early(self, now: float, left: int | None) -> None:
        """Have the process machinery start while the verdict is still out."""
        profiler = self.profiler
        seen = profiler.measurement(now)
        if seen is None or left is None or profiler.limits.verdict.limit != "free":
            return
        if self._place.level:
            return
        if profiler.workers.payload is None and seen.wall * left > EARLY and seen.waiting < 0.5:
            self._weigh()

    def _weigh(self) -> None:
        """Have an item and a result weighed that are at hand."""
        items = self.dispatch.in_flight.first() or self._caller.sample
        if not items and self._source.anywhere:
            items = self._source.peek()
        self._caller.sample = []
        self._factory.weigh(items, self._caller.out[-1:])

    def _on_trouble(self, event: Refused | Unable | Died) -> bool:
        """Something could not be done the way it was planned; True if there is another way."""
        profiler = self.profiler
        if isinstance(event, Died):
            return False
        if isinstance(event, Unable):
            self._report.note(f"workers: {event.reason}")
            if self.forced is not None:
                return False
            if event.fatal:
                profiler.limits.stay_reason = f"no worker process could be had: {event.reason}"
        else:
            if self.forced is not None:
                return False
            profiler.limits.stay_reason = (
                f"the {event.path} does not travel between processes: {event.reason}"
            )
            self._report.note(f"kept in this process: {profiler.limits.stay_reason}")
        self._throughput = None
        self._changes += 1
        plan = Plan("loop", 1, profiler.limits.stay_reason or event.reason, {}, self._left())
        self.adopt(plan, clock())
        self._direct(plan)
        self.review_at = 0.0
        return True
