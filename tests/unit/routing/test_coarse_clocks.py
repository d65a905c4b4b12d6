"""Decisions on clocks that move in steps of 15.6 ms, as the CPU clocks of Windows do.

The wall clock of Windows is fine; a coarse one is tried as well, for what must never happen.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from helpers.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._core import thread_clocks
from parallax._core.chunks import ChunkResult
from parallax._core.plans import Measurement
from parallax._profiling import caller_meter, gil_sampler
from parallax._profiling.gil_estimate import GilReading, GilSamples
from parallax._profiling.gil_sampler import Mark
from parallax._profiling.meters import CoresMeter
from parallax._routing import profiler as profiler_module
from parallax._routing.planner import Facts, plan
from parallax._routing.profiler import Profiler
from parallax._routing.route_choice import RouteChoice, ThreadGrowth
from parallax._routing.throughput import RouteThroughput

TICK = 1 / 64
FACTS = Facts(cores=4, process_start=0.1)

ITEM_SECONDS = st.sampled_from([0.0003, 0.001, 0.003, 0.007, 0.016, 0.05, 0.4])
PHASES = st.floats(0.0, TICK, exclude_max=True)


class Clocks:
    """The clocks of one thread that computes for a share of its time."""

    def __init__(self, phase: float, share: float, *, coarse_wall: bool):
        self.true_now, self.true_cpu, self.share = 1000.0 + phase, 50.0 + phase, share
        self.coarse_wall = coarse_wall

    def spend(self, seconds):
        self.true_now += seconds
        self.true_cpu += seconds * self.share

    def now(self):
        return self.true_now // TICK * TICK if self.coarse_wall else self.true_now

    def cpu(self):
        return self.true_cpu // TICK * TICK


@pytest.fixture(autouse=True)
def _ticks(monkeypatch):
    for module in (caller_meter, gil_sampler):
        monkeypatch.setattr(module, "clock_tick", lambda: TICK)
    monkeypatch.setattr(profiler_module, "gil_enabled", lambda: True)


def profile(clocks: Clocks, item: float, seconds: float, reading: GilReading):
    """The plans of a call whose items run in the caller's thread for that long."""
    session = SimpleNamespace(
        hindered=lambda: 0.0,
        native_threads=lambda cpu: None,
        sampler=SimpleNamespace(
            mark=lambda: None, reading=lambda: reading, busy=lambda since: None
        ),
        stop=lambda: None,
    )
    profiler = Profiler(len, guard=False)
    profiler.past_run = None
    profiler.caller._session = session
    end, look, plans = clocks.true_now + seconds, 0.0, []
    while clocks.true_now < end:
        profiler.caller.begin(clocks.now())
        wall, cpu = clocks.now(), clocks.cpu()
        clocks.spend(item)
        profiler.caller.end(1, clocks.now() - wall, clocks.cpu() - cpu, alone=True)
        clocks.spend(item / 100)
        if clocks.true_now > look:
            look = clocks.true_now + 0.004
            found = profiler.plan(clocks.now(), 1000, FACTS)
            if found is not None:
                plans.append(found)
    return plans


@settings(max_examples=examples(40))
@given(ITEM_SECONDS, PHASES, st.booleans())
def test_computing_is_never_taken_for_waiting(item, phase, coarse_wall):
    held = GilReading(40, 40, 1.0, 0.1, 0.1)
    clocks = Clocks(phase, 1.0, coarse_wall=coarse_wall)
    for seen, chosen in profile(clocks, item, max(0.3, 3 * item), held):
        assert chosen.route != "threads"
        assert seen.waiting < 0.75
        assert all(math.isfinite(cost) and cost >= 0 for cost in chosen.costs.values())


@settings(max_examples=examples(40))
@given(ITEM_SECONDS, PHASES, st.booleans())
def test_waiting_is_found_out_in_time(item, phase, coarse_wall):
    free = GilReading(40, 0, 0.0, 0.1, 0.1)
    clocks = Clocks(phase, 0.0, coarse_wall=coarse_wall)
    seen, chosen = profile(clocks, item, max(0.4, 3 * item), free)[-1]
    assert chosen.route == "threads" or seen.wall * 1000 < 0.2
    assert seen.waiting > 0.9 or seen.wall == 0


@settings(max_examples=examples(30))
@given(st.sampled_from([0.0005, 0.001, 0.003, 0.007, 0.03, 0.2]), PHASES, st.sampled_from([0, 1]))
def test_calls_that_compute_stay_in_processes_and_those_that_wait_leave(item, phase, share):
    """A step that a call, or the encoding of one, happens to meet decides nothing."""
    calls, sending = (
        Clocks(phase, share, coarse_wall=False),
        Clocks(phase / 2, 1, coarse_wall=False),
    )
    choice = RouteChoice("fn", cores=4, workers=4, tick=TICK)
    choice.decide("processes", "it holds the lock", calls.now())
    for _ in range(600):
        before = sending.cpu()
        sending.spend(0.00005)
        choice.sent(sending.cpu() - before)
        cpu = calls.cpu()
        calls.spend(item)
        choice.took(item, calls.cpu() - cpu, calls.now())
        choice.review(calls.now())
    assert (choice.route, choice.changes) == (("processes", 0) if share else ("threads", 1))


@settings(max_examples=examples(30))
@given(st.sampled_from([0.001, 0.004, 0.03]), PHASES, st.sampled_from([1.0, 4.0]))
def test_threads_that_share_a_core_are_told_from_those_that_have_their_own(item, phase, cores):
    """What four threads get between them, on a clock that shows it in steps."""
    choice = RouteChoice("fn", cores=4, workers=4, tick=TICK)
    choice.decide("threads", "so", 0.0)
    clocks = [Clocks((phase + k * TICK / 5) % TICK, cores / 4, coarse_wall=False) for k in range(4)]
    before = []
    for k in range(4):
        choice.began(k, 0.0)
        before.append(clocks[k].cpu())
    turn = 0
    while choice.route == "threads" and turn < 1.5 / item:
        turn += 1
        for k, clock in enumerate(clocks):
            clock.spend(item)
            now = turn * item + k * item / 100
            choice.took(item, clock.cpu() - before[k], now, k)
            choice.review(now)
            choice.began(k, now)
            before[k] = clock.cpu()
    assert choice.route == ("threads" if cores == 4.0 else "processes")


STEPS = st.integers(0, 3).map(lambda n: n * TICK)


@given(
    st.lists(st.tuples(STEPS, STEPS, st.integers(1, 3)), max_size=30), STEPS, st.integers(0, 100)
)
def test_nothing_divides_by_a_time_that_shows_as_none(events, under_way, left):
    """Throughput, cores, growth and the plan, on times most of which are 0."""
    speeds = RouteThroughput(0.0, 1, 1, 0.0)
    cores, growth, now = CoresMeter(), ThreadGrowth(2, 64), 0.0
    wall = cpu = 0.0
    items = 0
    for pause, seconds, count in events:
        now += pause
        cores.started(count, now)
        now += seconds
        wall, cpu, items = wall + seconds, cpu + seconds, items + count
        cores.finished(count, now, cpu)
        cores.cores(now)
        speeds.add(now, ChunkResult([None] * count, (), seconds, seconds), seconds)
        speed = speeds.speed(now, under_way, 0.0)
        assert speed is None or (speed > 0 and math.isfinite(speed))
        growth.ended(now, count)
        seen = Measurement(items=items, wall=wall / items, cpu=cpu / items, held=1.0, error=0.0)
        observed = {} if speed is None else {"threads": speed, "processes": speed}
        chosen = plan(seen, left, Facts(cores=4, observed=observed))
        assert all(math.isfinite(cost) and cost >= 0 for cost in chosen.costs.values())


@given(STEPS, STEPS, STEPS)
def test_a_share_of_the_cpu_is_one_and_never_too_little(span, used, phase):
    """What one step may have hidden counts as work."""
    first = Mark(phase, GilSamples(), math.inf, 0.0, 0.0, None)
    busy = gil_sampler._busy(first, phase + span, used)
    assert busy is None or 0.0 < busy <= 1.0
    assert busy is None or busy >= min(1.0, used / span)


def test_the_step_of_windows_is_known_better_than_it_says(monkeypatch):
    monkeypatch.setattr(thread_clocks, "sys", SimpleNamespace(platform="win32"))
    assert thread_clocks.clock_tick() >= TICK
