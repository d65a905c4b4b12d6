"""Routes without a GIL, on machines that are made up: threads that help, that hinder each other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax._core.chunks import ChunkResult
from parallax._core.plans import Measurement
from parallax._profiling import history
from parallax._profiling.contention import (
    MAX_COMPARED_CHUNKS,
    MIN_COMPARED_CHUNKS,
    ContentionMeter,
)
from parallax._profiling.history import PastRun, key_of, remember_run
from parallax._profiling.meters import ItemMeter
from parallax._routing import profiler as profiler_module
from parallax._routing import route_choice
from parallax._routing.planner import Facts, plan
from parallax._routing.profiler import MAX_UNCLEAR_S, MIN_ITEMS_ALONE, Profiler
from parallax._routing.route_choice import RouteChoice
from parallax._routing.throughput import RouteThroughput


def pure(x):
    return x


@pytest.fixture
def gil(monkeypatch):
    """Off; set its first entry to switch it on."""
    state = [False]
    monkeypatch.setattr(profiler_module, "gil_enabled", lambda: state[0])
    history._table.clear()
    yield state
    history._table.clear()


def alone(profiler, *seconds):
    """Items in the caller's thread."""
    for each in seconds:
        profiler.caller.begin(0.0)
        profiler.caller.end(1, each, each, alone=True)


def beside(seconds, items=1):
    return ChunkResult([None] * items, (), seconds, seconds)


class Machine:
    """A run on so many cores, where an item on a thread takes ``factor`` times as long."""

    def __init__(self, profiler, factor, cores, spread=0.0):
        self.profiler, self.factor, self.cores, self.spread = profiler, factor, cores, spread
        self.now, self.random = 100.0, random.Random(3)
        self.restart()

    def restart(self):
        self.throughput = RouteThroughput(self.now, self.cores, self.cores, 0.0)

    def threads(self, seconds, chunks):
        """All threads run chunks of one item, as the controller hears of it."""
        for _ in range(chunks):
            each = seconds * self.factor * self.random.uniform(1 - self.spread, 1 + self.spread)
            self.now += each / self.cores
            result = beside(each)
            self.profiler.workers.add_chunk(result, threads=True, workers=self.cores)
            self.throughput.correct(self.profiler.ran_beside(result))
            equivalent = self.profiler.loop_seconds(result, threads=True)
            self.throughput.add(self.now, result, equivalent)
            speed = self.throughput.speed(self.now, 0.0, 0.0)
            if speed is not None:
                self.profiler.observed_speeds["threads"] = speed


@pytest.mark.parametrize("spread", [0.0, 0.4])
@pytest.mark.parametrize(
    ("factor", "cores", "limit", "route"),
    [
        (1.0, 4, "free", "threads"),
        (1.0, 4, "process", "threads"),
        (1.2, 4, "free", "threads"),  # caches, two threads on one core: processes have that, too
        (3.0, 4, "free", "processes"),
        (8.0, 4, "free", "processes"),
        (2.5, 4, "process", "threads"),  # less than they could, and more than the loop
        (8.0, 4, "process", "loop"),
        (2.6, 2, "free", "processes"),
        (2.6, 2, "process", "loop"),
    ],
)
def test_routes_that_were_seen(gil, factor, cores, limit, route, spread):
    profiler = Profiler(pure, guard=False)
    facts = Facts(cores=cores, limit=limit, limit_reason="it keeps a file open")
    items = [0.01 * (1 + spread * (-1) ** n) for n in range(8)]
    alone(profiler, *items)
    profiler.limits.stay_reason = "" if limit == "free" else facts.limit_reason
    _, first = profiler.plan(100.0, 1000, facts)
    assert first.route == "threads"
    profiler.workers_begin(100.0)
    machine = Machine(profiler, factor, cores, spread)
    machine.threads(0.01, 200)
    _, found = profiler.plan(machine.now, 1000, profiler_module.replace(facts, current="threads"))
    assert found.route == route, found
    if factor > 2 and route == "processes":
        assert "as fast as a loop" in found.reason or "beside other threads" in found.reason
    # The next call knows.
    profiler.remember(profiler.measurement(machine.now))
    again = Profiler(pure, guard=False)
    again.limits.stay_reason = profiler.limits.stay_reason
    _, next_time = again.plan(200.0, 1000, facts)
    assert next_time.route == route


@pytest.mark.parametrize("seconds", [0.001, 0.01])
def test_some_items_run_alone_first(gil, seconds):
    """Else nobody could tell later whether threads hinder each other."""
    profiler, facts = Profiler(pure, guard=False), Facts(cores=4)
    for _ in range(MIN_ITEMS_ALONE):
        assert profiler.plan(100.0, 1000, facts) is None
        alone(profiler, seconds)
    assert profiler.plan(100.0, 1000, facts)[1].route == "threads" or seconds < 0.01


def test_long_items_do_not_wait_for_that(gil):
    profiler = Profiler(pure, guard=False)
    alone(profiler, MAX_UNCLEAR_S * 1.5)
    assert profiler.plan(100.0, 60, Facts(cores=4))[1].route == "threads"


def test_a_gil_that_comes_back(gil):
    """An import has switched it on: what was seen of threads does not count any more."""
    profiler, facts = Profiler(pure, guard=False), Facts(cores=4, current="threads")
    alone(profiler, *[0.01] * 4)
    profiler.workers_begin(100.0)
    machine = Machine(profiler, 1.0, 4)
    machine.threads(0.01, 100)
    assert profiler.plan(machine.now, 1000, facts)[1].route == "threads"
    assert not profiler.gil_came()
    gil[0] = True
    assert profiler.gil_came()
    assert not profiler.gil_came()
    assert "threads" not in profiler.observed_speeds
    assert profiler.plan(machine.now, 1000, facts)[1].route == "processes"


def test_what_was_seen_without_a_gil_is_not_remembered_with_one(gil):
    seen = Measurement(items=10, wall=0.01, cpu=0.01, held=0.0, error=0.0)
    remember_run(key_of(pure), PastRun(seen, (), gil=False))
    assert Profiler(pure, guard=False).past_run is not None
    gil[0] = True
    assert Profiler(pure, guard=False).past_run is None


# -- the comparison --------------------------------------------------------------------------------


def cost_of(*seconds):
    meter = ItemMeter()
    for each in seconds:
        meter.add(1, each, each)
    return meter.summary()


@given(st.floats(1.0, 20.0), st.integers(3, 20), st.floats(1e-5, 1.0), st.integers(1, 9))
def test_even_items_tell_the_factor(factor, count, seconds, items):
    meter, cost = ContentionMeter(), cost_of(*[seconds] * count)
    for number in range(MIN_COMPARED_CHUNKS):
        assert meter.factor == 1.0, number
        meter.add(beside(seconds * factor * items, items), cost, (0.0, 0.0))
    assert meter.factor == pytest.approx(factor if factor > 1.31 else meter.factor)
    assert 1.0 <= meter.factor <= factor * 1.001


@given(st.lists(st.floats(0.5, 2.0), min_size=3, max_size=3), st.randoms(use_true_random=False))
def test_uneven_items_accuse_nobody(first, rng):
    """Items that happen to be dearer than those that ran alone."""
    meter = ContentionMeter()
    for _ in range(MAX_COMPARED_CHUNKS):
        meter.add(beside(rng.uniform(0.5, 2.0)), cost_of(*first), (0.0, 0.0))
    assert meter.factor < 3.0


def test_later_items_do_not_count():
    """They may be dearer by themselves."""
    meter, cost = ContentionMeter(), cost_of(*[0.01] * 5)
    for _ in range(MAX_COMPARED_CHUNKS):
        meter.add(beside(0.01), cost, (0.0, 0.0))
    for _ in range(1000):
        assert not meter.add(beside(0.1), cost, (0.0, 0.0))
    assert meter.factor == 1.0


@pytest.mark.parametrize("factor", [1.0, 2.5, 6.0])
def test_an_item_that_threads_overtook(factor):
    """No item has ended alone: the first was alone for a while only."""
    meter, seconds, alone_for = ContentionMeter(), 0.2, 0.04
    whole = alone_for + (seconds - alone_for) * factor
    for _ in range(MIN_COMPARED_CHUNKS):
        meter.add(beside(seconds * factor), cost_of(), (alone_for, whole))
    assert meter.factor == pytest.approx(factor)


def test_contention_in_a_plan():
    """Without a GIL nothing is held, and all the same threads may be the worst of three."""
    for contention, route in ((1.0, "threads"), (1.6, "processes"), (9.0, "processes")):
        seen = Measurement(20, 0.01, 0.01, held=0.0, error=0.0, contention=contention)
        found = plan(seen, 1000, Facts(cores=4))
        assert found.route == route
        assert ("beside other threads" in found.reason) == (route == "processes")
    seen = Measurement(20, 0.01, 0.01, held=0.0, error=0.0, contention=9.0)
    assert plan(seen, 1000, Facts(cores=4, limit="process", limit_reason="x")).route == "loop"


@pytest.mark.parametrize(
    ("first", "threads", "later", "factor"),
    [
        ([0.015, 0.035], 0.04, 0.01, 4.0),  # the first items were dear, and hid what threads cost
        ([0.015, 0.035], 0.04, 0.04, 1.0),  # items became dearer, on threads and alone
        ([0.015, 0.035], 0.04, 0.0, 1.0),  # none was left to run alone
    ],
)
def test_items_that_run_alone_once_more(first, threads, later, factor):
    meter, costs = ContentionMeter(), ItemMeter()
    for each in first:
        costs.add(1, each, each)
    for _ in range(MIN_COMPARED_CHUNKS):
        assert not meter.doubtful(costs.summary())
        meter.add(beside(threads), costs.summary(), (0.0, 0.0))
    assert meter.factor == 1.0, "two uneven items are no evidence"
    assert meter.doubtful(costs.summary())
    meter.settle(3 if later else 0, 3 * later)
    assert meter.factor == pytest.approx(factor)
    assert not meter.doubtful(costs.summary()), "once is enough"


def test_an_item_that_waited_before_others_began():
    """The moment in which it computed alone says nothing of what one takes alone."""
    meter, none = ContentionMeter(), ItemMeter().summary()
    for _ in range(2 * MIN_COMPARED_CHUNKS):
        meter.add(beside(0.008), none, (1e-8, 0.0))
    assert meter.factor == 1.0
    profiler = Profiler(pure, guard=False)
    profiler.caller.workers_begin(0.0, 0.95)
    for _ in range(2 * MIN_COMPARED_CHUNKS):
        assert profiler.ran_beside(beside(0.02)) == 1.0
    assert not profiler.contends()


def test_processes_do_not_contend():
    """What threads cost is no measure of what processes do, which were left for the loop."""
    profiler = Profiler(pure, guard=False)
    alone(profiler, 0.005, 0.02)  # uneven, so that CPU time counts and not their number
    for _ in range(MIN_COMPARED_CHUNKS):
        profiler.ran_beside(beside(0.03))
    profiler.ran_alone(4, 0.04)
    assert profiler.loop_seconds(beside(0.03), threads=True) == pytest.approx(0.01)
    assert profiler.loop_seconds(beside(0.03), threads=False) == pytest.approx(0.03)


# -- executors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "factor", "route"),
    [(True, 1.0, "threads"), (True, 3.0, "processes"), (False, 3.0, "threads")],
)
def test_calls_that_hinder_each_other(monkeypatch, without, factor, route):
    """With a GIL the CPU clock does not run in a thread that waits: dearer calls are just that."""
    monkeypatch.setattr(route_choice, "gil_enabled", lambda: not without)
    choice = RouteChoice("fn", cores=4, workers=4)
    now, seconds = 0.0, 0.01
    choice.begin_probe(now)
    for _ in range(3):
        choice.began("trial", now)
        now += seconds
        choice.took(seconds, seconds, now, "trial")
    choice.decide("threads", "nothing is held", now)
    choice.end_probe()
    for _ in range(40):
        for thread in range(4):
            choice.began(thread, now)
        now += seconds * factor
        for thread in range(4):
            choice.took(seconds * factor, seconds * factor, now, thread)
        choice.review(now)
    assert choice.route == route
    assert ("beside other threads" in choice.reason) == (route == "processes")
