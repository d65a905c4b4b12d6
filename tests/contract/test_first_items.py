"""A call begins as a loop: what is made later, and when, changes nothing that can be seen.

Each case runs with the run that goes on made never, after the first item, and while the caller's
thread is inside of it.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import re
import subprocess
import sys
import threading
import time
import types

import pytest
from jobs.pool import wait_for

from parallax import configure, nesting_depth, options, parallel_map
from parallax._api import map as map_module
from parallax._core.nesting import entered
from parallax._core.plans import Measurement
from parallax._profiling.history import PastRun, key_of, remember_run
from parallax._run import caller_loop, first_items
from parallax._run.controller import Controller
from parallax._run.run import Run

DEADLINE_S = 20.0


class OopsError(Exception):
    pass


class Handover:
    """When the run is made: its first item waits for that if it is to be inside of it."""

    def __init__(self, when):
        self.when = when
        self.made = threading.Event()

    def wrap(self, fn):
        """The same function, as code of its own: nothing is known of it."""

        def work(item, *more):
            if self.when == "inside" and not self.made.is_set():
                assert self.made.wait(DEADLINE_S)
            return fn(item, *more)

        code = work.__code__.replace(co_name=f"work_{next(_numbers)}")
        return types.FunctionType(code, work.__globals__, "work", None, work.__closure__)


_numbers = itertools.count()


@pytest.fixture(params=["never", "after", "inside"])
def handover(request, monkeypatch):
    """The moment at which the run is made."""
    found = Handover(request.param)
    overtake = Run.overtake

    def noticed(run):
        try:
            overtake(run)
        finally:
            found.made.set()

    monkeypatch.setattr(Run, "overtake", noticed)
    if found.when == "never":
        monkeypatch.setattr(first_items, "FIRST_S", 1e9)
    elif found.when == "after":
        monkeypatch.setattr(first_items, "FIRST_S", 0.0)
        monkeypatch.setattr(first_items, "LITTLE_WORK_S", 0.0)
        monkeypatch.setattr(FirstItems, "check", lambda _, now: now + 1.0)
    yield found
    assert entered() is None
    assert nesting_depth() == 0


FirstItems = first_items.FirstItems


def fail_at(index, error):
    def fn(item):
        if item == index:
            raise error
        return item * 2

    return fn


def test_results_and_report(handover):
    """Of a list, a generator and several iterables; the report counts each item once."""
    for items in ([*range(40)], (i for i in range(40))):
        results = parallel_map(handover.wrap(lambda x: x + 1), items)
        assert results == [i + 1 for i in range(40)]
        report = results.report
        assert (report.items, report.route, report.backend) == (40, "loop", "auto")
        assert sum(share.items for share in report.work.workers.values()) == 40
        assert report.measured.wall > 0.0
        assert report.reason
        assert "40 items" in str(report)
        handover.made.clear()
    both = parallel_map(handover.wrap(lambda x, y: x - y), range(5), [1] * 5, strict=True)
    assert both == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "kind",
    [OopsError, StopIteration, KeyboardInterrupt, SystemExit],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.parametrize("index", [0, 3])
def test_an_error_of_an_item(handover, kind, index):
    """It is the loop's own, names its item, leads to the report, and nothing runs after it."""
    ran, error = [], kind(3)

    def fn(item):
        ran.append(item)
        return fail_at(index, error)(item)

    with pytest.raises(kind) as caught:
        parallel_map(handover.wrap(fn), iter(range(100)))
    assert caught.value is error
    if sys.version_info >= (3, 11):
        assert error.__notes__ == [f"parallax: raised by item {index}"]
    assert error.parallax_report.ended == kind.__name__
    assert (error.parallax_report.items, error.parallax_report.raised) == (index, 1)
    assert ran == [*range(index + 1)]


def test_an_error_of_the_input(handover):
    """The items before it have run."""
    ran = []

    def items():
        yield from range(3)
        raise OopsError("input")

    with pytest.raises(OopsError, match="input") as caught:
        parallel_map(handover.wrap(ran.append), items())
    assert ran == [0, 1, 2]
    assert caught.value.parallax_report.items == 3


def test_an_endless_input_ends_with_its_error(handover):
    """Items are taken when they are needed, one before the next."""
    order = []

    def items():
        for number in itertools.count():
            order.append(("taken", number))
            yield number

    def fn(item):
        order.append(("ran", item))
        if item == 30:
            raise OopsError
        return item

    with pytest.raises(OopsError):
        parallel_map(handover.wrap(fn), items())
    assert order[:4] == [("taken", 0), ("ran", 0), ("taken", 1), ("ran", 1)]
    assert order[-1] == ("ran", 30)


def test_calls_inside_of_calls(handover):
    """The items are one call deep, their own calls two."""

    def fn(item):
        inner = parallel_map(lambda _: nesting_depth(), [0, 1])
        return item, nesting_depth(), [*inner]

    results = parallel_map(handover.wrap(fn), [1, 2, 3])
    assert results == [(item, 1, [2, 2]) for item in (1, 2, 3)]


@pytest.mark.parametrize("start", [0, 1, 7])
def test_changes_from_some_item_on(handover, start):
    """State that items change from item ``start`` on is as the loop leaves it."""
    seen = {"n": 0}

    def fn(item):
        if item >= start:
            seen["n"] += 1
        return seen["n"]

    assert parallel_map(handover.wrap(fn), range(30)) == [max(0, i - start + 1) for i in range(30)]
    assert seen["n"] == 30 - start


def test_items_that_change_while_they_run(handover):
    """As in a loop over the list."""
    grows, shrinks = [3], [*range(20)]

    def fn(item):
        if item:
            grows.append(item - 1)
        return item

    if handover.when != "inside":  # others take the items meanwhile
        assert parallel_map(handover.wrap(fn), grows) == [3, 2, 1, 0]
        parallel_map(handover.wrap(shrinks.remove), shrinks)
        assert shrinks == [*range(1, 20, 2)]


def test_the_first_items_make_no_run(monkeypatch):
    """Neither unknown nor known; an option that needs one makes it."""
    monkeypatch.setattr(map_module, "Run", None)

    def fn(item):
        return -item

    for items in (range(10), [], [4], (i for i in range(3)), "abc"):
        if items == "abc":
            items = [1, 2]
        assert parallel_map(fn, items) is not None
    with pytest.raises(TypeError):
        parallel_map(fn, [1], retries=1)
    with options(timeout=5.0), pytest.raises(TypeError):
        parallel_map(fn, [1])


PROGRAM = """
import sys, threading
from parallax import parallel_map
before = set(sys.modules)
inside = []
def fn(item):
    inside.append(threading.active_count())
    return item + 1
results = parallel_map(fn, range(10))
assert results == [*range(1, 11)]
print(sorted(set(sys.modules) - before), set(inside))
print(results.report)
"""


def test_a_first_call_loads_nothing():
    """What it needs is loaded with ``parallel_map``, and no thread of Python's own is there."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    first, *report = done.stdout.splitlines()
    assert first == "[] {1}"
    assert "10 items" in report[0]


def test_results_pickle_with_their_report():
    """Although it is made when it is read."""
    results = parallel_map(abs, [-1, 2])
    again = pickle.loads(pickle.dumps(results))
    assert again == [1, 2]
    assert (again.report.items, again.report.callable) == (2, "abs")
    assert again.report is again.report


def test_others_run_while_the_first_item_does(tmp_path):
    """The first call of a function: its first item ends only when another one has run."""
    gate = tmp_path / "gate"

    def fn(item):
        if item == 0:
            wait_for(gate)
        else:
            gate.touch()
        return item

    assert parallel_map(fn, range(8)) == list(range(8))


overtaken = threading.Event()


def slow_at_first(item):
    if item == 0:
        remember_run(
            key_of(slow_at_first), PastRun(Measurement(8, 0.05, 0.05, held=1.0, error=0.01))
        )
        assert overtaken.wait(DEADLINE_S)
    return item * 2


def test_history_that_is_made_inside_of_the_first_item(monkeypatch):
    """As by another thread that calls the same function: the item's result comes in."""
    overtake = Run.overtake

    def tell(run):
        overtake(run)
        overtaken.set()

    monkeypatch.setattr(Run, "overtake", tell)
    assert parallel_map(slow_at_first, range(30)) == list(range(0, 60, 2))


def test_what_one_thread_has_is_not_taken_elsewhere():
    """Another thread, which makes the run, cannot see the values of ``threading.local``."""
    mine = threading.local()
    mine.offset = 5

    def fn(item):
        time.sleep(0.02)
        return mine.offset + item

    assert parallel_map(fn, range(6)) == [*range(5, 11)]


def test_a_stall_of_a_function_that_was_short():
    """It is told of although no run was made."""
    told, messages = threading.Event(), []
    logger = logging.getLogger("parallax")

    class Teller(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())
            told.set()

    def fn(item):
        if item == 2:
            assert told.wait(DEADLINE_S)
        return item

    assert parallel_map(fn, [0, 1]) == [0, 1]
    handler = Teller()
    logger.addHandler(handler)
    configure(stall_warn=0.1)
    try:
        assert parallel_map(fn, [0, 1, 2, 3]) == [0, 1, 2, 3]
    finally:
        configure(stall_warn=None)
        logger.removeHandler(handler)
    assert "item 2 in the caller's thread" in messages[0]


@pytest.mark.parametrize("kind", [list, iter])
def test_items_that_are_far_longer_than_those_of_an_earlier_call(kind):
    """The later call is no loop to its end."""

    def fn(seconds):
        if seconds:
            time.sleep(seconds)
        return seconds

    parallel_map(fn, [0] * 1000)
    items = [0.02] * 10
    results = parallel_map(fn, kind(items))
    assert results == items
    assert results.report.route == "threads"


def test_a_plan_is_made_before_another_long_item(monkeypatch):
    """The first one held the GIL to its end, so nothing could be planned meanwhile."""
    plans, review = [], Controller.review

    def reviewed(self, now):
        plans.append(self._caller.delivered)
        review(self, now)

    monkeypatch.setattr(Controller, "review", reviewed)
    monkeypatch.setattr(caller_loop, "COSTLY_ITEM_S", 0.005)
    items = ["a" * 20 + mark for mark in "!?.;"]
    assert parallel_map(backtrack, items) == [False] * 4
    assert min(plans) <= 1


def backtrack(text):
    return re.match(r"(a+)+$", text) is not None


READ_ONCE = """
import time
from parallax import parallel_map

class Rows(list):
    read = 0
    def __iter__(self):
        self.read += 1
        return super().__iter__()

def spin(x):
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    return x

rows = Rows(range(60))
results = parallel_map(spin, rows, max_workers=2)
assert results == list(range(60)) and rows.read == 1, rows.read
"""


def test_the_input_is_read_once():
    """A list with an ``__iter__`` of its own may do something there."""
    subprocess.run([sys.executable, "-c", READ_ONCE], check=True, timeout=60)
