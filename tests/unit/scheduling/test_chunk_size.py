"""How many items go into a chunk, and what that makes of a whole run, in simulated time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.schedule import simulation
from parallax._scheduling.chunk_size import DISPATCH_COST_S, chunk_size, learn, piece_size


def test_first_and_later_means():
    """The newest chunk counts for 0.4."""
    assert learn(None, 2.0) == 2.0
    assert learn(1.0, 2.0) == pytest.approx(1.4)


def test_a_quarter_of_an_even_share():
    """With short items the share is the bound, with long ones the target."""
    assert chunk_size(0.0001, 0.02, 2, 1000, 0) == 125
    assert chunk_size(0.001, 0.02, 2, 1000, 0) == 20
    assert chunk_size(1.0, 0.02, 2, 1000, 0) == 1


def test_chunks_grow_with_the_number_of_workers():
    """One thread serves them all: a thousand chunks of 20 ms a second each are too many for it."""
    assert chunk_size(0.001, 0.02, 50, 10**9, 0) == 20
    assert chunk_size(0.001, 0.02, 1000, 10**9, 0) == 400


def test_no_chunk_is_too_short_to_be_worth_sending():
    """At the end too: 400 us of work on few workers, unless that is more than an even share."""
    assert chunk_size(1e-6, 0.02, 2, 1000, 0) == 400
    assert chunk_size(1e-6, 0.02, 2, 100, 0) == 50


def test_unknown_length():
    """As much again as has been done is expected to come."""
    assert chunk_size(1e-4, 0.02, 2, None, 100) == 50
    assert chunk_size(1e-4, 0.02, 2, None, 0) == 1


def test_items_that_take_no_time():
    """The clock may say so of the shortest."""
    assert chunk_size(0.0, 0.02, 2, 800, 0) == 100
    assert piece_size(0.0, 2, 100) == 25


@given(
    mean=st.floats(0, 10),
    target=st.floats(0.001, 0.1),
    crew=st.integers(1, 5000),
    left=st.none() | st.integers(0, 10**7),
    done=st.integers(0, 10**7),
)
def test_bounds(mean, target, crew, left, done):
    """Never none, and never more than an even share, unless that is hardly any work."""
    size = chunk_size(mean, target, crew, left, done)
    even = done // crew if left is None else -(-left // crew)
    assert size >= 1
    assert size <= max(1, even) or size * mean <= DISPATCH_COST_S / 2
    assert piece_size(mean, crew, size) >= 1


def run(times, workers, answer):
    costs = simulation.Costs()
    return simulation.Simulation(
        times, workers, depth=2, target=0.02, costs=costs, answer=answer
    ).run()


@pytest.mark.parametrize("answer", ["signal", "item", "none"])
def test_even_items_take_little_more_than_the_ideal(answer):
    """The price of dispatching is hidden behind the work."""
    times = [0.001] * 2000
    assert simulation.ideal(times, 8) == pytest.approx(0.25)
    assert run(times, 8, answer).makespan < 0.25 * 1.05


def test_a_long_item_does_not_keep_what_waits_behind_it():
    """Taking back makes the end of the run short where one item in a chunk takes very long."""
    times = [0.001] * 2000
    times[1700] = 0.2
    plain = run(times, 8, "none")
    taken = run(times, 8, "signal")
    assert plain.recalls == 0
    assert taken.recalls > 0
    assert taken.makespan <= plain.makespan


def test_many_workers_do_not_wait_for_their_master():
    """Chunks of 20 ms would keep it busy nearly all the time."""
    source = random.Random(1)
    times = [source.expovariate(100) for _ in range(20_000)]
    done = run(times, 150, "signal")
    assert done.busy < 0.5 * done.makespan
    assert done.makespan < 1.1 * simulation.ideal(times, 150)


def test_bounds_of_a_schedule():
    """What the ratios are measured against: each of the three bounds is the largest once."""
    assert simulation.ideal([1.0, 1.0, 1.0, 1.0], 2) == 2.0
    assert simulation.ideal([5.0, 1.0, 1.0], 2) == 5.0
    assert simulation.ideal([3.0, 3.0, 3.0], 2) == 6.0
    assert simulation.free_of_charge([1.0, 1.0, 3.0], 2) == 4.0
