"""The decisions of a run: asks the profiler for a plan, and has the dispatcher carry it out.

Purpose: turns plans into routes, judges routes at work, and finds another route when one fails.
Guarantees: a route is kept until it had its chance; every change is in the report. All methods are
called with the dispatcher's lock held, or while no other thread can contend for it.
"""

from __future__ import annotations

import threading
import time

from parallax._backends.contract import Died, Done, Refused, Unable
from parallax._core.chunks import ChunkResult, Route
from parallax._core.nesting import here
from parallax._core.options import name_of
from parallax._core.plans import Measurement, Plan
from parallax._core.records import replace
from parallax._profiling.history import key_of, past_item_seconds, remember_item_seconds
from parallax._routing.planner import LITTLE_WORK_S, Facts, hindsight, too_little
from parallax._routing.profiler import Profiler
from parallax._routing.requested import THREADS, requested_route
from parallax._routing.throughput import PLAN_REVIEW_S, RouteHold, next_review
from parallax._run.caller_state import RunSetup
from parallax._run.crew_table import CALLER
from parallax._run.dispatcher import Dispatcher
from parallax._run.interlude import Interlude
from parallax._run.listener import Listener
from parallax._run.route_judge import RouteJudge
from parallax._run.worker_factory import WorkerFactory

clock = time.perf_counter

#: Seconds per item, and of work in all, from which an earlier call's plan is taken at once. Less is
#: measured for a moment, which costs nothing.
PAST_PLAN_ITEM_S, PAST_PLAN_WORK_S = 0.002, 0.1

#: Seconds of work left that the present route may as well finish.
MIN_CHANGE_WORK_S = 0.05


class Controller:
    """The decisions of one run."""

    def __init__(self, setup: RunSetup) -> None:
        call, self._source, options, report, self._caller, stream, first = setup
        self._options, self._report = options, report
        self._place = here() if first is None else first.place
        self._requested = requested_route(options, self._place, stream=stream)
        self._key = key_of(call.fn)
        #: the route that the caller asked for, None for auto.
        self.forced: Route | None = self._requested.route
        report.backend = name_of(options.backend)
        report.reason = self._requested.reason
        #: the place of the items that the caller's own thread runs.
        self.inside = first.inside if first else self._place.item(movable=self.forced != "loop")
        self.profiler = Profiler(
            call.fn,
            guard=self.forced is None,
            threads=self._place.part(THREADS),
            crowded=self._place.level > 0 and not self._place.whole,
        )
        told = self._on_done, self._on_trouble, self._on_turn, self._on_change, self._on_take
        listener = Listener(*told, self._on_death)
        self.dispatch = Dispatcher(self._source, options, listener, stream=stream)
        self._interlude = Interlude(self.dispatch.flow, self._caller, stream=stream)
        self._factory = WorkerFactory(
            setup, self.profiler, self.dispatch, self._place, self._interlude.ending, self.forced
        )
        #: a plan was made that more measuring will not change.
        self.planned = False
        #: no plan is carried out: the run only explains.
        self.explaining = False
        #: when the next review is due.
        self.review_at = 0.0
        self.begin = report.work.begin = clock() if first is None else first.began
        self._hold = RouteHold()
        self._closed = False
        self._judge = RouteJudge(self.dispatch.flow, self.profiler, self._place)

    def forced_plan(self) -> Plan:
        """The plan for a route that was asked for."""
        count, left = self._requested.workers, self._source.left
        if left is not None:
            count = max(1, min(count, left))
        route = self.forced if left != 0 else "loop"  # no worker is needed for nothing
        return Plan(route or "loop", count, self._report.reason, {}, left)

    def on_sample(self, now: float) -> None:
        """Look after workers and the plan in the sampler's thread, during an item of the caller."""
        self.profiler.limits.glance()
        dispatch, start, left = self.dispatch, self._factory.start, self._source.left
        # Inside of items that others need not wait for?
        if self._caller.inside is None or not dispatch.lock.acquire(blocking=False):
            return
        try:
            if self._closed or self._caller.inside is None:
                return
            if dispatch.flow.scheduler is not None:
                dispatch.poll()
            elif now >= self.review_at and not start.awaits_item(now, left, self.profiler.waits):
                self.review(now)
        finally:
            dispatch.lock.release()
        if (output := self._factory.output) is not None:
            output.deliver_soon()  # handlers run elsewhere: they could hold up this thread

    def tell(self, *, last: bool = False) -> None:
        """Pass on the output of worker processes, for the ``last`` time or not; no lock is held."""
        if (output := self._factory.output) is not None:
            output.close() if last else output.deliver()

    def _on_turn(self) -> None:
        """Events were handled; the lock is held."""
        now = clock()
        if self._interlude.active:
            if self._interlude.over(now) and not self._closed:
                self._end_interlude(now)
        elif self.forced is None and now >= self.review_at and not self._closed:
            self.review(now)

    def open_from_history(self) -> bool:
        """Open at once if the measurements of an earlier call suffice for a plan; True if so."""
        past_run, left = self.profiler.past_run, self._source.left
        if past_run is None or past_run.shared or left is None or left < 2 or self.explaining:
            return False
        seconds = past_run.measurement.wall
        if seconds < PAST_PLAN_ITEM_S or seconds * left < PAST_PLAN_WORK_S:
            return False
        self.plan_now()
        return self.dispatch.flow.scheduler is not None

    def plan_now(self, *, thread_matters: bool = False) -> None:
        """Plan before the next item, unless it must run alone or, if asked, in this very thread."""
        limits, source = self.profiler.limits, self._source
        if not (items := source.peek()):
            return
        limits.inspect(source.arguments(items[0]), source.some_calls)
        if not limits.watching and not (thread_matters and limits.find_one_thread()):
            with self.dispatch.lock:
                self.review(clock())

    def review(self, now: float) -> None:
        """Ask the profiler for a plan and carry it out. The lock is held."""
        self.review_at, began = now + PLAN_REVIEW_S, time.thread_time()
        self._review(now)
        if self.dispatch.flow.scheduler is None:
            # By the clock that has the finer steps, and of the time in which there was a core.
            spent = min(clock() - now, time.thread_time() - began) / self.profiler.working
            self.review_at = now + next_review(spent, settled=self.planned)

    def _review(self, now: float) -> None:
        profiler, flow = self.profiler, self.dispatch.flow
        left = flow.unbegun()
        if left is not None and left < 1:
            return
        if profiler.gil_came():
            self._judge.restart()
        if flow.scheduler is None:  # else workers of this run want cores, too
            profiler.look_around(1 + (threading.get_ident() != self._caller.thread))
        self._judge.judge(now)
        profiler.limits.nested = self.inside.spread
        decided = self._decide(now, left, flow.route)
        self.planned = False
        if decided is None:
            self._start_early(now, left)
            return
        seen, plan = decided
        same = plan.route == flow.route == "threads"
        if same and profiler.contends() and self._interlude.ending():
            self._interlude.begin(plan, now, measure=True)
            self._direct(Plan("loop", 1, plan.reason, {}, left))
            return
        if plan.route == "threads" and flow.scheduler is None and profiler.limits.blind:
            return
        self._report.measured = seen
        if profiler.limits.verdict.limit == "loop" and threading.get_ident() == self._caller.thread:
            profiler.limits.warn()
        self.planned = plan.settled
        self._follow(plan, now)

    def _decide(
        self, now: float, left: int | None, current: Route
    ) -> tuple[Measurement, Plan] | None:
        decided = self.profiler.plan(now, left, self._facts(current))
        if decided is not None and decided[1].route == "processes" and not self.profiler.weighed:
            self._factory.weigh()
            decided = self.profiler.plan(clock(), left, self._facts(current))
        return decided

    def _end_interlude(self, now: float) -> None:
        ended = self._interlude
        plan = ended.plan or self.forced_plan()
        if ended.measures:
            self.profiler.ran_alone(ended.items, ended.cpu)
            decided = self._decide(now, self.dispatch.flow.unbegun(), "threads")
            if decided is not None and decided[1].route != "threads":
                plan = decided[1]
                self.adopt(plan, now)
                self._hold.changed(now)
        self._judge.restart()
        self._direct(plan)

    def _facts(self, current: Route) -> Facts:
        place, most = self._place, self._options.max_workers
        if not place.level:
            # On a loaded machine that takes longer, like everything.
            start, hold = (s / self.profiler.working for s in self._factory.start_seconds())
            return Facts(place.cores, most, process_start=start, process_hold=hold, current=current)
        # Asked each time: the run around this one may have taken workers meanwhile.
        return Facts(place.cores, most, current=current, allowed=frozenset({"loop", "threads"}))

    def _follow(self, plan: Plan, now: float) -> None:
        """Carry out a plan, as far as it differs from the present state."""
        flow = self.dispatch.flow
        change = plan.route != flow.route
        little = plan.costs.get(flow.route, 1.0) < MIN_CHANGE_WORK_S and flow.scheduler is not None
        starting = flow.route != "loop" and not flow.table.up(flow.route)
        if change and (little or self._hold.holds(now, starting=starting)):
            return
        more = plan.workers > flow.wanted
        if change or not self._report.changes or more:
            self.adopt(plan, now)
        if self.explaining:
            return
        if flow.scheduler is None:
            if plan.route != "loop":
                self.open(plan)
        elif change or (more and plan.route != "loop"):
            if change:
                self._hold.changed(now)
            self._judge.restart()
            self._direct(plan)

    def _direct(self, plan: Plan) -> None:
        """Take a plan's route from now on."""
        if plan.route == "processes" and self._interlude.ending():
            self._interlude.begin(plan, clock(), measure=False)
            plan = Plan("loop", 1, plan.reason, {}, plan.remaining)
        apart = plan.route != "loop"
        self._place.spread = self._place.spread or apart
        self.inside.share(self._place, plan.workers if apart else 0)
        workers = max(1, plan.workers - self._requested.joins)
        self.dispatch.direct(plan.route, workers, self._factory.make)

    def adopt(self, plan: Plan, now: float) -> None:
        change = plan.route != self.dispatch.flow.route or not self._report.changes
        self._report.choose(plan, now - self.begin, change=change)

    def open(self, plan: Plan) -> None:
        """Make the scheduler and the first crew. The lock is held, or no other thread contends."""
        if not self._report.changes:
            self.adopt(plan, clock())
        cost = self.profiler.caller.cost()
        seen = self._report.measured
        mean = cost.recent_wall if cost.items else (seen.wall if seen is not None else None)
        caller = self.forced in {None, "loop"} or self._requested.joins
        self.profiler.workers_begin(clock())
        self._hold.opened(clock())
        self.dispatch.flow.begin(
            self._caller.delivered,
            mean,
            past_item_seconds(self._key),
            caller=caller,
            keeps_caller=self._requested.joins,
            inside=self._caller.inside or (),
        )
        self._direct(plan)

    def close(self) -> None:
        """The run is over: complete the report and remember the measurements."""
        self._closed = True
        self._factory.close()
        report, profiler = self._report, self.profiler
        report.seconds = clock() - self.begin
        if profiler.limits.watch is not None:
            report.looking += profiler.limits.watch.spent
        flow = self.dispatch.flow
        report.retried += flow.in_flight.rerun
        losses = flow.losses
        report.workers_recycled = losses.recycled
        for note in losses.notes():
            report.note(note)
        report.reads = tuple(f"{module}.{name}" for module, name in profiler.limits.reads)
        report.writes = profiler.limits.writes()
        if flow.scheduler is not None:
            remember_item_seconds(self._key, flow.scheduler.mean)
        seen = profiler.measurement(clock()) or report.measured
        report.measured = seen
        if self.forced is not None or seen is None:
            return
        profiler.remember(seen)
        if not self.explaining and report.items:
            report.sum_up()
            if not report.changes and seen.wall * report.items < LITTLE_WORK_S:
                report.reason = too_little(seen, report.items)
                return
            # What was measured is what items took of late, as that foretells those that are left.
            if mean := report.item_seconds():
                share = mean / max(seen.wall, 1e-9)
                report.measured = seen = replace(seen, wall=mean, cpu=seen.cpu * share)
            facts = profiler.facts_with_limits(self._facts(report.route))
            report.costs, report.reason = hindsight(
                seen, report.items, facts, report.route, report.workers
            )

    def count(self, first: int, result: ChunkResult, worker: int = CALLER, *moved: int) -> None:
        """Enter items that were run in the report, from index ``first`` on; the lock is held."""
        self.dispatch.flow.table.introduce(worker, self._report.work)
        self._report.add(worker, first, result, clock(), *moved)

    def _on_death(self, event: Died, indices: range) -> None:
        """A worker died, with items that it may have run; the lock is held."""
        self.dispatch.flow.losses.tell(event, indices, self._report, self.dispatch.flow.table)

    def _on_done(self, done: Done, route: Route, first: int) -> None:
        """A chunk came back; the lock is held."""
        self._caller.last = clock()
        flow, report = self.dispatch.flow, self._report
        result = done.result
        self.count(first, result, done.worker, done.bytes_in, done.bytes_out)
        report.bytes_once += done.once
        report.bytes_spared += done.spared
        report.packing += done.seconds
        if route == "loop":
            self._interlude.add(result)
        elif route == flow.route:
            self._judge.add(done)

    def _start_early(self, now: float, left: int | None) -> None:
        """Have workers that are no forks prepare before the verdict, where they would pay."""
        profiler, start = self.profiler, self._factory.start
        if profiler.weighed or left is None or self._place.level:
            return
        if (
            profiler.may_pay(now, left, self._facts(self.dispatch.flow.route))
            and not start.may_fork()
        ):
            self._factory.weigh()
            if profiler.may_pay(now, left, self._facts(self.dispatch.flow.route)):
                self._factory.prepare()

    def _on_change(self, start: int, result: ChunkResult) -> bool:
        """A worker's copies have changed; True if its items are to run here. The lock is held."""
        limits, flow = self.profiler.limits, self.dispatch.flow
        ran = range(start, start + len(result.values))
        if limits.watch is None or limits.watch.suspect(result.changed, limits.caches, ran):
            return False
        self._report.ran_again(start, ran[-1], result.changed[0])
        if flow.route != "loop":
            self._stay()
        flow.home.go(flow)
        return True

    def _stay(self) -> None:
        self._judge.restart()
        reason = self.profiler.limits.verdict.reason
        self.adopt(Plan("loop", 1, reason, {}, self.dispatch.flow.unbegun()), clock())

    def _on_take(self, index: int) -> bool:
        """An item was taken; True if that changed what items read. No lock is held."""
        watch = self.profiler.limits.watch
        if changed := watch is not None and watch.took(index, late=True):
            self._stay()
        return changed

    def _on_trouble(self, event: Refused | Unable) -> bool:
        """A chunk could not be sent, or no worker be had; True if there is another route."""
        limits, left = self.profiler.limits, self.dispatch.flow.unbegun()
        if isinstance(event, Unable):
            if event.method == "interpreters":  # its crew goes on with processes
                reason = f"interpreters cannot be used: {event.reason}"
                self.adopt(Plan("processes", self.dispatch.flow.wanted, reason, {}, left), clock())
                return True
            self._report.note(f"workers: {event.reason}")
        if self.forced is not None:
            return False
        if not isinstance(event, Unable):
            limits.stay_reason = (
                f"the {event.path} does not travel between processes: {event.reason}"
            )
            self._report.note(f"kept in this process: {limits.stay_reason}")
        elif event.fatal:
            limits.stay_reason = f"no worker process could be had: {event.reason}"
        self._judge.restart()
        self._hold.failed()
        plan = Plan("loop", 1, limits.stay_reason or event.reason, {}, left)
        self.adopt(plan, clock())
        self._direct(plan)
        self.review_at = 0.0
        return True
