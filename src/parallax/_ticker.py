"""How long a callable holds the GIL, seen by a second thread while it runs real items.

How it works: a thread sleeps for random times and asks at each wake-up whether it had to wait for
the GIL. On Linux the kernel tells, whatever the load: a thread that waits gives up its core once
more. Elsewhere a late wake-up must do. Exponential sleeps see time averages; a fixed period would
beat with the items. A C call that never lets go of the GIL shows as a wait that is not over yet.

Guarantees: no process-wide setting is touched; nothing waits for a verdict; each figure comes with
its doubt. Assumption: watched and other threads are CPython threads of one interpreter.
"""

from __future__ import annotations

import _thread
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ._machine import clock_tick, gil_enabled, load_per_core, thread_cpu_clock

__all__ = [
    "GilReading",
    "Mark",
    "Tally",
    "Ticker",
    "estimate",
    "is_late",
    "is_solid",
    "mean_sleep",
]

#: Mean sleep at first. Shorter disturbs the callable, longer leaves too few samples in 25 ms.
_FIRST_MEAN = 0.0005
#: Mean sleep in the long run. Shorter costs for nothing, longer is slow to see a change.
_LAST_MEAN = 0.005
#: After a tick that took the GIL by force the mean grows by this factor per such tick, up to the
#: bound: each of them stops the callable for some 0.1 ms. Slower growth or a lower bound costs over
#: 1 % of pure Python work, faster growth leaves the verdict to the first few ticks.
_FORCED_GROWTH, _FORCED_MEAN = 1.7, 0.02
#: Least sleep. Shorter ones do not reach the kernel, a longer one would hide fine alternation.
_LEAST_SLEEP = 0.00005
#: Lateness that counts as a wait where the kernel does not say. Shorter than the slack of timers
#: cries wolf, longer is blind to short holds.
_THRESHOLD = 0.00015 if sys.platform == "linux" else 0.001
#: What waking up costs while nothing has been seen yet.
_USUAL_LATENESS = 0.00008
#: A wait still going on counts from here; below, it may be the wake-up itself.
_PENDING = 0.001
#: The longest a thread is taken to wait for a core where others wait, too. Smaller mistakes a busy
#: machine for a held GIL, larger doubts a C call that holds it.
_STARVED = 0.03
#: Normal quantile of a 90 % interval.
_Z = 1.645

if sys.platform == "linux":
    from resource import RUSAGE_THREAD, getrusage

    def _switches() -> int:
        """How often this thread has given up its core of its own will; does not drop the GIL."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw

else:

    def _switches() -> int:
        """Not told by this system: zero for ever, so that lateness decides."""
        return 0


if sys.platform == "win32":

    def _sleep(wake: _thread.LockType, seconds: float) -> bool:
        """Sleep, and tell whether to stop. Waiting for a lock is 16 ms coarse here."""
        time.sleep(seconds)
        return wake.acquire(False)

else:

    def _sleep(wake: _thread.LockType, seconds: float) -> bool:
        """Sleep until woken by `wake`, and tell whether that was so."""
        return wake.acquire(True, seconds)


@dataclass(frozen=True, slots=True)
class GilReading:
    """How the GIL was held while the watched thread worked."""

    ticks: int  #: samples taken
    late: int  #: samples at which the GIL was not to be had at once
    #: share of the time in which the watched thread held it, times in which that thread was ready
    #: but got no core left out; None: cannot be told
    held: float | None
    error: float  #: half-width of a 90 % interval around `held`, 0..1
    longest: float  #: seconds, the longest wait: a C call that holds the GIL shows here
    span: float  #: wall seconds observed
    delayed: float = 0.0  #: share of them in which the watched thread was ready but got no core


class Tally(NamedTuple):
    """What the samples add up to. Every field but `longest` is a sum, so tallies subtract."""

    ticks: int = 0
    late: int = 0
    guessed: int = 0  #: ticks judged by their lateness alone
    waited: float = 0.0  #: seconds the ticker waited for the GIL
    birth: float = 0.0  #: the part of it before the thread first ran
    weight: float = 0.0  #: each tick stands for the mean of its sleep, in seconds
    weight_late: float = 0.0
    weight_squares: float = 0.0
    overshoot: float = 0.0  #: lateness of ticks that met a free GIL: what waking up costs
    longest: float = 0.0
    cpu: float = 0.0  #: seconds of the ticker's own CPU time

    def base(self) -> float:
        """What waking up costs when nobody holds the GIL."""
        on_time = self.ticks - self.late
        return (self.overshoot + _USUAL_LATENESS) / (on_time + 1)

    def tick(
        self,
        mean: float,
        lateness: float,
        *,
        late: bool,
        solid: bool = True,
        guess: bool = False,
        cpu: float = 0.0,
    ) -> Tally:
        """Add one sample: the wake-up from a sleep that was drawn with that mean.

        Args:
            mean: of the distribution that the sleep was drawn from.
            lateness: seconds from the end of the sleep to having the GIL again.
            late: whether the GIL was taken at the wake-up.
            solid: whether it was held throughout the lateness; otherwise that time tells nothing.
            guess: whether only the lateness could tell.
            cpu: the ticker's own CPU seconds so far.
        """
        excess = max(0.0, lateness - self.base()) if late and solid else 0.0
        return Tally(
            self.ticks + 1,
            self.late + late,
            self.guessed + guess,
            self.waited + excess,
            self.birth,
            self.weight + mean,
            self.weight_late + mean * late,
            self.weight_squares + mean * mean,
            self.overshoot + (0.0 if late else lateness),
            max(self.longest, excess),
            cpu,
        )

    def born(self, seconds: float) -> Tally:
        """Add a wait that began at no random moment: known time, but no sample."""
        return self._replace(
            waited=self.waited + seconds,
            birth=self.birth + seconds,
            longest=max(self.longest, seconds),
        )

    def since(self, mark: Tally) -> Tally:
        """What was added after `mark`; `longest` stays that of the whole."""
        return Tally(
            self.ticks - mark.ticks,
            self.late - mark.late,
            self.guessed - mark.guessed,
            self.waited - mark.waited,
            self.birth - mark.birth,
            self.weight - mark.weight,
            self.weight_late - mark.weight_late,
            self.weight_squares - mark.weight_squares,
            self.overshoot - mark.overshoot,
            self.longest,
            self.cpu - mark.cpu,
        )


def is_late(lateness: float, switches: int, least: float, interval: float) -> bool:
    """Whether a tick found the GIL taken.

    Args:
        lateness: seconds from the end of the sleep to having the GIL again.
        switches: how often the thread went to sleep: 1 for the sleep itself, one more for each
            wait for the GIL; 0 where that is not counted.
        least: the least lateness seen so far, to learn how slow wake-ups are here.
        interval: the switch interval, the lateness that pure Python work causes.
    """
    if switches > 0:
        return switches > 1
    # A slow timer is always slow by about the same, and never by the switch interval.
    return lateness > (max(_THRESHOLD, 2.5 * least) if least < 0.6 * interval else _THRESHOLD)


def is_solid(lateness: float, switches: int, interval: float) -> bool:
    """Whether the GIL was held throughout a wait, as far as the kernel's count tells.

    A waiting thread sleeps once per switch interval. It is also woken, and sleeps again, when the
    GIL is dropped and taken back before it gets there, as fine alternation does.
    """
    return switches - 2 - lateness / interval <= 1.5


def estimate(
    tally: Tally,
    span: float,
    *,
    pending: float = 0.0,
    busy: float | None = None,
    others: float = 0.0,
    delayed: float = 0.0,
    load: float = 0.0,
) -> GilReading:
    """Turn samples into a reading; the whole judgement, without clock or thread.

    While the ticker waited, the GIL was held for certain, so that time counts as it is; while it
    slept, the share of late wake-ups stands for the share of time held. Weighing by time keeps a
    few long waits from counting like as many short ones (dask/distributed#8557).

    Args:
        tally: the samples.
        span: wall seconds observed.
        pending: seconds of a wait that is still going on.
        busy: CPU share of the watched thread, if known.
        others: CPU share of other threads that may run Python.
        delayed: share of the time in which the watched thread was ready but got no core.
        load: runnable threads per core; misleads where only lateness is known.
    """
    ticks, late, waited, longest = tally.ticks, tally.late, tally.waited, tally.longest
    sampled, hits, squares = tally.weight, tally.weight_late, tally.weight_squares
    unsure = tally.birth
    if pending > _PENDING:
        unsure += pending
        ticks, late, waited, longest = ticks + 1, late + 1, waited + pending, max(longest, pending)
        sampled += _FIRST_MEAN
        hits += _FIRST_MEAN
        squares += _FIRST_MEAN * _FIRST_MEAN
    waited = min(waited, span)
    if span <= 0.0 or (ticks == 0 and waited < span / 2.0):
        return GilReading(ticks, late, None, 1.0, longest, span)
    share = half = centre = 0.5
    if ticks:
        count = sampled * sampled / squares  # what as many ticks of equal weight would be
        share = hits / sampled
        # Wilson's interval stays honest when all or none of a few ticks were late.
        shrink = 1.0 + _Z * _Z / count
        centre = (share + _Z * _Z / (2.0 * count)) / shrink
        half = math.sqrt(share * (1.0 - share) / count + (_Z / (2.0 * count)) ** 2) * _Z / shrink
    held = (waited + (span - waited) * share) / span
    # A sleep cannot end while the ticker itself is on its way: alternation is seen a bit askew.
    error = (half + abs(centre - share) + 0.4 * share * (1.0 - share)) * (span - waited) / span
    if tally.guessed:
        # Short holds hide below the threshold, and a loaded machine wakes threads late.
        guessed = tally.guessed / ticks
        error += guessed * (0.5 * min(1.0, max(0.0, load - 0.9)) + min(0.2, 600.0 * _THRESHOLD))
    # The thread may have been kept waiting for a core with or without the GIL in its hands, and
    # where it was, so may the ticker have been: only ticks prove that the GIL was in its way.
    delayed = min(max(0.0, delayed), 0.98)
    doubt = min(min(unsure, _STARVED) / span, delayed) * (1.0 - max(0.0, centre - half))
    low = max(0.0, held - delayed - doubt) / (1.0 - delayed)
    high = min(1.0, held / (1.0 - delayed))
    held = min(held, high)
    if others > 0.0:
        # Others hold it for as long as they run at most, the watched thread as long as it runs.
        low = max(0.0, low - others)
        high = max(low, high if busy is None else min(high, busy / (1.0 - delayed)))
        held = (low + high) / 2.0
    error = min(1.0, error / (1.0 - delayed) + max(high - held, held - low, 0.0))
    return GilReading(ticks, late, held, error, longest, span, delayed)


class Mark(NamedTuple):
    """Where all clocks and counters stood at one moment."""

    at: float
    tally: Tally
    due: float  #: when the sleep that is going on ends; infinite while awake
    watched: float | None  #: CPU seconds of the watched thread
    process: float  #: CPU seconds of all threads
    delay: float | None  #: seconds the watched thread waited for a core

    @property
    def cpu(self) -> float:
        """CPU seconds that the ticker itself has used."""
        return self.tally.cpu


class Ticker:
    """Samples from a thread of its own whether the GIL is free while another thread works.

    Start it in the thread that is about to run items, stop it there afterwards; `reading` and
    `busy` may be asked at any time and from any thread.

    Args:
        on_tick: called in the ticker's thread after each sample, with `time.perf_counter()`. The
            first exception it raises ends these calls and is raised by `stop`.
        watch: ident of the thread that runs the items; the constructing thread if not given. It
            must be alive.
    """

    def __init__(
        self, on_tick: Callable[[float], None] | None = None, *, watch: int | None = None
    ) -> None:
        self._on_tick = on_tick
        self._watch = threading.get_ident() if watch is None else watch
        self._clock = thread_cpu_clock(self._watch)
        self._delays = _delays_file(self._watch)
        self._pid = 0
        self._ident = 0
        self._wake = _thread.allocate_lock()
        self._done = _thread.allocate_lock()
        self._failure: BaseException | None = None
        # One tuple, swapped as a whole: readers see samples and the wait going on as of one moment.
        self._seen: tuple[Tally, float] = (Tally(), math.inf)
        self._first: Mark | None = None
        self._last: Mark | None = None

    def start(self) -> None:
        """Begin to sample; may be called once."""
        if self._first is not None:
            raise RuntimeError("a Ticker starts once; make a new one")
        self._wake.acquire()
        self._done.acquire()
        self._pid = os.getpid()
        self._first = self.mark()
        self._seen = (Tally(), self._first.at + _LEAST_SLEEP)
        try:
            # Not threading.Thread: its start waits for the new thread, which costs three times
            # as much, and five milliseconds more once pure Python runs elsewhere.
            self._ident = _thread.start_new_thread(self._loop, ())
        except RuntimeError:  # no more threads: go without, `reading` says that it cannot tell
            self._seen = (Tally(), math.inf)
            self._done.release()

    def stop(self) -> None:
        """End sampling and wait for the thread, which wakes at once; again does nothing.

        Raises:
            BaseException: what `on_tick` raised, once.
        """
        if self._first is None or self._pid != os.getpid():
            return  # never started, or this is a fork, where the thread does not exist
        if self._last is None:
            self._last = self.mark()
            self._wake.release()
        if self._ident != threading.get_ident():
            with self._done:
                pass
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def mark(self) -> Mark:
        """Where things stand now, to be given to `reading` or `busy` later as `since`."""
        tally, due = self._seen
        now, watched, process = time.perf_counter(), self._watched(), time.process_time()
        # The ticker's thread would lose the GIL by reading a file, and queue for it again.
        mine = threading.get_ident() == self._ident
        return Mark(now, tally, due, watched, process, None if mine else _delay(self._delays))

    def reading(self, since: Mark | None = None) -> GilReading:
        """What the samples say, a wait still going on included.

        Args:
            since: leave out what was before this mark; `longest` stays that of the whole.
        """
        first, last = since or self._first, self._last or self.mark()
        if first is None:
            return GilReading(0, 0, None, 1.0, 0.0, 0.0)
        # Samples may have come in after `stop` took its mark: they tell how a long wait ended.
        tally = (self._seen[0] if self._last else last.tally).since(first.tally)
        span = last.at - first.at
        delayed = 0.0
        if last.delay is not None and first.delay is not None and span > 0.0:
            delayed = min(1.0, max(0.0, last.delay - first.delay) / span)
        if not gil_enabled():
            return GilReading(tally.ticks, 0, 0.0, 0.0, 0.0, span, delayed)
        busy = _busy(first, last.at, last.watched)
        return estimate(
            tally,
            span,
            pending=0.0 if self._last else last.at - last.due - tally.base(),
            busy=busy,
            others=self._others(first, last, tally, busy),
            delayed=delayed,
            load=(load_per_core() or 0.0) if tally.guessed else 0.0,
        )

    def busy(self, since: Mark | None = None) -> float | None:
        """CPU time per wall time of the watched thread, or None where that cannot be told."""
        first, last = since or self._first, self._last
        if first is None:
            return None
        if last is not None:
            return _busy(first, last.at, last.watched)
        return _busy(first, time.perf_counter(), self._watched())

    def _watched(self) -> float | None:
        if self._clock is not None:
            return self._clock()
        return time.thread_time() if threading.get_ident() == self._watch else None

    def _others(self, first: Mark, last: Mark, tally: Tally, busy: float | None) -> float:
        """CPU share of threads that may hold the GIL instead of the watched one."""
        span = last.at - first.at
        if busy is None or span <= 0.0:
            return 0.0
        known = {self._watch, self._ident, threading.get_ident()}
        if known.issuperset(sys._current_frames()):
            return 0.0  # what else burns CPU are native threads: they never hold the GIL
        return max(0.0, (last.process - first.process - tally.cpu) / span - busy)

    def _loop(self) -> None:
        try:
            self._sample()
        except BaseException as error:  # noqa: BLE001 - raised by `stop`
            self._failure = error
        finally:
            self._seen = (self._seen[0], math.inf)
            self._done.release()

    def _sample(self) -> None:
        """Sleep, look, add up, until told to stop. Short on purpose: it holds the GIL itself."""
        clock, interval = time.perf_counter, sys.getswitchinterval()
        rude = 0.8 * interval  # who waited so long made the holder let go
        began = self._first.at if self._first is not None else clock()
        tally, least, lateness, forced = Tally(), math.inf, 0.0, 0
        birth = clock() - began
        if birth > _PENDING and (_switches() or sys.platform != "linux"):
            tally = tally.born(birth - _LEAST_SLEEP)
        draw = time.perf_counter_ns()
        while True:
            # Knuth's MMIX generator; the `random` module would cost its import.
            draw = (draw * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
            mean = mean_sleep(clock() - began, forced if lateness > rude else 0)
            sleep = max(_LEAST_SLEEP, -mean * math.log(((draw >> 11) + 1) / 9007199254740992.0))
            switches = _switches()
            due = clock() + sleep
            self._seen = (tally, due)
            if _sleep(self._wake, sleep):
                return
            now = clock()
            switches = _switches() - switches
            lateness = max(0.0, now - due)
            least = min(least, lateness)
            forced += lateness > rude
            late = is_late(lateness, switches, least, interval)
            tally = tally.tick(
                mean,
                lateness,
                late=late,
                solid=is_solid(lateness, switches, interval),
                guess=switches <= 0,
                cpu=time.thread_time(),
            )
            self._seen = (tally, math.inf)
            if self._on_tick is not None:
                try:
                    self._on_tick(now)
                except BaseException as error:  # noqa: BLE001 - raised by `stop`
                    self._failure, self._on_tick = error, None


def _busy(first: Mark, now: float, watched: float | None) -> float | None:
    """CPU share of the watched thread since the first mark."""
    span = now - first.at
    if watched is None or first.watched is None or span <= 0.0 or span < 2.0 * clock_tick():
        return None
    return min(1.0, max(0.0, (watched - first.watched) / span))


def mean_sleep(elapsed: float, forced: int) -> float:
    """Mean of the next sleep; it may depend on what was seen, for each tick has its weight.

    Args:
        elapsed: seconds since the start.
        forced: how many ticks took the GIL by force so far, or 0 if the latest did not.
    """
    if forced:
        return min(_FORCED_MEAN, _FIRST_MEAN * _FORCED_GROWTH ** min(forced, 10))
    return min(_LAST_MEAN, max(_FIRST_MEAN, elapsed / 25.0))


def _delays_file(ident: int) -> str | None:
    """Where Linux tells how long this thread of ours has waited for a core."""
    if not hasattr(_thread, "get_native_id"):  # exotic systems only
        return None
    if ident == threading.get_ident():
        native: int | None = threading.get_native_id()
    else:
        native = next((t.native_id for t in threading.enumerate() if t.ident == ident), None)
    return None if native is None else f"/proc/self/task/{native}/schedstat"


def _delay(path: str | None) -> float | None:
    """Seconds of waiting for a core, or None where the kernel does not count them."""
    if path is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return int(os.read(file, 100).split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return None
    finally:
        os.close(file)
