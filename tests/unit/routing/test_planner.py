"""The planner alone: measurements in, plans out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from helpers.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._core.plans import Measurement, Payload
from parallax._routing.planner import Facts, hindsight, plan, seconds, thread_rates

PURE = Measurement(items=5, wall=0.01, cpu=0.01, held=1.0, error=0.05)
FREE = Measurement(items=5, wall=0.01, cpu=0.01, held=0.0, error=0.02)
WAIT = Measurement(items=5, wall=0.05, cpu=0.0002, held=0.002, error=0.002)
TINY = Measurement(items=1000, wall=1e-7, cpu=1e-7, held=1.0, error=0.05)
UNCLEAR = Measurement(items=1, wall=0.01, cpu=0.01, held=None)
BIG = replace(PURE, payload=Payload(bytes_in=1e9, bytes_out=1e9, seconds=1.0))
NATIVE = replace(FREE, native=4.0)
FOUR = Facts(cores=4, process_start=0.08)
ONE = Facts(cores=1, process_start=0.08)


@pytest.mark.parametrize(
    ("seen", "items", "words"),
    [
        (PURE, 1000, "only afterwards it was clear that 4 worker processes"),
        (WAIT, 1000, "only afterwards it was clear that 31 threads"),
        (PURE, 4, "would not be clearly faster"),
    ],
)
def test_a_loop_looking_back(seen, items, words):
    """A reason never contradicts the costs beside it."""
    costs, reason = hindsight(seen, items, FOUR, "loop", 1)
    assert words in reason
    assert (min(costs, key=costs.get) == "loop") == ("not be clearly" in words)


@pytest.mark.parametrize(
    ("seen", "left", "facts", "route", "words"),
    [
        (
            PURE,
            1000,
            FOUR,
            "processes",
            "threads would run one after the other; 4 worker processes",
        ),
        (PURE, 0, FOUR, "loop", ""),
        (PURE, 1, FOUR, "loop", ""),
        (PURE, 4, FOUR, "loop", ""),
        (PURE, 1000, ONE, "loop", ""),
        (PURE, 1000, replace(FOUR, max_workers=1), "loop", "max_workers=1"),
        (PURE, 1000, replace(FOUR, limit="loop", limit_reason="it counts"), "loop", "it counts"),
        (PURE, 1000, replace(FOUR, limit="process", limit_reason="it logs"), "loop", "it logs"),
        (PURE, 1000, replace(FOUR, allowed=frozenset({"loop"})), "loop", ""),
        (PURE, 1000, replace(FOUR, process_start=float("inf")), "loop", ""),
        (FREE, 1000, FOUR, "threads", "leaves Python's global lock (GIL) free"),
        (FREE, 1000, ONE, "loop", ""),
        (FREE, 1000, replace(FOUR, limit="process"), "threads", ""),
        (FREE, 1000, replace(FOUR, limit="loop"), "loop", ""),
        (
            FREE,
            1000,
            replace(FOUR, observed={"threads": 1.0}, current="threads"),
            "processes",
            "seen to be only 1.0 times as fast as a loop",
        ),
        (NATIVE, 1000, FOUR, "loop", "4.0 cores busy by itself"),
        (WAIT, 1000, FOUR, "threads", "wait at the same time"),
        (WAIT, 1000, ONE, "threads", "wait at the same time"),
        (WAIT, 2, FOUR, "threads", "2 threads"),
        (WAIT, 1, FOUR, "loop", ""),
        (WAIT, 1000, replace(FOUR, limit="process"), "threads", ""),
        (WAIT, 1000, replace(FOUR, limit="loop"), "loop", ""),
        (TINY, 100_000, FOUR, "loop", ""),
        (TINY, None, FOUR, "loop", ""),
        (BIG, 1000, FOUR, "loop", ""),
        (replace(BIG, held=0.0), 1000, FOUR, "threads", ""),
        (replace(PURE, payload=Payload(callable_bytes=1e12)), 100, FOUR, "loop", ""),
        (UNCLEAR, 1000, FOUR, "processes", "not clear yet"),
    ],
)
def test_routes(seen, left, facts, route, words):
    """The table of what is measured and what is then done, with its reason in words."""
    chosen = plan(seen, left, facts)
    assert chosen.route == route
    assert words in chosen.reason
    assert chosen.remaining == left


SHORT = replace(PURE, wall=0.002, cpu=0.002)  # an item of a job that is done within a second
LOADING = replace(FOUR, cores=2, process_start=0.06, process_hold=0.04)


@pytest.mark.parametrize(
    ("seen", "left", "facts", "route"),
    [
        # The caller's thread runs nothing while it loads and forks.
        (SHORT, 60, LOADING, "loop"),
        (SHORT, 70, replace(LOADING, process_hold=0.0), "loop"),  # starts are foreseen worst
        (SHORT, 90, replace(LOADING, process_hold=0.0), "processes"),
        (SHORT, 90, LOADING, "loop"),
        (SHORT, 400, LOADING, "processes"),
        (SHORT, 60, replace(LOADING, process_start=0.01, process_hold=0.005), "processes"),
        # Other programs have the cores: a short job gets no more of them with more workers.
        (SHORT, 120, replace(LOADING, free=2.0), "processes"),
        (SHORT, 100, replace(LOADING, free=1.8), "loop"),
        (SHORT, 120, replace(LOADING, free=1.8), "processes"),
        (SHORT, 120, replace(LOADING, free=1.0), "loop"),
        (SHORT, 120, replace(LOADING, free=0.2), "loop"),
        (SHORT, 600, replace(LOADING, free=0.2), "loop"),  # 0.24 s that seem to be five times that
        (SHORT, 800, replace(LOADING, free=0.2), "processes"),
        (SHORT, 200, replace(LOADING, free=1.0), "processes"),  # it may be more than a fair share
        (replace(SHORT, held=0.0), 140, LOADING, "threads"),
        (replace(SHORT, held=0.0), 140, replace(LOADING, free=0.5), "loop"),
        (WAIT, 20, replace(LOADING, free=0.1), "threads"),  # waiting needs no core
    ],
)
def test_a_short_job_is_worth_no_workers_that_come_too_late(seen, left, facts, route):
    """What is lost by a start, and on a machine whose cores are taken, counts before the gain."""
    assert plan(seen, left, facts).route == route


def test_the_present_route_is_not_left_for_little():
    """A change has to promise more than a little, and more yet once the route was seen at work."""
    loop = plan(PURE, 1000, FOUR).costs["processes"]
    speed = 1000 * PURE.wall / (1.2 * loop)
    facts = replace(FOUR, current="threads", observed={"threads": speed})
    assert plan(PURE, 1000, facts).route == "threads"
    assert plan(PURE, 1000, replace(facts, observed={"threads": speed / 2})).route == "processes"


def test_threads_for_waiting_work_are_as_many_as_may_be():
    """Waiting costs no core: the number of threads is not that of cores."""
    assert plan(WAIT, 1000, FOUR).workers > 28
    assert plan(WAIT, 1000, replace(FOUR, thread_cap=64)).workers > 32
    assert plan(WAIT, 10, FOUR).workers == 10
    assert plan(WAIT, 1000, replace(FOUR, max_workers=7)).workers == 7


def test_threads_for_computing_are_as_many_as_cores():
    """More threads than cores bring nothing to work that computes."""
    assert plan(FREE, 1000, FOUR).workers == 4
    assert plan(PURE, 1000, FOUR).workers == 4


def test_half_held():
    """Work that holds the GIL half of the time gains at most a factor of two from threads."""
    half = replace(PURE, held=0.5, error=0.0)
    rates = thread_rates(half, 64, 32)
    assert rates[0] == pytest.approx(1 / half.wall)
    assert max(rates) <= 2.0001 / half.wall
    assert rates[1] > 1.2 / half.wall


MEASUREMENTS = st.builds(
    lambda items, wall, busy, held, error, native, spread, payload: Measurement(
        items,
        wall,
        wall * busy,
        None if held is None else held * busy,
        error,
        native,
        spread,
        payload,
    ),
    st.integers(0, 1000),
    st.floats(1e-8, 100),
    st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.floats(0, 1),
    st.floats(1, 16),
    st.floats(0, 5),
    st.none()
    | st.builds(
        Payload, st.floats(0, 1e10), st.floats(0, 1e10), st.floats(0, 10), st.floats(0, 1e10)
    ),
)
ROUTES = ("loop", "threads", "processes")
FACTS = st.builds(
    Facts,
    cores=st.integers(1, 128),
    max_workers=st.none() | st.integers(1, 64),
    thread_cap=st.sampled_from([32, 64, 256]),
    limit=st.sampled_from(["free", "process", "loop"]),
    process_start=st.sampled_from([0.0, 0.05, 1.0, float("inf")]),
    current=st.sampled_from(ROUTES),
    observed=st.dictionaries(st.sampled_from(ROUTES[1:]), st.floats(0.01, 100)),
)


@settings(max_examples=examples(300), deadline=None)
@given(MEASUREMENTS, st.none() | st.integers(0, 100_000), FACTS)
def test_any_plan_can_be_carried_out(seen, left, facts):
    """Whatever was measured: costs that make sense, workers within limits, a route allowed."""
    chosen = plan(seen, left, facts)
    assert chosen.reason
    assert chosen.route in chosen.costs
    assert all(cost >= 0 for cost in chosen.costs.values())
    assert chosen.costs["loop"] == (max(1, seen.items) if left is None else left) * seen.wall
    assert chosen.workers >= 1
    if facts.max_workers is not None:
        assert chosen.workers <= facts.max_workers
    if left is not None:
        assert chosen.workers <= max(1, left)
    if facts.limit == "loop":
        assert set(chosen.costs) == {"loop"}
    if facts.limit == "process":
        assert "processes" not in chosen.costs
    if chosen.route == "processes" and facts.max_workers is None:
        assert chosen.workers <= facts.cores
    if chosen.route != "loop" and facts.current == "loop":
        assert chosen.costs[chosen.route] < chosen.costs["loop"]


@settings(max_examples=examples(150), deadline=None)
@given(MEASUREMENTS, st.integers(1, 128), st.integers(1, 64))
def test_rates_of_threads(seen, cores, most):
    """More threads are never predicted to be slower, nor faster than the cores allow."""
    rates = thread_rates(seen, cores, most)
    assert 1 <= len(rates) <= most
    assert all(rate > 0 for rate in rates)
    assert all(b >= a * (1 - 1e-9) for a, b in itertools.pairwise(rates))
    if seen.wall >= 1e-6:
        assert rates[0] <= 1.0001 / seen.wall
        assert rates[-1] <= most * 1.0001 / seen.wall


@settings(max_examples=examples(150), deadline=None)
@given(MEASUREMENTS, st.integers(0, 10_000), st.integers(1, 10_000), FACTS)
def test_more_items_cost_more(seen, left, more, facts):
    """No route is predicted to be done sooner with more to do, but for the last round."""
    few, many = plan(seen, left, facts).costs, plan(seen, left + more, facts).costs
    assert many["loop"] >= few["loop"]
    if left + more >= 16 * max(left, 1) and left + more > 2000:
        assert all(many[route] >= few[route] * 0.99 for route in few)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (40e-9, "40 ns"),
        (1.5e-6, "1.5 us"),
        (250e-6, "250 us"),
        (0.0123, "12 ms"),
        (0.5, "500 ms"),
        (1.26, "1.3 s"),
        (42.4, "42 s"),
        (1234.5, "1234 s"),
    ],
)
def test_seconds(value, text):
    """Durations as a person would say them."""
    assert seconds(value) == text
