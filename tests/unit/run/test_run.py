"""Runs and their parts without processes: the inline phase, results that were there, the route."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from helpers.fake_crew import EagerCrew

from parallax import SerializationError, parallel_map
from parallax._backends.contract import Died, WorkerEnd
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.nesting import Place, enter, entered
from parallax._core.options import Options
from parallax._reporting.reports import Report
from parallax._routing.throughput import (
    MAX_ROUTE_CHANGES,
    ROUTE_HOLD_S,
    ROUTE_START_TIMEOUT_S,
    RouteHold,
)
from parallax._run.caller_items import EndedItems, run_next, run_plain, with_errors
from parallax._run.caller_state import CallerState
from parallax._run.crew_table import CALLER, MAX_REPORTED_LOSSES, CrewTable, WorkerLosses
from parallax._run.run import Run
from parallax._run.worker_factory import WorkerFactory
from parallax._scheduling import input as scheduling_input
from parallax._scheduling.events import Blame
from parallax._scheduling.input import Input


class OopsError(Exception):
    pass


def double(item):
    return item * 2


def make_run(items, fn=double, *, stream=False, **options):
    source = Input((items,), strict=False)
    return Run(fn, fn.__name__, source, Options(**options), stream=stream)


def results(run):
    return [value for batch in run.batches() for value in batch]


@pytest.fixture
def eager(monkeypatch):
    """Crews of processes are in memory; the crews that were made."""
    made = []

    def make(factory, route):
        dispatch, call = factory._dispatch, factory._call
        new_id = dispatch.flow.table.new_id
        crew = EagerCrew(dispatch.post, new_id, call.fn, route=route, stop=call.stop)
        made.append(crew)
        return crew

    monkeypatch.setattr(WorkerFactory, "make", make)
    return made


# -- a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["serial", "auto"])
def test_a_run_that_stays_a_loop(backend):
    """Short items never leave the caller's thread."""
    run = make_run(list(range(50)), backend=backend)
    assert results(run) == [2 * i for i in range(50)]
    assert (run.report.route, run.report.items) == ("loop", 50)


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_on_a_named_route(eager, stream):
    """All items go to the crew, which is closed at the end."""
    run = make_run(list(range(40)), backend="processes", max_workers=3, stream=stream)
    assert results(run) == [2 * i for i in range(40)]
    (crew,) = eager
    assert sorted(crew.ran) == list(range(40))
    assert crew.closed is not None


@pytest.mark.parametrize(
    ("planned", "stream", "size"), [(True, False, 30), (False, False, 2), (True, True, 2)]
)
def test_a_settled_loop_runs_to_the_next_look_in_one_block(planned, stream, size):
    """Unless somebody waits for the results meanwhile."""
    run = make_run(range(1000), stream=stream)
    run._controller.planned = planned
    run._controller.review_at = time.perf_counter() + 0.031
    block = ChunkResult([None] * 8, (), 0.008, 0.008)
    assert run._loop._next_size(8, block, measuring=True) == pytest.approx(size, abs=1)
    run.close(0.0)


@pytest.mark.parametrize("within", [0.0, 0.03])
def test_a_block_ends_by_the_clock_and_not_the_input(within):
    """Where items turn out longer than they were, and where one of them fails."""
    source = Input((range(20),), strict=False)

    def slow(item):
        until = time.perf_counter() + 0.01
        while time.perf_counter() < until:
            pass
        return 1 / (item - 1)

    result = run_next(slow, source, 20, [], stop=False, within=within)
    done = len(result.values)
    assert done <= 4
    assert (source.taken, source.ended) == (done, False)
    assert [each.offset for each in result.failures] == [1] * (done > 1)
    assert source.take(20) == list(range(done, 20))


def test_no_worker_is_made_for_nothing(eager):
    """An empty input stays a loop."""
    assert results(make_run([], backend="processes")) == []
    assert eager == []


def test_the_error_of_the_lowest_item(eager):
    """All results before it are delivered, and the crew is closed at once."""

    def fail(item):
        if item >= 5:
            raise OopsError(item)
        return item

    run = make_run(list(range(20)), fail, stream=True, backend="processes", max_workers=1)
    seen = []
    with pytest.raises(OopsError) as caught:
        for batch in run.batches():
            seen += batch
    assert (seen, caught.value.args) == ([0, 1, 2, 3, 4], (5,))
    assert eager[0].closed < 1.0


def test_an_error_of_the_input_comes_after_its_items(eager):
    """Also when they were run elsewhere."""

    def broken():
        yield from range(3)
        raise OopsError("input")

    run = make_run(broken(), backend="processes", max_workers=2, stream=True)
    seen = []
    with pytest.raises(OopsError, match="input"):
        for batch in run.batches():
            seen += batch
    assert seen == [0, 2, 4]


def test_a_stream_that_is_dropped_ends_its_crew(eager):
    """Before all of its items were run."""
    run = make_run(list(range(1000)), backend="processes", max_workers=1, chunksize=1, stream=True)
    batches = run.batches()
    next(batches)
    batches.close()
    (crew,) = eager
    assert crew.closed == 0.0
    assert len(crew.ran) < 1000


def test_a_crew_that_cannot_be_made(monkeypatch):
    """The error of making it is the run's."""

    def make(factory, route):
        raise SerializationError("callable", None, "fn", "why")

    monkeypatch.setattr(WorkerFactory, "make", make)
    with pytest.raises(SerializationError):
        results(make_run([1, 2], backend="processes"))


def test_explain_runs_the_first_items_only():
    """What it says is a prediction."""
    ran = []
    report = make_run(itertools.count(), ran.append, stream=True).explain(0.0)
    assert report.explained
    assert ran == list(range(len(ran))) != []


# -- the caller's thread -------------------------------------------------------------------------


def caller_state(**given):
    return CallerState(Report(), given.get("progress"), given.get("timeout"))


def test_the_thread_is_in_its_place_while_items_run():
    """And back where it was afterwards, also when they raise; others see how far it is."""
    caller, place, before = caller_state(), Place(depth=1), entered()
    seen = []

    def work(values):
        values.append("x")
        seen.append((entered(), caller.inside, caller.block[1], list(caller.block[2])))
        raise OopsError

    with pytest.raises(OopsError):
        caller.run(work, 3, place, threading.RLock(), [7])
    assert seen == [(place, [7], 3, ["x"])]
    assert entered() is before
    assert (caller.inside, caller.block) == (None, (0.0, 0, ()))


def test_an_interrupt_between_two_steps_leaves_the_place():
    """``leave`` undoes what ``run`` could not."""
    caller, place = caller_state(), Place(depth=1)
    before = enter(place)
    try:
        caller.leave(Place(depth=2))
        assert entered() is place
        caller.leave(place)
        assert entered() is before
    finally:
        enter(before)


def test_a_deadline():
    """The message tells how far the run was."""
    caller = caller_state(timeout=5)
    caller.count(3)
    caller.check_deadline(caller.deadline)
    with pytest.raises(TimeoutError, match="3 items were finished when timeout=5 s was over"):
        caller.check_deadline(caller.deadline + 0.1)
    caller_state().check_deadline(1e9)


def fail_at(*bad):
    def fn(item):
        if item in bad:
            raise OopsError(item)
        return item * 2

    return fn


def test_items_off_the_input():
    """Only so many are taken, and a failure is in its place."""
    source, values = Input((list(range(10)),), strict=False), []
    result = run_next(fail_at(1), source, 4, values, stop=False)
    assert result.values == [0, None, 4, 6]
    assert [failure.offset for failure in result.failures] == [1]
    assert (source.taken, source.ended) == (4, False)
    assert run_next(double, source, 99, [], stop=False).values == [8, 10, 12, 14, 16, 18]
    assert source.ended


@pytest.mark.parametrize("plain", [False, True])
def test_a_late_first_item_is_the_whole_block(plain, monkeypatch):
    """Blocks are sized by earlier calls, whose items may have been far shorter; no item is lost."""
    source = Input((list(range(9)) if plain else iter(range(9)),), strict=False)

    def block():
        if plain:
            return run_plain(double, source, 99, EndedItems(source.iterator))
        return run_next(double, source, 99, [], stop=False)

    monkeypatch.setattr(scheduling_input, "LATE_S", 0.0)
    assert [block().values, block().values] == [[0], [2]]
    assert (source.taken, source.ended) == (2, False)
    monkeypatch.setattr(scheduling_input, "LATE_S", 1e9)
    assert block().values == [4, 6, 8, 10, 12, 14, 16]
    assert (source.taken, source.ended) == (9, True)


def test_a_stop_iteration_of_the_callable_is_not_the_end_of_the_input():
    """As far as the length of the input is known."""

    def fn(item):
        if item == 1:
            raise StopIteration
        return item

    result = run_next(fn, Input((list(range(3)),), strict=False), 3, [], stop=False)
    assert result.values == [0, None, 2]
    assert isinstance(result.failures[0].error, StopIteration)


@pytest.mark.parametrize("kind", [OopsError, KeyboardInterrupt])
def test_failed_items_are_run_again_at_once(kind):
    """As often as is owed; the last error is kept. What ends programs is no failure of an item."""
    ran = []

    def fn(item):
        ran.append(item)
        if item == 1 and ran.count(1) < 3:
            raise kind(ran.count(1))
        return item

    if kind is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            parallel_map(fn, [1], retries=2, backend="serial")
        assert ran == [1]
        return
    got = parallel_map(fn, [0, 1, 2], retries=2, backend="serial")
    assert (got, ran) == ([0, 1, 2], [0, 1, 1, 1, 2])
    assert (got.report.retried, got.report.raised) == (2, 2)
    ran.clear()
    _, error, _ = parallel_map(fn, [0, 1, 2], retries=1, backend="serial", on_error="return")
    assert error.args == (2,)


def test_the_values_of_a_block():
    """Up to the first error if that ends the run, else with all errors in their places."""
    errors = OopsError(1), OopsError(2)
    failures = (Failure(1, errors[0]), Failure(2, errors[1]))
    made = ChunkResult(["a", None, None], failures, 0.1, 0.1)
    assert with_errors(made, 10, stop=True) == (["a"], errors[0])
    assert with_errors(made, 10, stop=False) == (["a", *errors], None)
    interrupt = KeyboardInterrupt()
    made = ChunkResult([None], (Failure(0, interrupt),), 0.1, 0.1)
    assert with_errors(made, 10, stop=False) == ([], interrupt)


# -- small parts ---------------------------------------------------------------------------------


def test_a_route_is_held():
    """Until its workers are up, and longer after each change."""
    hold = RouteHold()
    hold.opened(100.0)
    assert hold.holds(100.0 + 0.9 * ROUTE_START_TIMEOUT_S, starting=True)
    assert not hold.holds(100.0 + 1.1 * ROUTE_START_TIMEOUT_S, starting=True)
    assert not hold.holds(100.0, starting=False)
    hold.changed(200.0)
    assert hold.holds(200.0 + 1.9 * ROUTE_HOLD_S, starting=False)
    assert not hold.holds(200.0 + 2.1 * ROUTE_HOLD_S, starting=False)
    hold.changed(300.0)
    assert hold.holds(300.0 + 3.9 * ROUTE_HOLD_S, starting=False)
    for _ in range(MAX_ROUTE_CHANGES - 2):
        assert not hold.holds(1e9, starting=False)
        hold.failed()
    assert hold.holds(1e9, starting=False)


def test_workers_belong_to_crews():
    """Numbers are never used twice; the route of a worker is known with its number."""
    table = CrewTable()
    crew = EagerCrew(lambda event: None, table.new_id, double, route="threads")
    table.crews["threads"] = crew
    crew.open(2)
    first, second = crew.names
    assert (first, second) == (1, 2)
    assert table.crew_of(first) is crew
    assert not table.up("threads")
    assert table.join(first) == "threads"
    assert (table.up("threads"), table.others("loop"), table.others("threads")) == ({1}, [1], [])
    assert table.join(CALLER) == "loop"
    assert table.crew_of(CALLER) is None
    table.leave(first)
    assert table.up("threads") == set()
    assert table.any_up()
    table.leave(CALLER)
    assert not table.any_up()


def test_the_first_losses_are_told():
    """Of workers that had several items; not of each if there are many."""
    losses = WorkerLosses(None)
    for worker in range(MAX_REPORTED_LOSSES + 3):
        losses.died(Died(worker, WorkerEnd(pid=worker), began=True), range(2 * worker, 9999))
    losses.died(Died(99, WorkerEnd(pid=99), began=False), range(0))
    assert len(losses.lost) == MAX_REPORTED_LOSSES + 3
    assert len(losses.notes()) == MAX_REPORTED_LOSSES
    assert losses.error(Blame(7, 1000, 2)).attempts == 2, "of one whose end is not known"
