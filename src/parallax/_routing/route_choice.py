"""How the calls of one function in an executor are run: a pure state machine.

The first call runs in a thread and is measured, the others of its kind wait for the verdict, but
never for long. After that each call says how it went, and the route is changed if it does not fit.

Guarantees: no thread, clock, input or output; ``now`` is a parameter. Before the verdict at most
one call runs; nobody waits longer than ``PROBATION`` from the first call on; the route changes a
bounded number of times.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, TypeAlias

from parallax._profiling.meters import CoresMeter

__all__ = ["PROBATION", "Place", "RouteChoice", "ThreadGrowth"]

#: Where a call goes: to be measured, into the line that waits for that, or to workers.
Place: TypeAlias = Literal["probe", "hold", "threads", "processes"]

#: Seconds that calls wait for a verdict at most. Longer holds up calls that need each other,
#: shorter sends work to threads that would be better off in processes.
PROBATION = 0.15

#: Seconds between two looks at how a route does.
REVIEW = 0.02

#: Seconds of work on two threads or more that tell whether they get cores of their own; doubled
#: with each change of route, so that changes end.
EVIDENCE = 0.06

#: Changes of route after the first choice.
MOST_CHANGES = 4

#: CPU seconds of a call below which sending it to a process costs about what it takes.
SHORT = 4e-5

#: Processes must promise this much more than what threads were seen to do.
GAIN = 1.3

#: Cores kept busy by all threads together below which nothing holds them up but waiting.
SATURATED = 0.7

#: Share of a call's time in which it used no CPU, from which on it counts as waiting; calls that
#: must have shown it.
WAITING, WAITED = 0.8, 8

#: Weight of the newest call in the means, and how many times the mean it counts at most.
NEWEST, JUMP = 0.2, 4.0

#: One in so many short calls is measured.
SAMPLE = 16


class RouteChoice:
    """The calls of one function.

    Args:
        name: the function's, for the report.
        cores: usable cores.
        workers: most worker processes.
    """

    def __init__(self, name: str, *, cores: int, workers: int) -> None:
        self.name = name
        self._cores = cores
        self._workers = workers
        #: where calls go, None before the verdict; and why.
        self.route: Literal["threads", "processes"] | None = None
        self.reason = "not measured yet"
        #: the route was taken because calls could not wait for the verdict.
        self.provisional = False
        #: a call is being measured.
        self.probing = False
        #: why calls must stay in this process; "" if they need not.
        self.stay = ""
        #: calls that have ended, by route; changes of route.
        self.ended: dict[str, int] = {"threads": 0, "processes": 0}
        self.changes = 0
        #: means per call: seconds on the clock and on the CPU clock, seconds here to send it.
        self.wall = self.cpu = self.sending = 0.0
        self._since: float | None = None
        self._meter = CoresMeter()
        self._review_at = 0.0
        self._seen = 0
        self._skipped = 0
        self._sent = 0

    @property
    def calls(self) -> int:
        """Calls that have ended."""
        return self.ended["threads"] + self.ended["processes"]

    @property
    def waiting(self) -> bool:
        """Whether calls use little CPU time for the time that they take."""
        return self.wall > SHORT and 1.0 - self.cpu / self.wall >= WAITING

    def waits(self, now: float) -> bool:
        """Whether that is waiting, and not queueing for the GIL or a core."""
        if not self.waiting:
            return False
        found = self._meter.cores(now)
        return found is not None and found[0] < SATURATED

    def place(self, now: float) -> Place:
        """Where the next call goes."""
        if self.route is not None:
            return self.route
        if self.overdue(now):
            self.give_up(now)
            return "threads"
        return "hold" if self.probing else "probe"

    def begin_probe(self, now: float) -> None:
        """A thread begins to run calls one by one and to measure them."""
        self.probing = True
        if self._since is None:
            self._since = now

    def end_probe(self) -> None:
        """It has run out of calls, or there is a verdict."""
        self.probing = False

    def overdue(self, now: float) -> bool:
        """Whether a call has been measured for so long that the others wait no more."""
        return self.probing and self._since is not None and now - self._since > PROBATION

    def give_up(self, now: float) -> None:
        """Calls wait no longer for the verdict; it may come yet."""
        self.decide(
            "threads", "its first call is still running, and what suits it is not clear yet", now
        )
        self.provisional = True

    def rest(self) -> None:
        """Nothing is running or waiting: time that passes now does not count."""
        self._since = None

    def decide(self, route: Literal["threads", "processes"], reason: str, now: float) -> None:
        """Take a route, for the first time or instead of another."""
        if self.route is not None and route != self.route:
            self.changes += 1
        self.route, self.reason, self.provisional = route, reason, False
        self._meter.clear()
        self._seen = 0
        self._review_at = now + REVIEW

    def keep(self, reason: str, now: float) -> None:
        """Calls cannot leave this process, or had better not, for good."""
        self.stay = reason
        if self.route != "threads":
            self.decide("threads", reason, now)

    def samples(self) -> bool:
        """Whether the call that a thread begins is to be measured; it is counted if not."""
        if self.route is None or not self.wall or self.wall > SHORT:
            return True
        self._skipped += 1
        if self._skipped % SAMPLE == 0:
            return True
        self.ended["threads"] += 1
        return False

    def began(self, worker: Hashable, now: float) -> None:
        """A thread begins a call."""
        self._meter.started(worker, now)

    def took(self, wall: float, cpu: float, now: float, worker: Hashable | None = None) -> None:
        """A call has ended.

        Args:
            wall: its seconds on the clock.
            cpu: its seconds on the CPU clock of its thread.
            now: the clock.
            worker: the thread that ran it, None if it was a process.
        """
        self.ended["threads" if worker is not None else "processes"] += 1
        self._seen += 1
        if not self.wall:
            self.wall, self.cpu = wall, cpu
        else:
            # One that had to queue for the GIL in the middle is no witness.
            self.wall += NEWEST * (min(wall, JUMP * self.wall) - self.wall)
            self.cpu += NEWEST * (cpu - self.cpu)
        if worker is not None:
            self._meter.finished(worker, now, cpu)

    def sent(self, seconds: float) -> None:
        """It took so much CPU time here to encode a call."""
        self._sent += 1
        if self._sent == 1:
            return  # with the function itself, once
        change = seconds - self.sending
        self.sending += change * NEWEST if self.sending else change

    def review(self, now: float) -> bool:
        """See whether the other route would do better, and take it then; True if so."""
        if now < self._review_at or self.route is None or self.stay or self.changes >= MOST_CHANGES:
            return False
        self._review_at = now + REVIEW
        return self._leave_threads(now) if self.route == "threads" else self._leave_processes(now)

    def _leave_threads(self, now: float) -> bool:
        found = self._meter.cores(now)
        if found is None or self.cpu < SHORT or self._workers < 2:
            return False
        effective, busy, seconds = found
        # Of threads that wait for the GIL the clock says little, the cores that they get say all.
        if seconds < EVIDENCE * 2**self.changes or busy < 1.5 or effective < SATURATED:
            return False
        share = self.cpu / (self.cpu + 2 * self.sending)
        if min(self._workers, self._cores) * share < GAIN * effective:
            return False
        self.decide(
            "processes",
            f"{busy:.0f} threads together kept only {effective:.1f} cores busy",
            now,
        )
        return True

    def _leave_processes(self, now: float) -> bool:
        if self._seen < WAITED * 2**self.changes:
            return False
        if self.waiting and self.wall > SHORT:
            self.decide("threads", "its calls now wait most of the time", now)
            return True
        if self.sending > self.cpu and self.calls > WAITED:
            self.decide("threads", "sending a call to a process takes longer than running it", now)
            return True
        return False


class ThreadGrowth:
    """How many threads waiting calls get: doubled as long as that brings more.

    Args:
        first: how many at first.
        most: how many at most.
    """

    #: Seconds between two looks; share by which twice the threads must do more.
    LOOK = 0.25
    MORE = 1.2

    def __init__(self, first: int, most: int) -> None:
        self.threads = first
        self._most = most
        self._at: float | None = None
        self._ended = 0
        self._rate = 0.0

    def ended(self, now: float, waiting: int) -> int:
        """A call has ended; how many threads there should be.

        Args:
            now: the clock.
            waiting: calls that no thread has yet.
        """
        self._ended += 1
        if waiting < self.threads or self._at is None:
            self._at, self._ended = now, 0
            return self.threads
        if now - self._at < self.LOOK:
            return self.threads
        rate = self._ended / (now - self._at)
        self._at, self._ended = now, 0
        if rate > self._rate * self.MORE and self.threads < self._most:
            self._rate = rate
            self.threads = min(2 * self.threads, self._most)
        return self.threads
