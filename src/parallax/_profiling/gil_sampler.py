"""How long a callable holds the GIL, seen by a second thread while it runs real items.

How it works: a thread sleeps for random times and finds out at each wake-up whether it had to wait
for the GIL. On Linux the kernel counts that, whatever the load: a thread that waits gives up its
core once more. Elsewhere a late wake-up counts as a wait. Exponential sleeps see time averages; a
fixed period would beat with the items. A C call that keeps the GIL shows as an unfinished wait.

Guarantees: no process-wide setting is touched; nothing waits for a verdict; each figure comes with
its error. Assumption: watched and other threads are CPython threads of one interpreter.
"""

from __future__ import annotations

import _thread
import math
import os
import sys
import threading
import time

from parallax._core.cores import gil_enabled, load_per_core
from parallax._core.current_frames import thread_idents
from parallax._core.fork_pauses import forget, pause_at_forks
from parallax._core.interrupt_mask import StartingThread
from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple, signals
from parallax._core.thread_clocks import (
    ClockedThread,
    clock_tick,
    native_id,
    thread_cpu_clock,
    thread_delay,
)
from parallax._profiling.gil_estimate import (
    MIN_PENDING_S,
    MIN_SLEEP_S,
    GilReading,
    GilSamples,
    estimate,
    held_throughout,
    is_late,
    mean_sleep,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

if sys.platform == "linux":
    from resource import RUSAGE_THREAD, getrusage

    def core_switches() -> int:
        """How often this thread has given up its core of its own will; does not drop the GIL."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw

else:

    def core_switches() -> int:
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


#: All that can be blocked; the C library keeps two for itself on Linux, and warns of them.
_BLOCKABLE = {n for n in range(1, signals.NSIG) if sys.platform != "linux" or n not in (32, 33)}

#: Before Python 3.11 sleeps on Windows end with its tick of 15.6 ms. A wake-up tells nothing then.
_SLEEPS_TELL = sys.platform != "win32" or sys.version_info >= (3, 11)


class Mark(NamedTuple):
    """Where all clocks and counters stood at one moment."""

    at: float
    samples: GilSamples
    due: float  #: when the sleep that is going on ends; infinite while awake
    watched: float | None  #: CPU seconds of the watched thread
    process: float  #: CPU seconds of all threads
    delay: float | None  #: seconds the watched thread waited for a core; None: not asked


class GilSampler:
    """Samples from a thread of its own whether the GIL is free while another one works.

    That is the constructing one if no `thread` is given. `reading` and `busy` may be asked at any
    time and from any thread. `on_sample` is called in the sampler's thread after each sample, with
    `time.perf_counter()`; the first exception it raises ends these calls and is raised by `stop`.
    `on_wake` is called before it, at once when the thread has the GIL.
    If it `starts` processes, these block the signals that the starting thread blocks, and not all.
    """

    def __init__(
        self,
        on_sample: Callable[[float], None] | None = None,
        thread: ClockedThread | None = None,
        *,
        on_wake: Callable[[], None] | None = None,
        starts: bool = True,
    ) -> None:
        self._on_sample, self._on_wake, self._starts = on_sample, on_wake, starts
        self._usual: set[Any] | None = None
        self._watch, self._watched_id, *_ = thread or ClockedThread.current()
        self._clock = thread_cpu_clock(self._watch)
        self.native_id: int | None = 0
        #: whether the GIL's holder was made to let go of it at the latest wake-up.
        self.by_force = False
        #: the switch interval that counts for that.
        self.turn = sys.getswitchinterval()
        self._pid = 0
        self._ident = 0
        self._wake = _thread.allocate_lock()
        #: held from the start of the thread to its end.
        self.running = _thread.allocate_lock()
        self._paused = False
        self._failure: BaseException | None = None
        # One tuple, swapped as a whole: readers see samples and the wait going on as of one moment.
        self._seen: tuple[GilSamples, float] = (GilSamples(), math.inf)
        self._first: Mark | None = None
        self._last: Mark | None = None

    def start(self) -> None:
        """Begin to sample; may be called once."""
        if self._first is not None:
            raise RuntimeError("a GilSampler starts once; make a new one")
        self._wake.acquire()
        self._pid = os.getpid()
        self._first = self.mark(delayed=True)
        self._seen = (GilSamples(), self._first.at + MIN_SLEEP_S)
        self._start(self._first.at)
        pause_at_forks(self)

    def _start(self, began: float) -> None:
        self.running.acquire()
        try:
            # Not threading.Thread: its start waits for the new thread, which costs three times
            # as much, and five milliseconds more once pure Python runs elsewhere.
            if _SLEEPS_TELL:
                with StartingThread():
                    self._ident = _thread.start_new_thread(self._loop, (began,))
                return
        except RuntimeError:  # no more threads
            pass
        # Go without; `reading` says that it cannot tell.
        self._seen = (self._seen[0], math.inf)
        self.running.release()

    def pause(self) -> None:
        self._paused = self.running.locked()
        self._wake_up()

    def resume(self) -> None:
        # Another thread may have stopped it meanwhile; it may not have ended in time.
        if self._paused and self._last is None and not self.running.locked():
            self._start(time.perf_counter())
        self._paused = False

    def _wake_up(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:  # another thread does so as well
            pass

    def stop(self) -> None:
        """End sampling and wait for the thread; raises what `on_sample` raised, once."""
        if self._first is None or self._pid != os.getpid():
            return  # never started, or this is a fork, where the thread does not exist
        if self._last is None:
            self._last = self.mark(delayed=True)
            self._wake_up()
            forget(self)
        if self._ident != threading.get_ident():
            with self.running:
                pass
        # A cycle with the owner would keep what the call captured until garbage is collected.
        self._on_sample = self._on_wake = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def mark(self, *, delayed: bool = False) -> Mark:
        """Where things stand now, to be given to `reading` or `busy` later as `since`.

        With ``delayed`` a reading also tells for how long there was no core; that takes 15 us.
        """
        while True:
            seen, now = self._seen, time.perf_counter()
            if seen is self._seen:  # else the sampler had a turn between the two
                break
        watched, process = self.watched(), time.process_time()
        # The sampler's thread would lose the GIL by reading a file, and queue for it again.
        ask = delayed and threading.get_ident() != self._ident
        return Mark(now, *seen, watched, process, thread_delay(self._watched_id) if ask else None)

    def reading(self, since: Mark | None = None) -> GilReading:
        """What the samples say since the mark, a wait still going on included."""
        first, last = since or self._first, self._last or self.mark(delayed=True)
        if first is None:
            return GilReading(0, 0, None, 1.0, 0.0)
        # Samples may have come in after `stop` took its mark: they tell how a long wait ended.
        samples = (self._seen[0] if self._last else last.samples).since(first.samples)
        span = last.at - first.at
        delayed = 0.0
        if last.delay is not None and first.delay is not None and span > 0.0:
            delayed = min(1.0, max(0.0, last.delay - first.delay) / span)
        if not gil_enabled():
            return GilReading(samples.ticks, 0, 0.0, 0.0, span, delayed)
        busy = _busy(first, last.at, last.watched)
        return estimate(
            samples,
            span,
            pending=0.0 if self._last else last.at - last.due - samples.base(),
            busy=busy,
            others=self._others(first, last, samples, busy),
            delayed=delayed,
            load=(load_per_core() or 0.0) if samples.guessed else 0.0,
        )

    def busy(self, since: Mark | None = None) -> float | None:
        """CPU time per wall time of the watched thread, or None where that cannot be told."""
        first, last = since or self._first, self._last
        if first is None:
            return None
        if last is not None:
            return _busy(first, last.at, last.watched)
        return _busy(first, time.perf_counter(), self.watched())

    def watched(self) -> float | None:
        """CPU seconds of the watched thread; None where that cannot be told."""
        if self._clock is not None:
            return self._clock()
        return time.thread_time() if threading.get_ident() == self._watch else None

    def _others(self, first: Mark, last: Mark, samples: GilSamples, busy: float | None) -> float:
        """CPU share of threads that may hold the GIL instead of the watched one."""
        span = last.at - first.at
        if busy is None or span <= 0.0:
            return 0.0
        known = {self._watch, self._ident, threading.get_ident()}
        if known.issuperset(thread_idents()):
            return 0.0  # what else burns CPU are native threads: they never hold the GIL
        return max(0.0, (last.process - first.process - samples.cpu) / span - busy)

    def _loop(self, began: float) -> None:
        self.native_id = native_id()
        if hasattr(signals, "pthread_sigmask"):
            # Python's handlers run in the main thread, but a signal that lands here does not
            # interrupt what that one waits in: Ctrl-C would seem lost. And a signal that the
            # program blocks, to ask for it itself, would land here and end the program.
            before = signals.pthread_sigmask(signals.SIG_BLOCK, _BLOCKABLE)
            self._usual = {*before, signals.SIGINT} if self._starts else None
        try:
            self._sample(began)
        except BaseException as error:  # noqa: BLE001 - raised by `stop`
            self._failure = error
        finally:
            self._seen = (self._seen[0], math.inf)
            self.running.release()

    def _sample(self, began: float) -> None:
        """Sleep, look, add up, until told to stop. Short on purpose: it holds the GIL itself."""
        clock, interval = time.perf_counter, sys.getswitchinterval()
        rude = 0.8 * interval  # who waited so long made the holder let go
        samples, least, lateness, forced = self._seen[0], math.inf, 0.0, 0
        spent = samples.cpu  # by a thread that ended before a fork
        startup_wait = clock() - began
        if startup_wait > MIN_PENDING_S and (core_switches() or sys.platform != "linux"):
            samples = samples.add_startup_wait(startup_wait - MIN_SLEEP_S)
        draw = time.perf_counter_ns()
        while True:
            # Knuth's MMIX generator; the `random` module would cost its import.
            draw = (draw * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
            mean = mean_sleep(clock() - began, forced if lateness > rude else 0)
            sleep = max(MIN_SLEEP_S, -mean * math.log(((draw >> 11) + 1) / 9007199254740992.0))
            switches = core_switches()
            due, turn = clock() + sleep, self.turn
            self._seen = (samples, due)
            if _sleep(self._wake, sleep):
                return
            now = clock()
            if (on_wake := self._on_wake) is not None:
                on_wake()
            switches = core_switches() - switches
            lateness = max(0.0, now - due)
            least = min(least, lateness)
            forced += lateness > rude
            # It slept, waited for one switch interval, and waited on.
            waited = lateness > 0.95 * turn
            self.by_force = waited and (switches > 2 or switches <= 0)
            late = is_late(lateness, switches, least, interval)
            samples = samples.tick(
                mean,
                lateness,
                late=late,
                throughout=held_throughout(lateness, switches, interval),
                guess=switches <= 0,
                cpu=spent + time.thread_time(),
            )
            self._seen = (samples, math.inf)
            if self._on_sample is not None:
                if self._usual is not None:
                    signals.pthread_sigmask(signals.SIG_SETMASK, self._usual)
                try:
                    self._on_sample(now)
                except BaseException as error:  # noqa: BLE001 - raised by `stop`
                    self._failure, self._on_sample = error, None
                if self._usual is not None:
                    signals.pthread_sigmask(signals.SIG_BLOCK, _BLOCKABLE)


def _busy(first: Mark, now: float, watched: float | None) -> float | None:
    """CPU share of the watched thread since the first mark."""
    span, tick = now - first.at, clock_tick()
    if watched is None or first.watched is None or span <= 0.0 or span < 2.0 * tick:
        return None
    return min(1.0, max(0.0, (watched - first.watched + tick) / span))
