"""How many tasks travel together: what must hold whatever the times are."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._scheduling.batch_size import (
    FRAME_WORK_S,
    MAX_FRAME_TASKS,
    MAX_TIMED_CALLABLES,
    BatchSize,
)

seconds = st.floats(0.0, 100.0)
short = st.floats(0.0, FRAME_WORK_S / 4)


def paced(times, key="f"):
    pace = BatchSize()
    for each in times:
        pace.took(key, each)
    return pace


def frame(pace, keys, busy=0.0):
    """Fill a frame as a sender does; how many of those tasks go into it."""
    count = 0
    for key in keys:
        if not pace.fits(key, count, busy):
            break
        count += 1
        mean = pace.mean(key)
        busy += math.inf if mean is None else mean
    return count


@given(st.lists(seconds), st.integers(0, 10**6), st.integers(0, 2000))
def test_an_idle_worker_gets_something(times, queued, workers):
    """Whatever is known, and however many share."""
    pace = paced(times)
    assert pace.fits("f", 0, 0.0)
    assert 1 <= pace.share(queued, workers) <= MAX_FRAME_TASKS


@given(st.integers(1, 10**6), st.integers(1, 2000))
def test_a_share_leaves_something_for_the_others(queued, workers):
    """Half of what would be fair, rounded up: all have work to the end."""
    share = BatchSize().share(queued, workers)
    assert (share - 1) * 2 * workers < queued


@given(st.lists(seconds, min_size=1), st.integers(1, 2 * MAX_FRAME_TASKS))
def test_a_frame_is_short(times, count):
    """More than one task only as long as all together take no longer than a frame may."""
    pace = paced(times)
    mean = pace.mean("f")
    taken = frame(pace, ["f"] * count)
    assert taken >= 1
    assert taken == 1 or taken * mean <= FRAME_WORK_S * (1 + 1e-9)


@given(st.lists(seconds, min_size=1), st.floats(1e-9, 100.0))
def test_nothing_is_put_behind_long_work(times, busy):
    """A busy worker gets no more than what ends within the frame."""
    pace = paced(times)
    assert pace.fits("f", 0, busy) == (busy + pace.mean("f") <= FRAME_WORK_S)


@given(st.lists(short, min_size=1), st.floats(1e-9, 1.0))
def test_what_is_unknown_travels_alone(times, busy):
    """Neither behind others, nor others behind it, nor to a busy worker."""
    pace = paced(times)
    assert frame(pace, ["f", "new", "f"]) == 1
    assert frame(pace, ["new", "f"]) == 1
    assert not pace.fits("new", 0, busy)
    assert pace.mean("new") is None


@given(st.lists(short, max_size=50), st.floats(8 * FRAME_WORK_S, 100.0))
def test_what_becomes_long_is_noticed_at_once(times, long):
    """After one long one the next travels alone."""
    pace = paced([*times, long])
    assert frame(pace, ["f"] * 10) == 1
    assert not pace.fits("f", 0, 1e-9)


@given(st.lists(seconds, min_size=1))
def test_the_mean_is_one_of_what_was_seen(times):
    """It never leaves the range of the times."""
    mean = paced(times).mean("f")
    assert min(times) - 1e-9 <= mean <= max(times) + 1e-9


@settings(max_examples=20)
@given(st.floats(8 * FRAME_WORK_S, 10.0))
def test_what_becomes_short_is_believed_in_time(long):
    """Some dozens of short ones make up for a long one."""
    pace = paced([long, *[FRAME_WORK_S / 100] * 60])
    assert frame(pace, ["f"] * 10) == 10


def test_callables_are_told_apart_and_forgotten():
    """One that is long does not slow another, and only so many are remembered."""
    pace = BatchSize()
    pace.took("long", 1.0)
    pace.took("short", 0.0)
    assert frame(pace, ["short"] * 5) == 5
    for number in range(MAX_TIMED_CALLABLES):
        pace.took(number, 0.5)
        pace.took("short", 0.0)
    assert pace.mean("long") is None
    assert pace.mean("short") == 0.0
    assert pace.mean(MAX_TIMED_CALLABLES - 1) == 0.5
