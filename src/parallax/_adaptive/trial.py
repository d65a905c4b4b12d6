"""The trial of a function that is new to an executor: its first calls are measured one by one.

Guarantees: every call runs once and its result counts; the sampler runs only while a call does; the
decision is acted on while the call that led to it is still running, so that calls which were
submitted behind a long one need not wait for its end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sized
from typing import Any

from parallax._adaptive.process_route import ProcessRoute
from parallax._backends.capture import capture
from parallax._backends.contract import Call
from parallax._core.chunks import Route
from parallax._core.plans import Plan
from parallax._guard.effects import OPEN, Verdict, follow
from parallax._guard.ends import copied_end
from parallax._routing.planner import Facts, seconds
from parallax._routing.profiler import Profiler
from parallax._routing.route_choice import SHORT_CALL_S, RouteChoice

clock = time.perf_counter

#: Seconds from which on a call counts as long: if it held the GIL it would hold up the rest of the
#: program.
LONG_CALL_S = 0.005

#: Seconds of long calls that are expected to come, whatever is queued: work for which starting a
#: worker process pays.
EXPECTED_LONG_CALLS_S = 0.5

#: Mean seconds of a call above which the sampler is started for each one; seconds of a trial after
#: which it is started for shorter calls, too. Starting it costs as much as a few of these.
MIN_SAMPLED_CALL_S = 0.001
MIN_SAMPLED_TRIAL_S = 0.002

#: Calls after which they are known to be short.
MIN_SHORT_CALLS = 8

#: Seconds of a call that does not wait, after which worker processes are started for later ones. A
#: smaller value starts processes that are not used, a larger one makes the later calls wait.
PREPARE_AFTER_S = 0.008

#: Modules of classes whose objects are made to be changed by several threads.
THREAD_SAFE_MODULES = frozenset({"threading", "_thread", "queue", "_queue", "multiprocessing"})


class Trial:
    """Measures the first calls of one function, and decides on its route."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        choice: RouteChoice,
        processes: ProcessRoute,
        lock: Any,
        held: Sized,
        decided: Callable[[Plan | None, str], None],
        *,
        crowded: bool,
    ) -> None:
        """Inspect the function's code; nothing runs yet.

        The keyword arguments of the first call are bound to ``fn``; ``args`` are the others.
        ``decided`` is called with the decision, or with None if the calls that wait for it should
        wait no longer; and with the reason why calls must stay in this process, "" if they need
        not. ``crowded``: other threads may compete for the GIL now. The ``lock`` is the executor's.
        """
        self._fn = fn
        self._choice = choice
        self._processes = processes
        self._lock = lock
        self._decided = decided
        self._profiler = Profiler(fn, guard=True, crowded=crowded)
        self._profiler.limits.inspect(args)
        self._profiler.limits.cast_net()
        #: calls that wait for the decision.
        self._held = held
        self._calls = 0
        self._began = 0.0
        self._spent = 0.0
        #: arguments of the running call, and when it began.
        self._running: tuple[Any, ...] | None = None
        self._call_began = 0.0
        self._prepared = False
        #: modules that a worker has to import for such calls.
        self._modules: frozenset[str] = frozenset()

    @property
    def bounded(self) -> bool:
        """Whether the sampler ends the wait for the decision if it takes too long."""
        return not self._calls or self._profiler.caller.sampling

    @property
    def verdict(self) -> Verdict:
        return self._profiler.limits.verdict

    def warn(self, args: tuple[Any, ...]) -> None:
        """Warn once of a change to a value that threads would race for.

        Not of changes to objects that are made for threads, which are intended in an executor.
        """
        finding = self.verdict.finding
        if finding is None or finding.kind != "update":
            return
        target = follow(finding.root, self._fn, args) if finding.root else None
        if type(target).__module__.partition(".")[0] not in THREAD_SAFE_MODULES:
            self._profiler.limits.warn()

    def decide_from_history(self) -> None:
        """Decide at once if an earlier run of the function in this process was measured."""
        past = self._profiler.past_run
        if past is not None and (plan := self._plan(clock(), None)):
            self._choice.cpu_alone = past.measurement.cpu
            self._decide(plan)

    # -- in the thread that runs the calls -----------------------------------------------------

    def work(self, claim_next: Callable[[], Any]) -> None:
        """Run one call after the other, until none is left or there is a decision."""
        self._began = clock()
        try:
            while (call := claim_next()) is not None:
                call.execute_with(self.run)
        finally:
            self._profiler.caller.stop_sampler()

    def run(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, BaseException | None, float, float]:
        """Call ``fn`` and measure the call. Returns as ``capture``."""
        caller, limits = self._profiler.caller, self._profiler.limits
        watched = (limits.watching or limits.looking) and not kwargs
        if watched:
            limits.before_item(args)
        if not caller.sampling and self._worth_sampling(clock()):
            caller.start_sampler(self._on_sample)
        self._running, self._call_began = args, clock()
        caller.begin(self._call_began)
        value, error, wall, cpu = capture(fn, args, kwargs)
        self._running = None
        if watched:
            limits.after_item(self._calls)
        with self._lock:  # the sampler's thread may be about to decide
            caller.end(1, wall, cpu, alone=True)
            self._calls += 1
            self._spent += wall
            if self._choice.route is None or self._choice.provisional:
                plan = self._plan_if_short() or self._plan(clock(), (args, value))
                if plan is not None:
                    self._decide(plan)
        try:
            return value, error, wall, cpu
        finally:
            # The traceback of an error refers to this frame.
            del fn, args, kwargs, value, error

    def _plan_if_short(self) -> Plan | None:
        """The plan for calls that cost less than sending them; None if these do not."""
        if self._calls < MIN_SHORT_CALLS or self._spent > self._calls * SHORT_CALL_S:
            return None
        each = seconds(self._spent / self._calls)
        return Plan("threads", 1, f"a call takes {each}, less than it costs to send it", {})

    def _worth_sampling(self, now: float) -> bool:
        if not self._calls:
            return True
        long = self._spent / self._calls > MIN_SAMPLED_CALL_S
        return long or now - self._began > MIN_SAMPLED_TRIAL_S

    # -- in the sampler's thread ---------------------------------------------------------------

    def _on_sample(self, now: float) -> None:
        args = self._running
        # Without waiting: a thread that holds the lock may be about to stop the sampler.
        if args is None or not self._lock.acquire(blocking=False):
            return
        try:
            if self._running is None or self._choice.route is not None:
                return
            if now - self._call_began > PREPARE_AFTER_S and not self._prepared:
                self._prepare()
            plan = self._plan(now, (args, None))
            if plan is not None or self._choice.overdue(now):
                self._decide(plan)
        finally:
            self._lock.release()

    # -- the decision --------------------------------------------------------------------------

    def _decide(self, plan: Plan | None) -> None:
        verdict = self.verdict
        self._decided(plan, "" if verdict.limit in OPEN else verdict.reason)

    def _prepare(self) -> None:
        """Start worker processes while the first call runs, if they may be needed."""
        self._prepared = True
        seen = self._profiler.measurement(clock())
        free = self.verdict.limit in OPEN and self._processes.workers > 1
        if free and seen is not None and seen.waiting < 0.5:
            self._processes.prepare(self._modules)

    def _plan(self, now: float, sample: tuple[Any, Any] | None) -> Plan | None:
        """The plan for the calls to come; None while nothing can be said.

        ``sample`` is the arguments of a call and its result, which is None while it runs.
        """
        profiler = self._profiler
        seen = profiler.measurement(now)
        if seen is None:
            return None
        calls = len(self._held) + 1
        if seen.wall >= LONG_CALL_S:
            calls = max(calls, math.ceil(EXPECTED_LONG_CALLS_S / seen.wall))
        found = profiler.plan(now, calls, self._facts())
        if found is None:
            return None
        if found[1].route == "processes" and not profiler.weighed:
            self._weigh(sample)
            found = profiler.plan(now, calls, self._facts())
            if found is None:
                return None
        profiler.remember(found[0])
        return found[1]

    def _facts(self) -> Facts:
        routes: set[Route] = {"loop", "threads", "processes"}
        return Facts(
            cores=self._processes.cores,
            max_workers=None,
            process_start=self._processes.expected_start(self._modules),
            noun="call",
            current="loop",
            allowed=frozenset(routes if self._processes.workers > 1 else routes - {"processes"}),
        )

    def _weigh(self, sample: tuple[Any, Any] | None) -> None:
        """Encode the function, arguments and a result, to learn whether and at what cost."""
        from parallax._backends.processes.parent.call_encoding import modules_for, weigh

        items = [sample[0]] if sample is not None else []
        results = [sample[1]] if sample is not None and sample[1] is not None else []
        call = Call(self._fn, star=True, stop=False)
        copied = [*items, *results, self._fn]
        weighed: Any = copied_end("what a call takes or returns", copied) or weigh(
            call, self._profiler.limits.reads, items, results
        )
        if isinstance(weighed, str):
            self._profiler.limits.stay_reason = weighed
            return
        payload, encoded = weighed
        self._modules = modules_for(encoded, getattr(self._fn, "__code__", None))
        self._profiler.workers.payload = payload
        # They hold the data that the function captured, which may be large.
        encoded.buffers.clear()
