"""What a profiler concludes from what it is told: with a fake clock and a fake GIL sampler."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest

from parallax import SharedStateWarning
from parallax._core.chunks import ChunkResult
from parallax._core.plans import Measurement, Payload
from parallax._core.thread_clocks import ClockedThread
from parallax._profiling import caller_meter, history
from parallax._profiling.caller_meter import UNFINISHED_ITEM_S, CallerMeter
from parallax._profiling.gil_estimate import GilReading
from parallax._profiling.history import PastRun, key_of, past_run, remember_run
from parallax._profiling.worker_meter import WorkerMeter
from parallax._routing import profiler as profiler_module
from parallax._routing import route_limits
from parallax._routing.planner import Facts
from parallax._routing.profiler import (
    CLEAR_ERROR,
    LOADED_SHARE,
    MAX_UNCLEAR_S,
    MIN_ITEMS_BEFORE_THREADS,
    STALE_FACTOR,
    Profiler,
)
from parallax._routing.route_limits import RouteLimits

FACTS = Facts(cores=4)


def pure(x):
    return x


log: list[int] = []
total = 0


table: list[int] | None = None


def fills(x):
    global table
    if table is None:
        table = [1, 2, 3]
    return x


def collects(x):
    log.append(x)


def counts(x):
    global total
    total += x


class World:
    """The clocks, the kernel's run queue and the GIL, all set by hand."""

    def __init__(self):
        self.now = 100.0
        self.cpu = 10.0  # of the caller's thread
        self.process = 20.0
        self.delay = 0.0
        self.busy: float | None = 1.0
        self.reading = GilReading(50, 50, 1.0, 0.05, 0.1)
        self.samplers: list[FakeSampler] = []

    def item(self, profiler, wall, cpu=None, *, alone=True):
        """An item runs in the caller's thread."""
        cpu = wall if cpu is None else cpu
        profiler.caller.begin(self.now)
        self.now, self.cpu, self.process = self.now + wall, self.cpu + cpu, self.process + cpu
        profiler.caller.end(1, wall, cpu, alone=alone)


class FakeSampler:
    """Answers what the world says; samples when told to."""

    def __init__(self, world, on_sample):
        self.world, self.sample = world, on_sample
        self.stopped = False
        world.samplers.append(self)

    def start(self):
        pass

    def stop(self):
        self.stopped = True

    def mark(self):
        return SimpleNamespace(samples=SimpleNamespace(cpu=0.0))

    def reading(self):
        return self.world.reading

    def busy(self, since):
        return self.world.busy


class FakeDelay:
    def __init__(self, world):
        self.world = world

    def __call__(self):
        return self.world.delay

    def close(self):
        pass


@pytest.fixture
def world(monkeypatch):
    world = World()
    clocks = SimpleNamespace(
        perf_counter=lambda: world.now,
        thread_time=lambda: world.cpu,
        process_time=lambda: world.process,
    )
    monkeypatch.setattr(caller_meter, "time", clocks)
    monkeypatch.setattr(caller_meter, "GilSampler", lambda on, _: FakeSampler(world, on))
    monkeypatch.setattr(caller_meter, "RunDelay", lambda *_: FakeDelay(world))
    here = SimpleNamespace(current=lambda: ClockedThread(1, 1, world.cpu, world.delay))
    monkeypatch.setattr(caller_meter, "ClockedThread", here)
    monkeypatch.setattr(profiler_module, "gil_enabled", lambda: True)
    history._table.clear()
    yield world
    history._table.clear()


def started(fn=pure, *, guard=False, crowded=False):
    profiler = Profiler(fn, guard=guard, crowded=crowded)
    if guard:
        profiler.limits.inspect((1,))
    profiler.caller.start_sampler(lambda now: None)
    return profiler


def chunk(items, wall, cpu, delay=0.0):
    return ChunkResult([None] * items, (), wall, cpu, delay)


# -- items in the caller's thread ------------------------------------------------------------------


def test_nothing_is_known_at_first(world):
    profiler = started()
    assert profiler.measurement(world.now) is None
    assert profiler.plan(world.now, 100, FACTS) is None


def test_an_unfinished_item_is_looked_at_after_a_while(world):
    """From then on its time so far counts, and the share of it in which its thread worked."""
    profiler = started()
    profiler.caller.begin(world.now)
    assert profiler.measurement(world.now + 0.9 * UNFINISHED_ITEM_S) is None
    world.busy = 0.25
    seen = profiler.measurement(world.now + 0.1)
    assert (seen.items, seen.wall, seen.cpu) == (0, pytest.approx(0.1), pytest.approx(0.025))
    world.busy = None  # where that cannot be told it is taken to work
    assert profiler.measurement(world.now + 0.1).cpu == pytest.approx(0.1)
    profiler.caller.stop_sampler()
    assert profiler.measurement(world.now + 0.1) is None


def test_finished_items_are_averaged(world):
    profiler = started()
    for _ in range(4):
        world.item(profiler, 0.01, 0.004)
    seen = profiler.measurement(world.now)
    assert (seen.items, seen.held, seen.error) == (4, 1.0, 0.05)
    assert (seen.wall, seen.cpu) == (pytest.approx(0.01), pytest.approx(0.004))
    assert seen.waiting == pytest.approx(0.6)
    assert not seen.remembered


def test_items_beside_workers_do_not_count(world):
    profiler = started()
    world.item(profiler, 0.01)
    world.item(profiler, 0.5, alone=False)
    assert profiler.measurement(world.now).wall == pytest.approx(0.01)
    assert profiler.caller.wall == pytest.approx(0.51)


def test_time_without_a_core_is_not_waiting(world):
    """Half of the item's time no core was free: it worked all the time that it could."""
    profiler = started()
    profiler.caller.begin(world.now)
    world.delay += 0.005
    profiler.caller.end(1, 0.01, 0.005, alone=True)
    assert profiler.measurement(world.now).waiting == pytest.approx(0.0, abs=1e-6)
    # The same delay is not left out twice.
    profiler.caller.end(9, 0.09, 0.009, alone=True)
    assert profiler.measurement(world.now).waiting > 0.7


def test_time_without_a_core_is_not_waiting_when_nothing_is_sampled_any_more(world, monkeypatch):
    """After the verdict no sampler runs: a busy machine must not turn work into waiting."""
    monkeypatch.setattr(caller_meter, "thread_delay", lambda _: world.delay)
    profiler = started()
    world.item(profiler, 0.01)
    profiler.caller.stop_sampler()
    for _ in range(5):
        world.delay += 0.008
        world.item(profiler, 0.010, 0.002)
    assert profiler.measurement(world.now).waiting == pytest.approx(0.0, abs=0.01)
    for _ in range(50):
        world.item(profiler, 0.010, 0.002)
    assert profiler.measurement(world.now).waiting > 0.6


@pytest.mark.parametrize(
    ("cpu", "items_left", "facts", "pays"),
    [
        (0.01, 1000, FACTS, True),
        (0.01, 1000, replace(FACTS, process_start=math.inf), False),
        (0.01, 20, replace(FACTS, process_start=0.5), False),  # imports that take longer than that
        (0.001, 1000, FACTS, False),  # it waits
        (0.01, 1000, replace(FACTS, cores=1), False),
    ],
)
def test_workers_prepare_before_the_verdict_only_where_they_would_pay(
    world, cpu, items_left, facts, pays
):
    profiler = started()
    world.reading = GilReading(2, 1, 0.5, 0.5, 0.01)  # not clear yet
    for _ in range(3):
        world.item(profiler, 0.01, cpu)
    assert profiler.may_pay(world.now, items_left, facts) is pays


def test_workers_do_not_prepare_beside_native_threads_that_use_the_cores(world):
    profiler = started()
    world.item(profiler, 0.01)
    assert profiler.may_pay(world.now, 1000, FACTS)
    profiler.caller.native = 4.0
    assert not profiler.may_pay(world.now, 1000, FACTS)


def test_planning_in_the_samplers_thread_is_not_waiting(world):
    def think(now):
        world.now += 0.008

    profiler = Profiler(pure, guard=False)
    profiler.caller.start_sampler(think)
    profiler.caller.begin(world.now)
    world.samplers[0].sample(world.now)
    profiler.caller.end(1, 0.01, 0.002, alone=True)
    assert profiler.measurement(world.now).waiting == pytest.approx(0.0, abs=1e-6)


def test_native_threads_are_told_from_our_own_work(world):
    """The process uses four times the CPU time of the item; planning would look the same."""
    profiler = started()
    world.reading = GilReading(50, 0, 0.0, 0.05, 0.1)
    world.process += 0.3
    world.item(profiler, 0.1)
    assert profiler.measurement(world.now).native == pytest.approx(4.0)
    other = started()
    world.cpu += 0.3
    world.process += 0.3
    world.item(other, 0.1)
    assert other.measurement(world.now).native == pytest.approx(1.0)


def test_the_later_half_shows_the_trend(world):
    profiler = started()
    for n in range(1, 21):
        world.item(profiler, 0.001 * n)
    assert profiler.measurement(world.now).wall > 0.015


def test_a_long_item_that_has_not_ended_counts(world):
    profiler = started()
    for _ in range(3):
        world.item(profiler, 0.01)
    profiler.caller.begin(world.now)
    assert profiler.measurement(world.now + 0.015).wall == pytest.approx(0.01)
    assert profiler.measurement(world.now + 0.41).wall == pytest.approx(0.11)


def test_without_a_gil_nothing_is_held(world, monkeypatch):
    monkeypatch.setattr(profiler_module, "gil_enabled", lambda: False)
    profiler = started()
    world.item(profiler, 0.01)
    seen = profiler.measurement(world.now)
    assert (seen.held, seen.error) == (0.0, 0.0)


def test_a_stopped_sampler_leaves_its_reading(world):
    profiler = started()
    world.item(profiler, 0.01)
    profiler.caller.stop_sampler()
    assert world.samplers[0].stopped
    assert not profiler.caller.sampling
    world.reading = GilReading(50, 0, 0.0, 0.05, 0.1)
    assert profiler.measurement(world.now).held == 1.0


# -- workers ---------------------------------------------------------------------------------------


def test_the_reading_is_final_when_workers_begin(world):
    """What stays is the share of the CPU time; the times may change."""
    profiler = started()
    world.reading = GilReading(50, 25, 0.4, 0.05, 0.1)
    world.item(profiler, 0.01, 0.008)
    profiler.workers_begin(world.now)
    world.reading = GilReading(99, 99, 1.0, 0.0, 0.1)
    seen = profiler.measurement(world.now)
    assert (seen.held, seen.error) == (pytest.approx(0.4), 0.05)
    for _ in range(4):
        profiler.workers.add_chunk(chunk(5, 0.1, 0.05), threads=False, workers=2)
    seen = profiler.measurement(world.now)
    assert (seen.items, seen.wall, seen.cpu) == (20, pytest.approx(0.02), pytest.approx(0.01))
    assert seen.held == pytest.approx(0.25)
    profiler.workers_begin(world.now)  # only the first time counts
    assert profiler.caller.waiting == pytest.approx(0.2)


UNKNOWN = CallerMeter(crowded=False).cost()


@pytest.mark.parametrize(
    ("threads", "workers", "wall", "cpu", "waiting", "times"),
    [
        (False, 2, 0.4, 0.2, 0.0, (0.1, 0.05)),
        (True, 2, 0.4, 0.2, 0.0, (0.05, 0.05)),  # queued for the GIL
        (True, 2, 0.4, 0.2, 0.5, (0.1, 0.05)),  # waited as it did before
        (True, 2, 0.4, 0.04, 0.0, (0.1, 0.01)),  # threads that leave the cores idle wait
    ],
)
def test_what_workers_tell_of_an_item(threads, workers, wall, cpu, waiting, times):
    meter = WorkerMeter()
    meter.add_chunk(chunk(3, 0.75 * wall, 0.75 * cpu), threads=threads, workers=workers)
    assert meter.times(UNKNOWN, waiting) is None
    meter.add_chunk(chunk(1, 0.25 * wall, 0.25 * cpu), threads=threads, workers=workers)
    assert meter.times(UNKNOWN, waiting) == (4, *map(pytest.approx, times))
    even = UNKNOWN._replace(items=3, wall=1.0)
    assert meter.times(even, waiting) is None, "the caller's thread is better evidence"
    meter.add_chunk(chunk(1, 1.0, 1.0), threads=not threads, workers=workers)
    assert meter.times(UNKNOWN, waiting) is None, "another kind of worker begins anew"


def test_a_worker_without_a_core_did_not_wait():
    meter = WorkerMeter()
    meter.add_chunk(chunk(4, 0.4, 0.1, delay=0.3), threads=False, workers=2)
    assert meter.times(UNKNOWN, 0.0) == (4, pytest.approx(0.1), pytest.approx(0.1))


def test_what_sending_costs_is_corrected_by_what_it_took():
    meter = WorkerMeter()
    meter.add_encoding(1.0, 100)
    assert meter.payload is None
    meter.payload = Payload(10.0, 20.0, 0.5)
    meter.add_encoding(1.0, 100)
    assert meter.payload == Payload(10.0, 20.0, 0.01)


@pytest.mark.parametrize(
    ("items", "result", "threads", "seconds"),
    [
        ([0.01] * 3, chunk(5, 9.0, 9.0), True, 0.05),  # even: their number
        ([0.01, 0.03, 0.02, 0.09], chunk(5, 9.0, 0.1), True, 0.1),  # uneven: their CPU time
        ([], chunk(5, 0.9, 0.5), True, 0.5),
        ([], chunk(5, 0.9, 0.1), True, 0.9),  # they waited
        ([], chunk(5, 0.9, 0.5), False, 0.9),
    ],
)
def test_the_loop_seconds_of_a_chunk(world, items, result, threads, seconds):
    profiler = started()
    for wall in items:
        world.item(profiler, wall)
    assert profiler.caller.loop_seconds(result, threads=threads) == pytest.approx(seconds)


# -- the plan --------------------------------------------------------------------------------------


def test_an_unclear_reading_is_waited_for(world):
    """But not for long, and not where the items wait anyway; then it is taken for held."""
    world.reading = GilReading(2, 1, None, 1.0, 0.1)
    profiler = started()
    for _ in range(2):
        world.item(profiler, 0.005)
    assert profiler.plan(world.now, 1000, FACTS) is None
    assert profiler.plan(world.now, 1000, replace(FACTS, current="threads")) is not None
    world.reading = GilReading(2, 1, 0.5, CLEAR_ERROR + 0.01, 0.1)
    assert profiler.plan(world.now, 1000, FACTS) is None
    world.reading = GilReading(2, 1, 0.5, CLEAR_ERROR, 0.1)
    assert profiler.plan(world.now, 1000, FACTS) is not None
    world.reading = GilReading(2, 1, None, 1.0, 0.1)
    world.item(profiler, MAX_UNCLEAR_S)
    seen, plan = profiler.plan(world.now, 1000, FACTS)
    assert (seen.held, plan.route) == (1.0, "processes")


def test_time_without_a_core_reads_nothing(world):
    """On a busy machine items run for as long as on a free one before an unclear reading counts."""
    profiler = started()
    world.reading = GilReading(2, 1, None, 1.0, 0.1, delayed=0.75)
    for _ in range(3):
        world.item(profiler, MAX_UNCLEAR_S)
    assert profiler.plan(world.now, 1000, FACTS) is None
    world.item(profiler, 2 * MAX_UNCLEAR_S)
    assert profiler.plan(world.now, 1000, FACTS) is not None


@pytest.mark.parametrize(
    ("delayed", "looks", "route"),
    [
        (0.0, [1, 1], "processes"),
        (0.05, [1, 1], "processes"),
        (0.4, [1, 1], "loop"),  # it had to wait for a core, though nobody was seen
        (0.0, [5, 5], "loop"),
        (0.0, [None], "processes"),
    ],
)
def test_short_jobs_do_not_count_on_cores_that_others_use(
    world, monkeypatch, delayed, looks, route
):
    monkeypatch.setattr(profiler_module, "installed_cores", lambda: 4)
    profiler = started()
    for running in looks:
        monkeypatch.setattr(profiler_module, "running_threads", lambda running=running: running)
        profiler.look_around(1)
    world.reading = GilReading(50, 50, 1.0, 0.05, 0.1, delayed=delayed)
    for _ in range(4):
        world.item(profiler, 0.01)
    assert profiler.plan(world.now, 20, FACTS)[1].route == route
    assert profiler.plan(world.now, 1000, FACTS)[1].route == "processes"


@pytest.mark.parametrize(
    ("left", "facts", "limit", "hopeless"),
    [
        (1000, FACTS, "free", False),
        (2, FACTS, "free", True),  # what is left is less than any start
        (40, FACTS, "free", False),  # threads, if the GIL is free
        (40, replace(FACTS, cores=1), "free", True),
        (1000, FACTS, "loop", True),
        (1000, replace(FACTS, max_workers=1), "free", True),
    ],
)
def test_what_cannot_change_the_plan_is_not_measured(
    world, monkeypatch, left, facts, limit, hopeless
):
    """Sampling the GIL has a price: for nothing where the loop is best whatever it says."""
    profiler = started()
    world.reading = GilReading(2, 1, None, 1.0, 0.1)
    for _ in range(4):
        world.item(profiler, 0.001)
    if limit == "loop":
        monkeypatch.setattr(profiler.limits, "nested", True)
    found = profiler.plan(world.now, left, facts)
    assert (found is not None) is hopeless
    if found:
        assert (found[1].route, found[1].settled, found[0].held) == ("loop", True, None)


@pytest.mark.parametrize(
    ("first", "left", "wall", "known"),
    [
        (0.1, 1000, 1.0, False),  # it may have loaded something
        (0.1, 60, 1.0, True),  # the second of few items would be a large part of all
        (0.1, None, 1.0, True),
        (0.6, 1000, 1.0, True),
        (0.1, 1000, 0.01, True),  # threads that wait cost nothing
    ],
)
def test_the_first_of_many_items_does_not_speak_for_all(world, first, left, wall, known):
    profiler = started()
    world.item(profiler, first, first * wall)
    assert (profiler.plan(world.now, left, FACTS) is not None) is known
    world.reading = world.reading._replace(delayed=0.5)  # on a busy machine nor do the first three
    world.item(profiler, first / 10, first * wall / 10)
    assert (profiler.plan(world.now, left, FACTS) is not None) is known
    world.reading = world.reading._replace(delayed=0.0)
    assert profiler.plan(world.now, left, FACTS) is not None


@pytest.mark.parametrize("crowded", [False, True])
def test_waiting_needs_no_reading(world, crowded):
    """Except where other calls keep this process busy: queueing for the GIL looks the same."""
    world.reading = GilReading(2, 1, None, 1.0, 0.1)
    profiler = started(crowded=crowded)
    world.item(profiler, 0.01, 0.001)
    found = profiler.plan(world.now, 1000, FACTS)
    assert (found is None) is crowded
    assert crowded or found[1].route == "threads"


def test_queueing_behind_other_calls_is_not_waiting(world):
    profiler = started(crowded=True)
    world.process += 0.01
    world.item(profiler, 0.01, 0.001)
    assert profiler.measurement(world.now).waiting == 0.0
    profiler.workers_begin(world.now)
    world.now += 10.0  # later, threads of this very call are among those that work
    assert profiler.measurement(world.now).waiting == 0.0


def test_limits_and_speeds_reach_the_planner(world):
    profiler = started()
    profiler.observed_speeds["threads"] = 1.5
    profiler.limits.stay_reason = "no process is left"
    profiler.thread_cap = 64
    facts = profiler.facts_with_limits(FACTS)
    assert (facts.limit, facts.limit_reason) == ("process", "no process is left")
    assert (facts.observed, facts.thread_cap, facts.cores) == ({"threads": 1.5}, 64, 4)


def test_nothing_is_planned_while_items_are_watched(world, monkeypatch):
    """Until it is settled whether the state goes on changing; workers' items are not watched."""
    monkeypatch.setitem(globals(), "table", None)
    profiler = started(fills, guard=True)
    for _ in range(MIN_ITEMS_BEFORE_THREADS):
        world.item(profiler, 0.1)
    for _ in range(5):
        assert profiler.limits.watching
        assert profiler.plan(world.now, 100, FACTS) is None
        profiler.limits.before_item((1,))
        fills(1)
        world.item(profiler, 0.1)
        profiler.limits.after_item()
        seen = profiler.plan(world.now, 100, replace(FACTS, current="threads"))
        assert seen is not None
        if not profiler.limits.watching:
            break
    assert profiler.limits.verdict.limit == "free"
    assert profiler.limits.history == (True, False)
    assert profiler.plan(world.now, 100, FACTS)[1].route == "processes"


def test_side_effects_keep_a_callable_here(world):
    """Threads come into question after some items, and not on a loaded machine."""
    world.reading = GilReading(50, 0, 0.0, 0.01, 0.1)
    profiler = started()
    profiler.limits.stay_reason = "it appends"
    for _ in range(MIN_ITEMS_BEFORE_THREADS):
        assert profiler.plan(world.now, 100, FACTS) is None
        world.item(profiler, 0.1)
    assert profiler.plan(world.now, 100, FACTS)[1].route == "threads"
    world.reading = world.reading._replace(delayed=LOADED_SHARE + 0.01)
    assert profiler.plan(world.now, 100, FACTS)[1].route == "loop"


# -- limits ----------------------------------------------------------------------------------------


def test_limits(world):
    """The strictest counts, whatever is found out when."""
    limits = started().limits
    assert limits.verdict.limit == "free"
    limits.stay_reason = "a lock"
    assert (limits.verdict.limit, limits.verdict.reason) == ("process", "a lock")
    limits.nested = True
    assert limits.verdict.limit == "loop"
    assert "parallel calls" in limits.verdict.reason


def test_a_race_is_warned_of_once(world, monkeypatch):
    monkeypatch.setattr(route_limits, "_warned", set())
    for _ in range(2):
        profiler = started(counts, guard=True)
        for n in range(3):
            profiler.limits.before_item((n + 1,))
            counts(n + 1)
            profiler.limits.after_item()
        assert profiler.limits.verdict.limit == "loop"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            profiler.limits.warn()
            profiler.limits.warn()
        expected = [SharedStateWarning] if _ == 0 else []
        assert [each.category for each in caught] == expected


def test_without_the_guard_nothing_is_looked_at(world):
    limits = Profiler(collects, guard=False).limits
    limits.inspect((1,))
    assert limits.verdict.limit == "free"
    assert not limits.watching
    assert limits.history == ()


# -- earlier calls ---------------------------------------------------------------------------------

PAST = Measurement(items=40, wall=0.02, cpu=0.02, held=0.9, error=0.02)


def test_an_earlier_call_speaks_until_items_do(world):
    remember_run(key_of(pure), PastRun(PAST))
    profiler = started()
    seen = profiler.measurement(world.now)
    assert (seen.remembered, seen.wall, seen.held) == (True, 0.02, 0.9)
    world.reading = GilReading(0, 0, None, 1.0, 0.1)
    world.item(profiler, 0.01)
    seen = profiler.measurement(world.now)
    assert (seen.remembered, seen.wall, seen.held) == (False, pytest.approx(0.01), 0.9)
    world.reading = GilReading(50, 0, 0.0, 0.01, 0.1)
    assert profiler.measurement(world.now).held == 0.0, "a clear reading is better"


@pytest.mark.parametrize("factor", [1.1 * STALE_FACTOR, 1 / (1.1 * STALE_FACTOR)])
def test_an_earlier_call_that_was_unlike_this_is_dropped(world, factor):
    remember_run(key_of(pure), PastRun(PAST))
    profiler = started()
    world.reading = GilReading(0, 0, None, 1.0, 0.1)
    world.item(profiler, 0.02 * factor)
    assert profiler.measurement(world.now).held is None
    assert profiler.past_run is None


def test_what_is_remembered(world):
    profiler = started()
    world.item(profiler, 0.01)
    profiler.workers.payload = Payload(1.0, 1.0)
    profiler.remember(profiler.measurement(world.now))
    kept = past_run(key_of(pure))
    assert (kept.measurement.items, kept.measurement.payload) == (1, None)


@pytest.mark.parametrize(("speed", "known"), [(0.9, True), (1.9, False)])
def test_threads_that_brought_nothing_are_not_tried_again(world, speed, known):
    profiler = started()
    world.item(profiler, 0.01)
    profiler.observed_speeds["threads"] = speed
    profiler.remember(profiler.measurement(world.now))
    again = started()
    assert again.observed_speeds == ({"threads": speed} if known else {})
    again.remember(again.measurement(world.now))
    assert started().observed_speeds == again.observed_speeds, "a call without threads forgot it"
    world.item(again, 0.01 * 1.1 * STALE_FACTOR)
    again.measurement(world.now)
    assert not again.observed_speeds, "that was seen with items unlike these"


@pytest.mark.parametrize("why", ["nothing", "unfinished", "nested", "crowded", "loaded"])
def test_what_is_not_remembered(world, why):
    profiler = started(crowded=why == "crowded")
    if why == "unfinished":
        profiler.caller.begin(world.now)
        world.now += 1.0
    elif why != "nothing":
        world.item(profiler, 0.01)
    profiler.limits.nested = why == "nested"
    if why == "loaded":
        world.reading = world.reading._replace(delayed=2 * LOADED_SHARE + 0.01)
    profiler.remember(profiler.measurement(world.now))
    assert past_run(key_of(pure)) is None


def test_threads_wait_for_a_look_at_an_item_that_runs():
    """Not for ever: the thread that looks may not come."""
    limits = route_limits.RouteLimits(pure, ())
    assert not limits.blind  # no items: what an earlier call has shown holds
    limits.before_block()
    assert limits.blind
    limits.after_block()
    limits.glance()  # between two items nothing is to be seen
    assert limits.blind
    limits.before_block()
    limits.glance()
    assert not limits.blind
    assert limits.verdict.limit == "free"
    late = route_limits.RouteLimits(pure, ())
    for _ in range(route_limits.MAX_BLIND_BLOCKS):
        late.before_block()
        late.after_block()
    assert not late.blind


def test_what_an_item_swaps_while_it_runs(monkeypatch):
    """Threads would take it from each other."""
    limits = route_limits.RouteLimits(pure, ())
    limits.before_block()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", None)
        limits.glance()
    limits.after_block()
    assert (limits.blind, limits.verdict.limit) == (False, "apart")


def test_a_cache_that_unwatched_items_may_have_filled():
    """It does not keep the callable here once items are seen to leave it alone."""
    cache = {}

    def fn(item):
        if item > 0 and "table" not in cache:
            cache["table"] = [item]
        return cache["table"]

    for begun, limit in ((False, "process"), (True, "free")):
        limits = RouteLimits(fn, ())
        if begun:
            limits.begun(None)
        limits.inspect((1,))
        cache["table"] = [1]
        for _ in range(3):
            limits.before_item((1,))
            limits.after_item()
        assert limits.verdict.limit == limit


def test_what_only_the_caller_can_see():
    """Values of thread-local objects; nothing else."""
    mine, other = threading.local(), {}
    assert RouteLimits(lambda x: mine.value + x, ()).find_one_thread()
    assert not RouteLimits(lambda x: other[x], ()).find_one_thread()


class Passes:
    """Passes calls on, as the batches of joblib and many wrappers do."""

    def __init__(self, **held):
        vars(self).update(held)

    def __call__(self):
        return None


def test_objects_that_pass_calls_on_are_told_apart():
    """By what they call; not for ever, as two may pass calls on to each other."""
    batches = [Passes(items=[(fn, (1,), {}), (counts, (2,), {})]) for fn in (pure, fills, pure)]
    keys = list(map(key_of, batches))
    assert keys[0] == keys[2] != keys[1]
    assert key_of(Passes(func=pure)) == key_of(Passes(func=pure)) != key_of(Passes(func=fills))
    assert key_of(Passes(func=Passes(func=pure))) != key_of(Passes(func=Passes(func=fills)))
    alike = Passes(), Passes(items=[]), Passes(items=[1]), Passes(func=3), Passes(items=[()])
    assert len({key_of(each) for each in alike}) == 1
    loop = Passes()
    loop.func = loop
    assert hash(key_of(loop))
