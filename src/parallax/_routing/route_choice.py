"""The choice between threads and processes for the calls of one function in an executor.

The first call runs in a thread and is measured (the trial); the others wait for the verdict, but
never for long. After that each call says how it went, and the route changes if it does not fit.

Guarantees: no thread, clock, input or output; ``now`` is a parameter. Before the verdict at most
one call runs; none waits longer than ``MAX_TRIAL_WAIT_S`` from the first call on; the route changes
a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Hashable

from parallax._core.cores import gil_enabled
from parallax._core.light_stdlib import Literal, TypeAlias
from parallax._core.thread_clocks import MIN_TICKS
from parallax._profiling.meters import CoresMeter
from parallax._profiling.worker_meter import SATURATED_CORES

#: Where a call goes: to the trial, into the queue that waits for its end, or to workers.
Destination: TypeAlias = "Literal['probe', 'hold', 'threads', 'processes']"

#: Seconds that calls wait for a verdict at most. Longer holds up calls that need each other,
#: shorter sends work to threads that would be better off in processes.
MAX_TRIAL_WAIT_S = 0.15

#: Seconds between two reviews of a route. Shorter costs, longer keeps a wrong route longer.
ROUTE_REVIEW_S = 0.02

#: Seconds of work on two threads or more that tell whether they get cores of their own; doubled
#: with each change of route, so that changes end.
MIN_EVIDENCE_S = 0.06

#: Changes of route after the first choice. More would be flapping.
MAX_CHOICE_CHANGES = 4

#: CPU seconds of a call below which sending it to a process costs about as much as running it.
SHORT_CALL_S = 4e-5

#: How much more processes must promise than threads were seen to do. Smaller changes for nothing.
PROCESS_ADVANTAGE = 1.3

#: Share of a call's time without CPU from which on it counts as waiting; number of such calls.
WAITING_SHARE, MIN_WAITING_CALLS = 0.8, 8

#: Weight of the newest call in the means, and how many times the mean it counts at most.
NEWEST_WEIGHT, MAX_JUMP = 0.2, 4.0

#: Weight of the newest where the CPU clock is so coarse that sending a call hardly ever shows.
COARSE_WEIGHT = 1 / 256

#: One in so many short calls is measured.
SAMPLED_CALLS = 16


class RouteChoice:
    """The choice for one function, given the usable cores and the most worker processes.

    ``tick`` is the step of the CPU clock in seconds.
    """

    def __init__(self, name: str, *, cores: int, workers: int, tick: float = 0.0) -> None:
        self.name = name
        #: seconds of calls that the CPU clock tells something about.
        self._telling = MIN_TICKS * tick
        self._workers = min(workers, cores)
        #: the route of calls, None before the verdict; and why.
        self.route: Literal["threads", "processes"] | None = None
        self.reason = "not measured yet"
        #: whether the route was taken because calls could not wait for the verdict.
        self.provisional = False
        self.probing = False
        #: why calls must stay in this process; "" if they need not.
        self.stay = ""
        #: number of calls that have ended, by route; changes of route.
        self.ended: dict[str, int] = {"threads": 0, "processes": 0}
        self.changes = 0
        #: means per call: seconds on the clock, on the CPU clock, and here to send a call.
        self.wall = self.cpu = self.sending = 0.0
        #: CPU seconds per call while calls ran one by one; 0 if none did.
        self.cpu_alone = 0.0
        self._trial_began: float | None = None
        self._meter = CoresMeter()
        self._review_at = 0.0
        self._ended_on_route = 0
        self._unmeasured = 0
        self._sent = 0

    @property
    def calls(self) -> int:
        return self.ended["threads"] + self.ended["processes"]

    @property
    def waiting(self) -> bool:
        """Whether calls use little CPU time for the time that they take."""
        known = self.wall > SHORT_CALL_S and self.calls * self.wall >= self._telling
        return known and 1.0 - self.cpu / self.wall >= WAITING_SHARE

    def waits(self, now: float) -> bool:
        """Whether calls really wait, and do not queue for the GIL or a core."""
        if not self.waiting:
            return False
        found = self._meter.cores(now)
        return found is not None and found[0] < SATURATED_CORES

    def place(self, now: float) -> Destination:
        if self.route is not None:
            return self.route
        if self.overdue(now):
            self.give_up(now)
            return "threads"
        return "hold" if self.probing else "probe"

    def begin_probe(self, now: float) -> None:
        """A thread begins to run calls one by one and to measure them."""
        self.probing = True
        if self._trial_began is None:
            self._trial_began = now

    def end_probe(self) -> None:
        """The trial has run out of calls, or there is a verdict."""
        self.probing = False

    def overdue(self, now: float) -> bool:
        """Whether a call has been measured for so long that the others wait no more."""
        began = self._trial_began
        return self.probing and began is not None and now - began > MAX_TRIAL_WAIT_S

    def give_up(self, now: float) -> None:
        """Let calls wait no longer for the verdict, which may still come."""
        reason = "its first call is still running, and what suits it is not clear yet"
        self.decide("threads", reason, now)
        self.provisional = True

    def rest(self) -> None:
        """No call runs or waits: the time until the next one does not count as a wait."""
        self._trial_began = None

    def decide(self, route: Literal["threads", "processes"], reason: str, now: float) -> None:
        """Take a route, for the first time or instead of another."""
        if self.route is not None and route != self.route:
            self.changes += 1
        self.route, self.reason, self.provisional = route, reason, False
        self._meter.clear()
        self._ended_on_route = 0
        self._review_at = now + ROUTE_REVIEW_S

    def keep(self, reason: str, now: float) -> None:
        """Keep calls in this process for good."""
        self.stay = reason
        if self.route != "threads":
            self.decide("threads", reason, now)

    def samples(self) -> bool:
        """Whether to measure the call that a thread begins; if not, it is counted here."""
        if self.route is None or not self.wall or self.wall > SHORT_CALL_S:
            return True
        self._unmeasured += 1
        if self._unmeasured % SAMPLED_CALLS == 0:
            return True
        self.ended["threads"] += 1
        return False

    def began(self, worker: Hashable, now: float) -> None:
        self._meter.started(worker, now)

    def took(self, wall: float, cpu: float, now: float, worker: Hashable | None = None) -> None:
        """A call has ended; ``worker`` is the thread that ran it, None if it was a process."""
        self.ended["threads" if worker is not None else "processes"] += 1
        self._ended_on_route += 1
        if not self.wall:
            self.wall, self.cpu = wall, cpu
        else:
            # A call that had to queue for the GIL in the middle says nothing about the others.
            self.wall += NEWEST_WEIGHT * (min(wall, MAX_JUMP * self.wall) - self.wall)
            # On a coarse clock most calls show nothing, and one of many a whole step.
            weight = NEWEST_WEIGHT
            if self.wall < weight * self._telling:
                weight = max(self.wall / self._telling, 1.0 / self.calls)
            self.cpu += weight * (cpu - self.cpu)
        if self.probing and (self.route is None or not self.cpu_alone):
            self.cpu_alone = self.cpu
        if worker is not None:
            self._meter.finished(worker, now, cpu)

    def sent(self, seconds: float) -> None:
        """Add the CPU seconds that it took here to encode a call."""
        self._sent += 1
        if self._sent == 1:
            return  # with the function itself, once
        change = seconds - self.sending
        if self._telling > SHORT_CALL_S:
            self.sending += change * COARSE_WEIGHT
        else:
            self.sending += change * NEWEST_WEIGHT if self.sending else change

    def review(self, now: float) -> bool:
        """Take the other route if it would do better; returns whether it was taken."""
        if now < self._review_at or self.stay or self.changes >= MAX_CHOICE_CHANGES:
            return False
        self._review_at = now + ROUTE_REVIEW_S
        if self.route == "threads":
            return self._leave_threads(now)
        return self.route == "processes" and self._leave_processes(now)

    def _leave_threads(self, now: float) -> bool:
        found = self._meter.cores(now)
        if found is None or self.cpu < SHORT_CALL_S or self._workers < 2:
            return False
        effective, busy, seconds = found
        # Of threads that wait for the GIL the clock says little, the cores that they get say all.
        evidence = max(MIN_EVIDENCE_S, self._telling) * 2**self.changes
        if seconds < evidence or busy < 1.5 or effective < SATURATED_CORES:
            return False
        contention = 1.0
        if not gil_enabled() and self.cpu_alone > self._telling:
            # Without a GIL threads may hinder each other on cores of their own.
            contention = max(1.0, self.cpu / self.cpu_alone)
        share = self.cpu / (self.cpu + 2 * self.sending)
        if self._workers * share < PROCESS_ADVANTAGE * effective / contention:
            return False
        reason = f"{busy:.0f} threads together kept only {effective:.1f} cores busy"
        if contention > PROCESS_ADVANTAGE:
            reason = (
                f"a call takes {contention:.1f} times as much CPU time beside other threads, which "
                f"use the same objects or locks"
            )
        self.decide("processes", reason, now)
        return True

    def _leave_processes(self, now: float) -> bool:
        if self._ended_on_route < MIN_WAITING_CALLS * 2**self.changes:
            return False
        if self.waiting:
            self.decide("threads", "its calls now wait most of the time", now)
            return True
        if self.sending > self.cpu and self.calls > MIN_WAITING_CALLS:
            self.decide("threads", "sending a call to a process takes longer than running it", now)
            return True
        return False


class ThreadGrowth:
    """The number of threads for waiting calls: doubled as long as that brings more."""

    #: Seconds between two looks: shorter decides by chance, longer leaves calls waiting.
    REVIEW_S = 0.25

    #: How many times as many calls twice the threads must finish per second.
    MIN_SPEEDUP = 1.2

    def __init__(self, first: int, most: int) -> None:
        self.threads = first
        self._most = most
        self._at: float | None = None
        self._ended = 0
        self._rate = 0.0

    def ended(self, now: float, waiting: int) -> int:
        """Threads that there should be when a call has ended and so many wait for a thread."""
        self._ended += 1
        if waiting < self.threads or self._at is None:
            self._at, self._ended = now, 0
            return self.threads
        if now - self._at < self.REVIEW_S:
            return self.threads
        rate = self._ended / (now - self._at)
        self._at, self._ended = now, 0
        if rate > self._rate * self.MIN_SPEEDUP and self.threads < self._most:
            self._rate = rate
            self.threads = min(2 * self.threads, self._most)
        return self.threads
