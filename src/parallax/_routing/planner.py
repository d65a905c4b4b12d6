"""The choice of route: a pure function from what was seen to what will be done.

Purpose: predict, for the loop, for n threads and for n processes, the seconds that the items left
would take, and choose the least; say why in words.
Guarantees: no clock, no I/O, no state; a speed that was observed in this run replaces the
prediction for that route.

Threads are a closed queueing network with n customers (exact mean value analysis, Reiser and
Lavenberg 1980): one station with a queue, the GIL; and two delays, work outside it and waiting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from parallax._core.chunks import Route
from parallax._core.plans import Measurement, Plan
from parallax._core.records import field, record
from parallax._shm.buffers import MIN_SHARED_BYTES

#: A parallel route must promise this much less than the loop, relative and in seconds. Smaller
#: starts workers for nothing, larger leaves cores idle.
MIN_GAIN = 0.9
MIN_GAIN_S = 0.003

#: Processes must promise this much less than threads, which need no start and no copies.
MIN_PROCESS_GAIN = 0.93

#: What workers must gain besides their start, as starts are foreseen worst: a part of its seconds,
#: and so many seconds of it. Of 59 jobs of 0.1 to 0.4 s half of those whose workers gained less
#: were slower than the loop.
START_DOUBT, START_DOUBT_S = 0.5, 0.04

#: Seconds of work that no worker is started for.
LITTLE_WORK_S = 0.015

#: How much dearer the present route must be to be left: by prediction against prediction, and,
#: once it was seen at work, by what was seen against a mere prediction.
SWITCH_FACTOR = 1.1
SEEN_SWITCH_FACTOR = 1.5

#: Seconds to start a thread, and to hand a chunk to a thread or process (both sides, amortized).
THREAD_START_S = 1e-4
DISPATCH_S = 1e-4

#: CPU seconds of work left up to which cores that others use are not counted on. Smaller starts
#: workers for jobs that are done before these got a core, larger has long ones wait for theirs.
DOUBTFUL_WORK_S = 0.25

#: Share of a full core that a worker process delivers: the caller's thread needs some.
PROCESS_SHARE = 0.96

#: Bytes per second through a socket, both sides together.
SOCKET_BYTES_PER_S = 1.2e9

#: Bytes per second through shared memory: between that of slabs that are used again (15e9) and of
#: fresh memory (3e9).
SHARED_BYTES_PER_S = 6e9

#: Threads are added while each adds at least this part of its own speed.
SUFFICIENT_RATE_SHARE = 0.97

#: Growth of the rate by one more thread below which no more are looked at.
MORE_THREADS = 1.002

#: Half-width of the GIL reading above which it is only a guess.
MAX_SURE_ERROR = 0.3


@record(frozen=True, slots=True)
class Facts:
    """What the planner has to know besides the measurement."""

    cores: int
    #: the caller's limit on workers, None for our choice.
    max_workers: int | None = None
    #: most threads for waiting work; grows while more threads bring more.
    thread_cap: int = 32
    #: "free", "apart" (not in threads), "process" (stay in this process) or "loop", and why.
    limit: str = "free"
    limit_reason: str = ""
    #: seconds until worker processes take work, 0 if they are up; and those of them in which the
    #: caller's thread prepares the start and runs no items.
    process_start: float = 0.0
    process_hold: float = 0.0
    #: routes that the caller allows.
    allowed: frozenset[Route] = frozenset({"loop", "threads", "processes"})
    #: what one piece of work is called in reasons.
    noun: str = "item"
    #: cores that other programs leave, or below 1 the part of one, as far as that was seen.
    free: float = math.inf
    #: the route in use: the others must promise more than a little to replace it.
    current: Route = "loop"
    #: routes seen at work in this run: loop seconds done per second.
    observed: Mapping[Route, float] = field(default_factory=dict)


def plan(seen: Measurement, remaining: int | None, facts: Facts) -> Plan:
    """Choose the route for the items left; None of them is taken as "as many as were done"."""
    route, count, costs = best_route(seen, remaining, facts)
    sure = seen.held is not None and seen.error <= MAX_SURE_ERROR
    settled = sure or seen.waiting > 0.9 or bool(facts.observed)
    return Plan(route, count, _reason(seen, route, count, costs, facts), costs, remaining, settled)


def best_route(
    seen: Measurement, remaining: int | None, facts: Facts
) -> tuple[Route, int, dict[Route, float]]:
    """The best route, its workers, and the seconds that each route would take, without words."""
    left = max(1, seen.items) if remaining is None else remaining
    costs: dict[Route, float] = {"loop": left * seen.wall}
    workers: dict[Route, int] = {"loop": 1}
    if facts.max_workers != 1:
        if "threads" in facts.allowed and facts.limit in ("free", "process"):
            costs["threads"], workers["threads"] = _threads(seen, left, facts)
        if "processes" in facts.allowed and facts.limit in ("free", "apart"):
            costs["processes"], workers["processes"] = _processes(seen, left, facts)
    route = _choose(costs, facts)
    return route, workers[route], costs


def hindsight(
    seen: Measurement, items: int, facts: Facts, route: Route, workers: int
) -> tuple[dict[Route, float], str]:
    """What a whole run would have cost by each route, and why the one taken was right or not."""
    best = plan(seen, items, facts)
    if route == "loop" != best.route:
        text = (
            f"{nature(seen, facts.noun)}; only afterwards it was clear that {best.workers} "
            f"{'threads' if best.route == 'threads' else 'worker processes'} would have been faster"
        )
        return best.costs, text
    return best.costs, _reason(seen, route, workers, best.costs, facts)


def _choose(costs: Mapping[Route, float], facts: Facts) -> Route:
    best: Route = "loop"
    cost = costs["loop"]
    for route in ("threads", "processes"):
        bar = cost * (MIN_GAIN if best == "loop" else MIN_PROCESS_GAIN)
        if best == "loop":
            start = facts.process_start if route == "processes" else 0.0
            doubt = max(START_DOUBT * start, min(start, START_DOUBT_S))
            bar = min(bar, cost - max(MIN_GAIN_S, doubt))
        if route in costs and costs[route] < bar:
            best, cost = route, costs[route]
    current = facts.current
    # What the loop takes was measured as well.
    guess = current in facts.observed and best != "loop"
    bar = SEEN_SWITCH_FACTOR if guess else SWITCH_FACTOR
    if best != current and current in costs and costs[current] < cost * bar:
        return current  # not worth the change
    return best


def thread_rates(seen: Measurement, cores: float, most: int) -> list[float]:
    """Items per second with 1, 2, ... threads, ``most`` at most: half way between two models.

    Mean value analysis (Reiser and Lavenberg 1980) has threads ask for the GIL at random moments.
    Even items ask together, and then leave it together: each round takes all their turns.
    """
    # The upper end of the reading: threads that take turns only cost, and change the order of
    # side effects, so they must be worth it for certain.
    held = seen.cpu if seen.held is None else min((seen.held + seen.error) * seen.wall, seen.cpu)
    other = max(0.0, seen.wall - held)
    ceiling = cores / (seen.cpu * seen.native) if seen.cpu > 0 else math.inf
    rates: list[float] = []
    queue = 0.0
    for n in range(1, most + 1):
        at_gil = held * (1.0 + queue)
        queue = n * at_gil / max(at_gil + other, 1e-9)
        rate = n / max((at_gil + n * held) / 2 + other, 1e-9)
        rates.append(min(rate, max(ceiling, 1.0 / max(seen.wall, 1e-9))))
        if n > cores and rates[-1] < MORE_THREADS * rates[-2]:
            break
    return rates


def _cores(seen: Measurement, left: int, facts: Facts) -> float:
    """The cores that items may be expected to get."""
    # Where a thread gets part of a core, its items seem to take as much longer.
    doubtful = left * seen.cpu * min(1.0, facts.free) < DOUBTFUL_WORK_S
    return max(1.0, min(facts.cores, facts.free)) if doubtful else facts.cores


def _threads(seen: Measurement, left: int, facts: Facts) -> tuple[float, int]:
    cap = facts.max_workers if facts.max_workers is not None else facts.thread_cap
    most = max(1, min(cap, left))
    first, *others = thread_rates(seen, _cores(seen, left, facts), most)
    rates = [first, *(rate / seen.contention for rate in others)]
    best = max(rates)
    count = next(n for n, rate in enumerate(rates, 1) if rate >= SUFFICIENT_RATE_SHARE * best)
    if not seen.items and seen.waiting > 0.8:
        count = most  # an item that is still waiting can only turn out to wait more
    rate = rates[min(count, len(rates)) - 1]
    speed = facts.observed.get("threads")
    if speed is not None:
        rate = speed / max(seen.wall, 1e-9)
    start = THREAD_START_S * count if facts.current != "threads" else 0.0
    return start + _duration(rate, left, count, seen), count


def _processes(seen: Measurement, left: int, facts: Facts) -> tuple[float, int]:
    cap = facts.max_workers if facts.max_workers is not None else facts.cores
    count = max(1, min(cap, left))
    payload = seen.payload
    moved = _moving(payload.bytes_in) + _moving(payload.bytes_out) if payload else 0.0
    # Encoding and decoding costs this process about what it costs the worker.
    coding = payload.seconds if payload else 0.0
    parent = coding + moved / 2
    once = _moving(payload.callable_bytes) if payload else 0.0
    if payload and payload.callable_bytes < MIN_SHARED_BYTES:
        once *= count  # each worker is sent its own
    once += payload.once if payload else 0.0
    per_item = seen.wall + moved + coding
    work = seen.cpu * seen.native + 2 * coding
    rate = min(
        count * PROCESS_SHARE / max(per_item, 1e-9),
        _cores(seen, left, facts) * PROCESS_SHARE / work if work > 0 else math.inf,
        1.0 / parent if parent > 0 else math.inf,
    )
    speed = facts.observed.get("processes")
    if speed is not None:
        rate = speed / max(seen.wall, 1e-9)
    start = facts.process_start + once
    # While they start, the caller goes on by itself.
    meanwhile = min(float(left), (start - facts.process_hold) / max(seen.wall, 1e-9))
    rest = left - meanwhile
    if rest <= 0:
        return facts.process_hold + left * seen.wall + DISPATCH_S, count
    return start + DISPATCH_S + _duration(rate, rest, count, seen), count


def _moving(nbytes: float) -> float:
    """Seconds to move so many bytes to or from a worker."""
    return nbytes / (SHARED_BYTES_PER_S if nbytes >= MIN_SHARED_BYTES else SOCKET_BYTES_PER_S)


def _duration(rate: float, left: float, count: int, seen: Measurement) -> float:
    """Seconds that so many workers take at this rate for the items left."""
    if left >= 8 * count or seen.spread > 0.5:
        return left / rate
    # Even and few items come in whole rounds: five on two threads take three.
    return math.ceil(left / count) * count / rate


# -- words -----------------------------------------------------------------------------------------

GIL = "Python's global lock (GIL)"


def seconds(value: float) -> str:
    """A duration as a person would say it, of so many seconds."""
    if value >= 10:
        return f"{value:.0f} s"
    if value >= 1:
        return f"{value:.2g} s"
    if value >= 1e-3:
        return f"{value * 1e3:.2g} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"
    if value >= 1e-6:
        return f"{value * 1e6:.2g} us" if value < 1e-4 else f"{value * 1e6:.0f} us"
    return f"{value * 1e9:.0f} ns"


def nature(seen: Measurement, noun: str = "item") -> str:
    """What an item does with its time, in words; ``noun`` is what an item is called."""
    each = f"{'an' if noun == 'item' else 'a'} {noun} takes {seconds(seen.wall)}"
    if not seen.items and not seen.remembered:
        each = f"the first {noun} has taken {seconds(seen.wall)} so far"
    if seen.waiting > 0.9:
        return f"{each}, nearly all of it waiting (using no CPU)"
    if seen.native > 1.4:
        return f"{each} and keeps {seen.native:.1f} cores busy by itself, with native threads"
    wait = f", {seen.waiting:.0%} of it waiting" if seen.waiting > 0.15 else ""
    if seen.held is None or seen.error > MAX_SURE_ERROR:
        return f"{each}{wait}; how much of it holds {GIL} is not clear yet"
    if wait and seen.held <= 0.85:
        each += f"{wait},"
    if seen.held < 0.1:
        return f"{each} and leaves {GIL} free {1 - seen.held:.0%} of the time"
    return f"{each} and holds {GIL} {seen.held:.0%} of the time"


def too_little(seen: Measurement, items: int) -> str:
    """Why a run of so many items had too little work for workers."""
    whole = seconds(seen.wall * items)
    return f"an item takes {seconds(seen.wall)}, {whole} in all: workers would take longer to start"


def _reason(
    seen: Measurement, route: Route, count: int, costs: Mapping[Route, float], facts: Facts
) -> str:
    text = nature(seen, facts.noun)
    stay = f"worker processes are not used because {facts.limit_reason}"
    if route == "loop":
        if facts.limit == "loop":
            return f"{text}; {facts.noun}s run one after the other because {facts.limit_reason}"
        if facts.limit == "process" and "processes" not in costs:
            return f"{text}; threads would not be faster, and {stay}"
        if seen.native > 1.4:
            return f"{text}, so more workers would only share the same cores"
        if facts.max_workers == 1:
            return f"{text}; max_workers=1 allows one worker only"
        if facts.cores == 1:
            return f"{text}; only one core is available"
        loop = costs["loop"]
        others = min((c for r, c in costs.items() if r != "loop"), default=loop)
        if facts.noun == "call":
            return f"{text}; worker processes would not be clearly faster"
        return (
            f"{text}; workers would not be clearly faster: about {seconds(others)}, "
            f"a plain loop {seconds(loop)}"
        )
    speed = facts.observed.get("threads")
    if route == "threads":
        if seen.waiting > 0.5:
            return f"{text}, so {count} threads wait at the same time"
        if speed is not None:
            return f"{text}; {count} threads were seen to be {speed:.1f} times as fast as a loop"
        text = f"{text}, so {count} threads run at the same time"
        return text if facts.limit == "free" else f"{text}; {stay}"
    if speed is not None:
        return (
            f"{text}; threads were seen to be only {speed:.1f} times as fast as a loop, "
            f"so {count} worker processes are used"
        )
    if seen.contention > 1.0:
        return (
            f"{text}, but {seen.contention:.1f} times as much CPU time beside other threads, which "
            f"use the same objects or locks; {count} worker processes run at the same time"
        )
    if "threads" not in costs:
        return f"{text}; {count} worker processes run at the same time"
    if seen.held is None or seen.error > MAX_SURE_ERROR:
        return f"{text}, but {count} worker processes run at the same time in any case"
    return (
        f"{text}, so threads would run one after the other; "
        f"{count} worker processes run at the same time"
    )
