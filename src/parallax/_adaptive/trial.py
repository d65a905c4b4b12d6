"""A function's first calls in an executor: run one by one in a thread of it, and measured.

Guarantees: every call runs once and its result counts; the sampler runs only while a call does; a
verdict is acted on while the call that led to it is still running, so that a burst of calls behind
a long one need not wait for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from parallax._backends.capture import capture
from parallax._backends.contract import Call
from parallax._backends.processes.parent.call_encoding import modules_for, weigh
from parallax._core.plans import Plan
from parallax._guard.effects import Verdict, except_shared, judge, scan
from parallax._guard.fingerprint import follow
from parallax._routing.planner import Facts, seconds
from parallax._routing.profiler import Profiler
from parallax._routing.route_choice import SHORT, RouteChoice

__all__ = ["Inquiry", "Owner"]

clock = time.perf_counter

#: Seconds of such work that may be yet to come, whatever is queued: what is worth a worker process
#: for long calls, which would hold up the rest of the program if they held the GIL.
HORIZON = 0.5

#: Seconds from which on a call is long in that sense.
LONG = 0.005

#: Seconds of a session after which the sampler is started for short calls, too. It costs as much as
#: a few of them.
TICKING = 0.002

#: Seconds of a call from which on it is worth being watched by the sampler on its own.
WORTH = 0.001

#: Calls after which they are known to be short.
FEW = 8

#: Seconds in a call that does not wait, after which worker processes are made ready for it.
READY = 0.008


#: Modules of objects that threads may change together.
FOR_THREADS = frozenset({"threading", "_thread", "queue", "_queue", "multiprocessing"})


class Owner(Protocol):
    """Whose calls are measured."""

    lock: Any
    cores: int

    def workers(self) -> int:
        """Most worker processes, 1 if there may be none."""

    def expected_start(self, modules: frozenset[str]) -> float:
        """Seconds until worker processes would take calls."""

    def prepare(self, modules: frozenset[str]) -> None:
        """Begin to make worker processes ready, in the background."""

    def decided(self, choice: RouteChoice, plan: Plan | None) -> None:
        """There is a verdict, None if it cannot be waited for any longer."""


class Inquiry:
    """What is being found out about one function.

    Args:
        owner: the executor's engine.
        fn: the function, with the keyword arguments of the first call bound.
        args: the positional arguments of the first call.
        choice: what is decided.
        crowded: other threads may compete for the GIL now.
    """

    def __init__(
        self,
        owner: Owner,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        choice: RouteChoice,
        *,
        crowded: bool,
    ) -> None:
        self._owner = owner
        self._fn = fn
        self.choice = choice
        self.profiler = Profiler(fn, guard=True, crowded=crowded)
        self.profiler.limits.inspect(args)
        self._findings = set(except_shared(scan(fn, args), fn, args).findings)
        #: calls that wait for the verdict.
        self.held = 0
        self._seen = 0
        self._started = 0.0
        self._spent = 0.0
        self._inside: tuple[Any, ...] | None = None
        self._call_began = 0.0
        self._ready = False
        self._modules: frozenset[str] = frozenset()

    @property
    def timed(self) -> bool:
        """Whether somebody sees to it that calls do not wait for the verdict for ever."""
        return not self._seen or self.profiler.caller.sampling

    @property
    def verdict(self) -> Verdict:
        """What the guard says."""
        return self.profiler.limits.verdict

    def changed(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
        """Why calls must stay in this process from now on; "" if they need not.

        What the code refers to may be another object than it was, and be changed by it.
        """
        effects = except_shared(scan(fn, args), fn, args)
        fresh = set(effects.findings) - self._findings
        if not fresh:
            return ""
        verdict = judge(effects, ())
        return verdict.reason if verdict.limit != "free" else ""

    def warn(self, args: tuple[Any, ...]) -> None:
        """Tell once of a change that threads race for.

        Not of one to an object that is made for threads: in an executor that is agreed on.
        """
        finding = self.verdict.finding
        if finding is None or self.verdict.limit != "loop":
            return
        target = follow(finding.root, self._fn, args) if finding.root else None
        if type(target).__module__.partition(".")[0] not in FOR_THREADS:
            self.profiler.limits.warn()

    def remembered(self) -> Plan | None:
        """The verdict that an earlier call, of whatever kind, has left behind."""
        if self.profiler.past_run is None:
            return None
        return self._plan(clock(), None)

    # -- in the thread that runs the calls -----------------------------------------------------

    def begin(self) -> None:
        """This thread begins to run calls."""
        self._started = clock()

    def end(self) -> None:
        """It has run out of calls, or there is a verdict."""
        self.profiler.caller.stop_sampler()

    def run(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, BaseException | None, float, float]:
        """Call ``fn``.

        Returns:
            Its value, what it raised, its seconds on the clock and on the CPU clock.
        """
        profiler = self.profiler
        watched = profiler.limits.watching and not kwargs
        if watched:
            profiler.limits.before_item(args)
        if not profiler.caller.sampling and self._worth_ticking(clock()):
            profiler.caller.start_sampler(self._on_sample)
        self._inside, self._call_began = args, clock()
        profiler.caller.begin(self._call_began)
        value, error, wall, cpu = capture(fn, args, kwargs)
        self._inside = None
        profiler.caller.end(1, wall, cpu, alone=True)
        if watched:
            profiler.limits.after_item()
        self._seen += 1
        self._spent += wall
        if self.choice.route is None or self.choice.provisional:
            plan = self._short() or self._plan(clock(), (args, value))
            if plan is not None:
                self._owner.decided(self.choice, plan)
        try:
            return value, error, wall, cpu
        finally:
            # An error's traceback refers to this frame.
            del fn, args, kwargs, value, error

    def _short(self) -> Plan | None:
        """Calls that are not worth thinking about."""
        if self._seen < FEW or self._spent > self._seen * SHORT:
            return None
        each = seconds(self._spent / self._seen)
        return Plan("threads", 1, f"a call takes {each}, less than it costs to send it", {})

    def _worth_ticking(self, now: float) -> bool:
        if not self._seen:
            return True
        return self._spent / self._seen > WORTH or now - self._started > TICKING

    # -- in the sampler's thread ----------------------------------------------------------------

    def _on_sample(self, now: float) -> None:
        args = self._inside
        if args is None or not self._owner.lock.acquire(blocking=False):
            return
        try:
            if self._inside is None or self.choice.route is not None:
                return
            elapsed = now - self._call_began
            if elapsed > READY and not self._ready:
                self._make_ready()
            plan = self._plan(now, (args, None))
            if plan is not None or self.choice.overdue(now):
                self._owner.decided(self.choice, plan)
        finally:
            self._owner.lock.release()

    # -- the verdict ---------------------------------------------------------------------------

    def _make_ready(self) -> None:
        """Have worker processes started while the first call runs, if it may come to that."""
        self._ready = True
        seen = self.profiler.measurement(clock())
        free = self.verdict.limit == "free" and self._owner.workers() > 1
        if free and seen is not None and seen.waiting < 0.5:
            self._owner.prepare(self._modules)

    def _plan(self, now: float, sample: tuple[Any, Any] | None) -> Plan | None:
        profiler = self.profiler
        seen = profiler.measurement(now)
        if seen is None:
            return None
        left = self.held + 1
        if seen.wall >= LONG:
            left = max(left, math.ceil(HORIZON / seen.wall))
        decided = profiler.plan(now, left, self._facts())
        if decided is None:
            return None
        if decided[1].route == "processes" and not profiler.weighed:
            self._weigh(sample)
            decided = profiler.plan(now, left, self._facts())
            if decided is None:
                return None
        profiler.remember(decided[0])
        return decided[1]

    def _facts(self) -> Facts:
        workers = self._owner.workers()
        return Facts(
            cores=self._owner.cores,
            max_workers=None,
            process_start=self._owner.expected_start(self._modules),
            noun="call",
            current="loop",
            allowed=frozenset(
                {"loop", "threads", "processes"} if workers > 1 else {"loop", "threads"}
            ),
        )

    def _weigh(self, sample: tuple[Any, Any] | None) -> None:
        """Encode the function, arguments and a result, to know what sending costs, or cannot."""
        items = [sample[0]] if sample is not None else []
        results = [sample[1]] if sample is not None and sample[1] is not None else []
        call = Call(self._fn, star=True, stop=False)
        weighed = weigh(call, self.profiler.limits.reads, items, results)
        if isinstance(weighed, str):
            self.profiler.limits.stay_reason = weighed
            return
        payload, encoded = weighed
        self._modules = modules_for(encoded, self._fn)
        self.profiler.workers.payload = payload
        # It holds the data that the function captured, which may be large.
        encoded.buffers.clear()
