"""The adaptive engine, driven event by event: no thread, no process, no clock."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import BrokenExecutor, CancelledError

import pytest
from adaptive_fakes import PLANS, PROCESSES, PROFILERS, THREADS, VERDICTS, World

from parallax._core.errors import SerializationError, WorkerStartError
from parallax._core.plans import Plan
from parallax._guard.effects import Verdict
from parallax._routing.route_choice import MAX_TRIAL_WAIT_S


@pytest.fixture
def world(monkeypatch):
    """An engine without a limit."""
    return World(monkeypatch)


def double(x):
    """The user's function."""
    return 2 * x


def other(x):
    """Another one."""
    return x


# -- routes are chosen from measured calls ---------------------------------------------------------


@pytest.mark.parametrize(("plan", "route"), [(THREADS, "threads"), (PROCESSES, "processes")])
def test_held_calls_follow_the_decision(world, plan, route):
    """The first call runs in a thread; what was submitted meanwhile goes where it was decided."""
    PLANS[double] = [plan]
    first, second, third = (world.submit(double, n) for n in range(3))
    assert len(world.threads.waiting) == 1  # the trial; the others are held
    world.threads.run_next()
    assert first.result(0) == 0
    assert world.choice().route == route
    assert not second.done()
    world.threads.run_next()  # it releases what is held
    if route == "processes":
        assert list(world.processes.waiting) == [second, third]
        assert not world.threads.waiting
        world.processes.answer()
        world.processes.answer()
    else:
        assert list(world.threads.waiting) == [second, third]
        assert world.processes is None
        world.threads.run_all()
    assert [second.result(0), third.result(0)] == [2, 4]
    assert world.choice().ended[route] == 2 + (route == "threads")


def test_calls_are_measured_one_by_one_until_it_is_decided(world):
    """Nothing can be said after two calls: the trial goes on with the third."""
    PLANS[double] = [None, None, PROCESSES]
    calls = [world.submit(double, n) for n in range(5)]
    world.threads.run_next()
    assert [call.done() for call in calls] == [True, True, True, False, False]
    world.threads.run_all()
    assert list(world.processes.waiting) == calls[3:]


def test_the_plan_counts_the_calls_that_are_held(world):
    """How many calls are to come matters for what pays."""
    PLANS[double] = [None, THREADS]
    for n in range(4):
        world.submit(double, n)
    world.threads.run_next()
    assert [remaining for remaining, _ in PROFILERS[double].asked] == [4, 3]


def test_a_decision_during_the_first_call_releases_the_others(world):
    """The sampler decides while the call runs; what is held need not wait for its end."""
    held = []

    def slow(x):
        if x == 0:
            held.append(world.submit(slow, 1))
            PLANS[slow].append(PROCESSES)
            world.clock.now += 0.02
            PROFILERS[slow].on_sample(world.clock.now)
            assert world.choice().route == "processes"
            world.threads.run_next()
            assert list(world.processes.waiting) == held
            PLANS[slow].append(THREADS)
            PROFILERS[slow].on_sample(world.clock.now)
            assert world.choice().route == "processes"  # it is decided
        return x

    PLANS[slow] = []
    first = world.submit(slow, 0)
    world.threads.run_all()
    assert first.result(0) == 0
    assert world.prepared  # worker processes were started meanwhile
    world.processes.answer()
    assert held[0].result(0) == 1


def test_held_calls_wait_for_a_bounded_time(world):
    """A first call that is long and unclear: after a while the others go to threads."""
    held = []

    def unclear(x):
        if x == 0:
            held.append(world.submit(unclear, 1))
            world.clock.now += MAX_TRIAL_WAIT_S * 0.9
            PROFILERS[unclear].on_sample(world.clock.now)
            assert world.choice().route is None
            world.clock.now += MAX_TRIAL_WAIT_S * 0.2
            PROFILERS[unclear].on_sample(world.clock.now)
            assert world.choice().provisional
            world.threads.run_next()
            assert list(world.threads.waiting) == held
            PLANS[unclear].append(PROCESSES)
        return x

    PLANS[unclear] = []
    first = world.submit(unclear, 0)
    world.threads.run_all()
    assert (first.result(0), held[0].result(0)) == (0, 1)
    assert world.choice().route == "processes"  # decided at the end of the first call after all


def test_a_call_behind_short_ones_does_not_wait_without_a_sampler(world):
    """Nobody would end its wait: it goes to a thread at once."""
    held = []

    def short(x):
        if x == 1:
            PROFILERS[short]._stop_sampler()
            held.append(world.submit(short, 2))
            assert world.choice().provisional
        return x

    PLANS[short] = [None]
    calls = [world.submit(short, 0), world.submit(short, 1)]
    world.threads.run_all()
    assert [call.result(0) for call in calls + held] == [0, 1, 2]


def test_each_function_has_its_own_route(world):
    """Two functions, two routes."""
    world.decide(double, PROCESSES, 1)
    world.decide(other, THREADS, 1)
    assert [choice.route for choice in world.engine.functions.choices()] == ["processes", "threads"]
    assert world.engine.pieces(double, (1,))
    assert not world.engine.pieces(other, (1,))


def test_side_effects_keep_calls_in_threads(world):
    """A verdict of the guard needs no measurement, and no trial."""
    VERDICTS[double] = Verdict("process", "it changes a global", None, True)
    call = world.submit(double, 1)
    assert (world.choice().route, world.choice().stay) == ("threads", "it changes a global")
    world.threads.run_all()
    assert call.result(0) == 2
    assert PROFILERS[double].asked == []


def test_one_core_needs_no_measurement(monkeypatch):
    """There is nothing to decide."""
    world = World(monkeypatch, cores=1)
    world.submit(double, 1)
    assert (world.choice().route, world.choice().reason) == ("threads", "there is one core for it")


def test_more_threads_for_calls_that_wait(world):
    """As many as the plan says, if nobody has said how many."""
    world.decide(double, Plan("threads", 20, "it waits"), 1)
    assert world.engine.max_workers == 20


def test_the_route_changes_for_queued_calls(world):
    """Processes whose calls have come to wait: what is queued there goes back to threads."""
    world.decide(double, PROCESSES, 1)
    calls = [world.submit(double, n) for n in range(12)]
    while world.choice().route == "processes":
        world.clock.now += 0.1
        world.processes.answer(wall=0.1, cpu=0.0)
    assert not world.processes.waiting
    assert all(call.data is None for call in calls if not call.done())
    world.threads.run_all()
    assert [call.result(0) for call in calls] == [2 * n for n in range(12)]
    assert world.choice().changes == 1
    assert world.choice().ended["processes"] < 12


@pytest.mark.parametrize("by", ["trial", "guard"])
def test_the_function_is_not_kept_alive(world, by):
    """What it captured may be large; the route is decided, and nothing else needs it."""
    big = type("Big", (), {})()
    gone = weakref.ref(big)

    def captures(x, big=big):
        return x

    if by == "guard":
        VERDICTS[captures] = Verdict("process", "it changes a global", None, True)
    world.decide(captures, THREADS, 1)
    for table in (PLANS, PROFILERS, VERDICTS):
        table.clear()
    del captures, big
    gc.collect()
    assert gone() is None


# -- calls that worker processes give back ---------------------------------------------------------


def test_a_result_that_cannot_be_pickled_is_made_again_in_a_thread(world):
    """And all later calls of the function stay in threads."""
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 4)
    task = world.processes.begin()
    task.settle(None, SerializationError("result", None, "result", "no"))
    assert not call.done()
    assert world.choice().stay
    assert list(world.threads.waiting) == [call]
    world.threads.run_all()
    assert call.result(0) == 8
    assert world.submit(double, 5) in world.threads.waiting


def test_an_error_of_the_call_itself_is_its_result(world):
    """It runs once."""
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 4)
    world.processes.begin().settle(None, ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        call.result(0)
    assert not world.threads.waiting
    assert not world.choice().stay


def test_arguments_that_cannot_be_pickled_stay_here(world):
    """One such call says nothing of the others."""
    world.decide(double, PROCESSES, "a")
    call = world.submit(double, "unpicklable")
    assert list(world.threads.waiting) == [call]
    assert world.submit(double, "b") in world.processes.waiting


def test_no_worker_process_can_be_started(world):
    """All functions stay in threads, and the call that found out runs there."""
    world.decide(double, PROCESSES, 1)
    world.decide(other, PROCESSES, 1)
    call = world.submit(double, 4)
    world.processes.fatal = WorkerStartError("no memory")
    world.processes.begin().settle(None, BrokenExecutor("no memory"))
    world.threads.run_all()
    assert call.result(0) == 8
    assert [choice.route for choice in world.engine.functions.choices()] == ["threads", "threads"]


def test_a_thread_leaves_a_call_alone_that_a_process_has(world):
    """It may come across one in its queue that changed its route."""
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 1)
    call.execute()
    assert not call.done()
    world.processes.answer()
    assert call.result(0) == 2


# -- max_workers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 3])
def test_max_workers_counts_threads_and_processes(monkeypatch, limit):
    """Calls beyond the limit wait in line, and are placed in the order of submission."""
    world = World(monkeypatch, max_workers=limit)
    world.decide(double, PROCESSES, 1)
    world.decide(other, THREADS, 1)
    calls = [world.submit(fn, n) for n in range(4) for fn in (double, other)]
    placed = [*world.processes.waiting, *world.threads.waiting]
    assert len(placed) == limit
    assert set(placed) == set(calls[:limit])
    while not all(call.done() for call in calls):
        assert len(world.processes.waiting) + len(world.threads.waiting) <= limit
        if world.processes.waiting:
            world.processes.answer()
        else:
            world.threads.run_next()
    assert [call.result(0) for call in calls] == [n * k for n in range(4) for k in (2, 1)]


def test_a_trial_counts_until_it_ends(monkeypatch):
    """Between two calls of a trial its thread is not free."""
    world = World(monkeypatch, max_workers=2)
    world.decide(double, PROCESSES, 1)
    waits = []

    def tried(x):
        if x == 0:
            world.submit(tried, 1)
        waits.append(world.submit(double, x) not in world.processes.waiting)
        return x

    PLANS[tried] = []
    first = world.submit(double, 1)
    world.submit(tried, 0)
    world.threads.run_all()
    assert waits == [True, True]
    assert len(world.processes.waiting) == 3  # the place of the trial is free now
    assert first in world.processes.waiting


def test_the_line_moves_when_a_placed_call_is_cancelled(monkeypatch):
    """The oldest that waits takes its place."""
    world = World(monkeypatch, max_workers=2)
    world.decide(double, PROCESSES, 1)
    world.decide(other, THREADS, 1)
    calls = [world.submit(fn, n) for n in range(2) for fn in (double, other)]
    assert calls[1].cancel()
    assert list(world.processes.waiting) == [calls[0], calls[2]]
    assert list(world.threads.waiting) == [calls[1]]  # it leaves the queue in its turn
    world.processes.answer()
    assert list(world.threads.waiting) == [calls[1], calls[3]]


def test_no_call_overtakes_those_in_the_line(monkeypatch):
    """Though it would fit: it would only queue behind those that run on its route."""
    world = World(monkeypatch, max_workers=2)
    world.decide(double, PROCESSES, 1)
    world.decide(other, THREADS, 1)
    calls = [world.submit(fn, 1) for fn in (double, double, other, double)]
    assert list(world.processes.waiting) == calls[:2]
    world.processes.answer()
    assert list(world.threads.waiting) == [calls[2]]


def test_the_places_of_calls_that_come_back_are_free_again(monkeypatch):
    """A call that moves from a process to a thread takes one place, and none at its end."""
    world = World(monkeypatch, max_workers=2)
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 4)
    world.processes.begin().settle(None, SerializationError("result", None, "result", "no"))
    assert world.engine.counts.by_route == {"threads": 1, "processes": 0}
    world.threads.run_all()
    assert call.result(0) == 8
    assert world.engine.counts.by_route == {"threads": 0, "processes": 0}


# -- the end ---------------------------------------------------------------------------------------


def test_shutdown_ends_the_engines_after_the_last_call(world):
    """Not before; and nothing more is accepted."""
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 4)
    world.engine.shutdown(wait=False, cancel=False)
    assert not world.threads.closing
    with pytest.raises(RuntimeError, match="after shutdown"):
        world.submit(double, 5)
    world.processes.answer()
    assert call.result(0) == 8
    assert world.threads.closing
    assert world.processes.closing
    world.engine.shutdown(wait=True, cancel=False)


def test_shutdown_cancels_every_call_that_has_not_begun(monkeypatch):
    """In the line, held for a trial, and queued in either engine."""
    world = World(monkeypatch, max_workers=3)
    world.decide(double, PROCESSES, 1)
    PLANS[other] = []
    calls = [world.submit(double, 1), world.submit(other, 1), world.submit(other, 2)]
    calls += [world.submit(double, n) for n in range(5)]
    world.engine.shutdown(wait=False, cancel=True)
    assert all(call.cancelled() for call in calls)
    assert world.threads.closing
    with pytest.raises(CancelledError):
        calls[0].result(0)


def test_shutdown_cancels_the_line(monkeypatch):
    """Calls that no engine has."""
    world = World(monkeypatch, max_workers=2)
    world.decide(double, PROCESSES, 1)
    world.decide(other, THREADS, 1)
    calls = [world.submit(fn, n) for n in range(4) for fn in (double, other)]
    world.engine.shutdown(wait=False, cancel=True)
    assert all(call.cancelled() for call in calls)


def test_interrupt_reaches_both_engines(world):
    """And cancels what is held."""
    world.decide(double, PROCESSES, 1)
    world.submit(double, 1)
    first, held = world.submit(other, 1), world.submit(other, 2)
    world.engine.interrupt()
    assert world.threads.interrupted
    assert world.processes.interrupted
    assert first.cancelled()
    assert held.cancelled()


def test_stop_reaches_both_engines(world):
    """After a shutdown that cancels."""
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 1)
    world.engine.stop()
    assert call.cancelled()
    assert world.threads.stopped
    assert world.processes.stopped


def test_a_failed_initializer_fails_all_calls(world):
    """Held ones too, and later ones at once."""
    first, held = world.submit(double, 1), world.submit(double, 2)
    world.threads.initializer_fails(ValueError("bad"))
    for call in (first, held):
        with pytest.raises(BrokenExecutor, match="bad"):
            call.result(0)
    with pytest.raises(BrokenExecutor, match="bad"):
        world.submit(double, 3)


def test_an_initializer_that_failed_in_a_process_is_an_error_of_the_executor(world):
    """Its other calls cannot run either."""
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 1)
    world.processes.fatal = ValueError("bad")
    world.processes.begin().settle(None, BrokenExecutor("bad"))
    assert isinstance(call.exception(0), BrokenExecutor)
    with pytest.raises(BrokenExecutor, match="bad"):
        world.submit(double, 3)


def test_calls_in_the_line_fail_with_an_initializer_in_a_process(monkeypatch):
    """No worker would ever take them."""
    world = World(monkeypatch, max_workers=2)
    world.decide(double, PROCESSES, 1)
    world.decide(other, THREADS, 1)
    calls = [world.submit(fn, 1) for fn in (double, double, other)]
    world.processes.fatal = ValueError("bad")
    world.processes.begin().settle(None, BrokenExecutor("bad"))
    assert isinstance(calls[2].exception(0), BrokenExecutor)


def test_a_running_call_of_a_process_can_be_killed(world):
    """One of a thread cannot."""
    world.decide(double, PROCESSES, 1)
    call = world.submit(double, 1)
    world.engine.kill(call)
    assert world.processes.killed == [call]
    world.engine.kill(world.submit(other, 1))
    assert world.processes.killed == [call]
