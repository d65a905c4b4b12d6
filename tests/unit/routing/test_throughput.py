"""When the speed of a route at work is told: poor threads soon, all else when it is certain."""

from __future__ import annotations

import pytest

from parallax._core.chunks import ChunkResult
from parallax._routing.throughput import RouteThroughput, next_review


def at_work(speed: float, seconds: float, *, chunk: float, workers: int = 2, **options):
    """Workers that did loop work at that speed, in chunks of so many seconds each."""
    route = RouteThroughput(10.0, workers, workers, 0.0, **options)
    for number in range(1, round(seconds / chunk) + 1):
        for _ in range(workers):
            result = ChunkResult([None], (), chunk, chunk)
            route.add(10.0 + number * chunk, result, chunk * speed / workers)
    return route.speed(10.0 + seconds, 0.0, 0.0)


@pytest.mark.parametrize(
    ("speed", "seconds", "chunk", "early", "told"),
    [
        (1.0, 0.05, 0.01, True, True),  # threads that take turns
        (0.4, 0.05, 0.01, True, True),  # those that fight for a lock
        (1.9, 0.05, 0.01, True, False),  # good ones go on, and are measured for longer
        (1.9, 0.3, 0.01, True, True),
        (1.0, 0.02, 0.01, True, False),  # too soon
        (1.0, 0.05, 0.05, True, False),  # one round of long items
        (1.0, 0.1, 0.05, True, True),
        (1.0, 0.05, 0.01, False, False),  # processes are slow at first
        (1.0, 0.3, 0.01, False, True),
        (1.0, 0.3, 0.15, False, False),
    ],
)
def test_poor_threads_are_found_out_after_two_rounds(speed, seconds, chunk, early, told):
    found = at_work(speed, seconds, chunk=chunk, early=early)
    assert (found == pytest.approx(speed)) if told else found is None


def test_what_other_programs_take_is_not_the_routes_fault():
    """Two threads that got one core between them because another program has the second."""
    route = RouteThroughput(10.0, 2, 2, 0.0, early=True)
    for number in range(1, 11):
        for _ in range(2):
            route.add(10.0 + number * 0.01, ChunkResult([None], (), 0.01, 0.005), 0.005)
    assert route.speed(10.1, 0.0, 0.0) == pytest.approx(1.0)
    assert route.speed(10.1, 0.0, 0.1) is None  # they waited for half of the time: about twice that


@pytest.mark.parametrize(
    ("spent", "settled", "seconds"),
    [
        (0.00005, False, 0.004),
        (0.00005, True, 0.02),
        (0.00015, False, 0.0075),  # a fiftieth of the time, and no more
        (0.0004, True, 0.04),  # a hundredth once the plan is settled
        (0.002, False, 0.01),  # one that loaded modules is not the rule, and others may wait
        (0.01, True, 0.1),
    ],
)
def test_reviews_take_little_of_the_loop(spent, settled, seconds):
    assert next_review(spent, settled=settled) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("cpu", "delay", "speed"),
    [
        (2.0, 1.0, 2.0),  # three threads on two cores wait for each other, and for nobody else
        (1.2, 1.8, 1.2 / 0.6),  # another program has most of one core
        (1.0, 0.0, 1.0),  # they wait for a lock: that is their own fault
    ],
)
def test_more_threads_than_cores(cpu, delay, speed):
    route = RouteThroughput(10.0, 3, 2, 0.0)
    for number in range(1, 31):
        for _ in range(3):
            result = ChunkResult([None], (), 0.01, 0.01 * cpu / 3)
            route.add(10.0 + number * 0.01, result, 0.01 * cpu / 3)
    assert route.speed(10.3, 0.0, 0.3 * delay) == pytest.approx(speed)
