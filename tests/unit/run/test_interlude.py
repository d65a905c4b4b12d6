"""When the caller's thread runs items alone for a while, and when that is over."""

from __future__ import annotations

import threading
import types

import pytest

from parallax._core.chunks import ChunkResult
from parallax._core.plans import Plan
from parallax._run.interlude import ITEMS_ALONE, MAX_AWAITED_ITEM_S, PATIENCE_S, Interlude

THREADS = Plan("threads", 3, "", {}, 10)
PROCESSES = Plan("processes", 2, "", {}, 10)


class Flow:
    """A run with three threads, of which some are inside of items."""

    def __init__(self, mean=0.01):
        self.table = types.SimpleNamespace(crews={"threads": types.SimpleNamespace(size=3)})
        self.scheduler = types.SimpleNamespace(mean=mean)
        self.at_work, self.left = True, 100

    def busy(self, route):
        assert route == "threads"
        return self.at_work

    def unbegun(self):
        return self.left

    def dismiss(self, route):
        assert not self.at_work
        del self.table.crews[route]


def interlude(flow, *, stream=False, thread=None):
    caller = types.SimpleNamespace(thread=thread or threading.get_ident())
    return Interlude(flow, caller, stream=stream)


def alone(begun, seconds=0.01):
    return ChunkResult([None], (), seconds, seconds, begun=begun)


@pytest.mark.parametrize(
    ("mean", "stream", "threads"),
    [
        (0.01, False, 3),
        (0.01, True, 0),  # the reader may be elsewhere
        (MAX_AWAITED_ITEM_S * 2, False, 0),  # cores would be idle for too long
        (None, False, 0),  # nobody knows
    ],
)
def test_threads_that_end_for_a_fork(mean, stream, threads):
    assert interlude(Flow(mean), stream=stream).ending() == threads


def test_processes_wait_for_the_end_of_threads():
    flow = Flow()
    pause = interlude(flow)
    pause.begin(PROCESSES, 1.0, measure=False)
    assert not pause.over(1.01), "threads are inside of items"
    flow.at_work = False
    assert not pause.over(1.02), "they are told to end"
    assert not flow.table.crews
    assert pause.over(1.03)
    assert not pause.active
    assert pause.plan is PROCESSES


def test_processes_do_not_wait_for_ever():
    pause = interlude(flow := Flow())
    pause.begin(PROCESSES, 1.0, measure=False)
    assert pause.over(1.0 + PATIENCE_S)
    assert flow.table.crews, "a thread that is inside of an item is left to it"
    assert not pause.ending(), "no second time"


def test_only_the_callers_thread_ends_it():
    pause = interlude(Flow(), thread=-1)
    pause.begin(PROCESSES, 1.0, measure=False)
    assert not pause.over(100.0)


def test_items_are_measured_when_no_thread_is_at_work():
    flow = Flow()
    pause = interlude(flow)
    pause.begin(THREADS, 1.0, measure=True)
    pause.add(alone(1.0))
    assert not pause.over(1.01)
    flow.at_work = False
    pause.add(alone(1.01))
    assert not pause.over(1.02)
    assert pause.items == 0, "threads were at work beside them"
    for number in range(ITEMS_ALONE - 1):
        pause.add(alone(1.02 + number / 100))
        assert not pause.over(1.03 + number / 100)
    pause.add(alone(1.06))
    assert pause.over(1.07)
    assert flow.table.crews, "they may go on"
    assert (pause.items, pause.cpu) == (ITEMS_ALONE, pytest.approx(0.01 * ITEMS_ALONE))


@pytest.mark.parametrize(("seconds", "left"), [(0.05, 100), (0.01, 0)])
def test_measuring_ends_with_long_items_and_with_the_last_one(seconds, left):
    flow = Flow()
    flow.at_work = False
    pause = interlude(flow)
    pause.begin(THREADS, 1.0, measure=True)
    assert not pause.over(1.0)
    flow.left = left
    pause.add(alone(1.0, seconds))
    assert pause.over(1.1)
