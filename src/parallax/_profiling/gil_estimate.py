"""How long the GIL was held, computed from the wake-ups of the sampler.

Purpose: ``GilSamples`` adds up samples, ``estimate`` turns them into a ``GilReading``.
Each sample answers: when a random sleep ended, was the GIL free? While the sampler waited the GIL
was held for certain, so that time counts as it is; the share of late wake-ups stands for the time
that the sampler slept. Weighing by time keeps a few long waits from counting like as many short
ones (dask/distributed#8557).

Guarantees: pure functions and immutable values; every figure comes with an error, which grows with
few samples, a loaded machine, and other threads that run Python.
"""

from __future__ import annotations

import math
import sys

from parallax._core.light_stdlib import NamedTuple

#: Mean sleep at first. Shorter disturbs the callable, longer leaves too few samples in 25 ms.
FIRST_MEAN_SLEEP_S = 0.0005
#: Mean sleep in the long run. Shorter costs for nothing, longer is slow to see a change.
_LAST_MEAN_SLEEP_S = 0.005
#: After a tick that took the GIL by force the mean grows by this factor per such tick, up to the
#: bound: each of them stops the callable for some 0.1 ms. Slower growth or a lower bound costs over
#: 1 % of pure Python work, faster growth leaves the verdict to the first few ticks.
_FORCED_GROWTH, _MAX_FORCED_MEAN_SLEEP_S = 1.7, 0.02
#: Least sleep. Shorter ones do not reach the kernel, a longer one would hide fine alternation.
MIN_SLEEP_S = 0.00005
#: Lateness that counts as a wait where the kernel does not say. Shorter than the slack of timers
#: cries wolf, longer is blind to short holds.
_MIN_LATE_S = 0.00015 if sys.platform == "linux" else 0.001
#: What waking up costs while nothing has been seen yet.
_USUAL_LATENESS_S = 0.00008
#: A wait still going on counts from here; below, it may be the wake-up itself.
MIN_PENDING_S = 0.001
#: The longest a thread is taken to wait for a core where others wait, too. Smaller mistakes a busy
#: machine for a held GIL, larger doubts a C call that holds it.
_MAX_STARVED_S = 0.03
#: Normal quantile of a 90 % interval.
_Z = 1.645


class GilReading(NamedTuple):
    """How the GIL was held while the watched thread worked."""

    ticks: int  #: samples taken
    late: int  #: samples at which the GIL was not free
    #: share of the time in which the watched thread held it, times in which that thread was ready
    #: but got no core left out; None: cannot be told
    held: float | None
    error: float  #: half-width of a 90 % interval around `held`, 0..1
    span: float  #: wall seconds observed
    delayed: float = 0.0  #: share of them in which the watched thread was ready but got no core


class GilSamples(NamedTuple):
    """What the samples add up to. Every field is a sum, so sums subtract."""

    ticks: int = 0
    late: int = 0
    guessed: int = 0  #: ticks judged by their lateness alone
    waited: float = 0.0  #: seconds the sampler waited for the GIL
    startup_wait: float = 0.0  #: the part of it before the thread first ran
    weight: float = 0.0  #: each tick stands for the mean of its sleep, in seconds
    weight_late: float = 0.0
    weight_squares: float = 0.0
    overshoot: float = 0.0  #: lateness of ticks that met a free GIL: what waking up costs
    cpu: float = 0.0  #: seconds of the sampler's own CPU time

    def base(self) -> float:
        """What waking up costs when nobody holds the GIL."""
        on_time = self.ticks - self.late
        return (self.overshoot + _USUAL_LATENESS_S) / (on_time + 1)

    def tick(
        self,
        mean: float,
        lateness: float,
        *,
        late: bool,
        throughout: bool = True,
        guess: bool = False,
        cpu: float = 0.0,
    ) -> GilSamples:
        """Add a sleep drawn with that mean, which ended ``lateness`` seconds before having the GIL.

        Without ``throughout`` the GIL was not held all that time and the lateness tells nothing;
        ``guess``: only the lateness could tell; ``cpu``: the sampler's CPU seconds so far.
        """
        excess = max(0.0, lateness - self.base()) if late and throughout else 0.0
        return GilSamples(
            self.ticks + 1,
            self.late + late,
            self.guessed + guess,
            self.waited + excess,
            self.startup_wait,
            self.weight + mean,
            self.weight_late + mean * late,
            self.weight_squares + mean * mean,
            self.overshoot + (0.0 if late else lateness),
            cpu,
        )

    def add_startup_wait(self, seconds: float) -> GilSamples:
        """Add a wait that began at no random moment: known time, but no sample."""
        return self._replace(
            waited=self.waited + seconds,
            startup_wait=self.startup_wait + seconds,
        )

    def since(self, mark: GilSamples) -> GilSamples:
        """What was added after `mark`."""
        return GilSamples._make(mine - theirs for mine, theirs in zip(self, mark, strict=True))


def is_late(lateness: float, switches: int, least: float, interval: float) -> bool:
    """Whether a tick found the GIL taken.

    ``switches`` counts how often the thread went to sleep: 1 for the sleep itself, one more for
    each wait for the GIL; 0 where that is not counted. ``least`` is the least lateness seen so far,
    ``interval`` the switch interval, the lateness that pure Python work causes.
    """
    if switches > 0:
        return switches > 1
    # A slow timer is always slow by about the same, and never by the switch interval.
    return lateness > (max(_MIN_LATE_S, 2.5 * least) if least < 0.6 * interval else _MIN_LATE_S)


def held_throughout(lateness: float, switches: int, interval: float) -> bool:
    """Whether the GIL was held throughout a wait, as far as the kernel's count tells.

    A waiting thread sleeps once per switch interval. It is also woken, and sleeps again, when the
    GIL is dropped and taken back before it gets there, as fine alternation does.
    """
    return switches - 2 - lateness / interval <= 1.5


def estimate(
    samples: GilSamples,
    span: float,
    *,
    pending: float = 0.0,
    busy: float | None = None,
    others: float = 0.0,
    delayed: float = 0.0,
    load: float = 0.0,
) -> GilReading:
    """Turn the samples of ``span`` wall seconds into a reading, without clock or thread.

    ``pending`` are the seconds of a wait that is still going on; ``busy`` is the CPU share of the
    watched thread, ``others`` that of other threads that may run Python. ``delayed`` is the share
    of the time in which the watched thread was ready but got no core. The ``load``, in runnable
    threads per core, misleads where only lateness is known.
    """
    ticks, late, waited = samples.ticks, samples.late, samples.waited
    sampled, hits, squares = samples.weight, samples.weight_late, samples.weight_squares
    unsure = samples.startup_wait
    if pending > MIN_PENDING_S:
        unsure += pending
        ticks, late, waited = ticks + 1, late + 1, waited + pending
        weight = sampled / samples.ticks if samples.ticks else FIRST_MEAN_SLEEP_S
        sampled, hits, squares = sampled + weight, hits + weight, squares + weight * weight
    waited = min(waited, span)
    if span <= 0.0 or (ticks == 0 and waited < span / 2.0):
        return GilReading(ticks, late, None, 1.0, span)
    share = half = centre = 0.5
    if ticks:
        count = sampled * sampled / squares  # what as many ticks of equal weight would be
        share = hits / sampled
        # Wilson's interval stays honest when all or none of a few ticks were late.
        shrink = 1.0 + _Z * _Z / count
        centre = (share + _Z * _Z / (2.0 * count)) / shrink
        half = math.sqrt(share * (1.0 - share) / count + (_Z / (2.0 * count)) ** 2) * _Z / shrink
    held = (waited + (span - waited) * share) / span
    # A sleep cannot end while the sampler itself is on its way: alternation is seen a bit askew.
    error = (half + abs(centre - share) + 0.4 * share * (1.0 - share)) * (span - waited) / span
    if samples.guessed:
        # Short holds hide below the threshold, and a loaded machine wakes threads late.
        guessed = samples.guessed / ticks
        error += guessed * (0.5 * min(1.0, max(0.0, load - 0.9)) + min(0.2, 600 * _MIN_LATE_S))
    # The thread may have been kept waiting for a core with or without the GIL in its hands, and
    # where it was, so may the sampler have been: only ticks prove that the GIL was in its way.
    delayed = min(max(0.0, delayed), 0.98)
    doubt = min(min(unsure, _MAX_STARVED_S) / span, delayed) * (1.0 - max(0.0, centre - half))
    low = max(0.0, held - delayed - doubt) / (1.0 - delayed)
    high = min(1.0, held / (1.0 - delayed))
    held = min(held, high)
    if others > 0.0:
        # Others hold it for as long as they run at most, the watched thread as long as it runs.
        low = max(0.0, low - others)
        high = max(low, high if busy is None else min(high, busy / (1.0 - delayed)))
        held = (low + high) / 2.0
    error = min(1.0, error / (1.0 - delayed) + max(high - held, held - low, 0.0))
    return GilReading(ticks, late, held, error, span, delayed)


def mean_sleep(elapsed: float, forced: int) -> float:
    """Mean of the next sleep; it may depend on what was seen, for each tick has its weight.

    ``forced`` ticks took the GIL by force so far, 0 if the latest did not.
    """
    if forced:
        return min(_MAX_FORCED_MEAN_SLEEP_S, FIRST_MEAN_SLEEP_S * _FORCED_GROWTH ** min(forced, 10))
    return min(_LAST_MEAN_SLEEP_S, max(FIRST_MEAN_SLEEP_S, elapsed / 25.0))
