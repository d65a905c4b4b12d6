"""The dispatcher and its flow, with crews in memory: any order of events ends in all results."""

from __future__ import annotations

import itertools

import pytest
from helpers.effort import examples
from helpers.fake_crew import FakeCrew
from helpers.scheduler_checks import check_flow
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax import ItemTimeoutError, SerializationError, WorkerDiedError, WorkerStartError
from parallax._backends.contract import Unable
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.options import Options
from parallax._run import chunk_flow
from parallax._run.dispatcher import Dispatcher
from parallax._run.listener import Listener
from parallax._scheduling.input import Input

now = [0.0]


@pytest.fixture(autouse=True)
def fake_clock(monkeypatch):
    now[0] = 0.0
    monkeypatch.setattr(chunk_flow, "clock", lambda: now[0])


class OopsError(Exception):
    pass


class Machine:
    """One run: its dispatcher, its crews and its reader."""

    def __init__(self, items, *, fn=None, slow_input=False, stream=False, other=None, **options):
        now[0] = 0.0  # each of hypothesis's examples from the same time on
        self.count = items
        source = (i for i in range(items)) if slow_input else list(range(items))
        self.fn = fn or (lambda item: item * 2)
        self.options = Options(**options)
        self.other = other  # the route that troubles lead to
        self.done = []
        self.troubles = []
        listener = Listener(self.on_done, self.on_trouble, lambda: None)
        self.source = Input((source,), strict=False)
        self.dispatch = Dispatcher(self.source, self.options, listener, stream=stream)
        self.flow = self.dispatch.flow
        self.results = []
        self.over = False

    def begin(self, workers, route="processes", *, caller=False, keeps_caller=False, **known):
        known = {"mean": None, "guess": None, "first": 0} | known
        self.flow.begin(**known, caller=caller, keeps_caller=keeps_caller)
        self.dispatch.direct(route, workers, self.make)
        return self.crew(route) if route != "loop" else None

    def make(self, route):
        stop = self.options.on_error == "raise"
        new_id = self.flow.table.new_id
        return FakeCrew(self.dispatch.post, new_id, self.fn, route=route, stop=stop)

    def crew(self, route):
        return self.flow.table.crews[route]

    def on_done(self, done, route, first):
        self.done.append((done.worker, route))

    def on_trouble(self, event):
        self.troubles.append(event)
        if self.other is None:
            return False
        self.dispatch.direct(self.other, 1, self.make)
        return True

    def take(self):
        ready, self.over = self.dispatch.take()
        self.results += ready
        self.check()

    def check(self):
        if self.flow.fatal is None:
            check_flow(self.flow)

    def run_task(self):
        """The caller's thread runs the chunk that waits for it."""
        _, items = self.dispatch.take_task()
        values, failures = [], []
        for offset, item in enumerate(items):
            try:
                values.append(self.fn(item))
            except Exception as error:
                values.append(None)
                failures.append(Failure(offset, error))
                if self.options.on_error == "raise":
                    break
        self.dispatch.post_caller(ChunkResult(values, tuple(failures), 0.001, 0.001))

    def crews(self):
        return list(self.flow.table.crews.values())

    def drain(self):
        """To the end: workers join and work, the reader reads."""
        for _ in range(3000):
            self.take()
            if self.over or self.flow.fatal is not None:
                return
            now[0] += 0.001
            busy = [(crew, worker) for crew in self.crews() for worker in crew.busy()]
            starting = [crew for crew in self.crews() if crew.starting]
            if self.flow.caller_task is not None:
                self.run_task()
            elif busy:
                crew, worker = busy[0]
                (crew.die if worker in crew.killed else crew.finish)(worker)
            elif not self.dispatch.pull() and starting:
                starting[0].join()
        raise AssertionError("the run does not end")


# -- any course of events ------------------------------------------------------------------------


class Course(Machine):
    """A run whose events hypothesis draws."""

    def __init__(self, data, items, *, fails, deadly, **options):
        super().__init__(items, fn=self.call, **options)
        self.draw = data.draw
        self.fails, self.deadly = fails, deadly

    def call(self, item):
        if self.fails.get(item, 0):
            self.fails[item] -= 1
            raise OopsError(item)
        return item * 2

    def choices(self):
        found = ["take", "time"]
        if not self.source.anywhere:
            found.append("pull")
        if self.flow.caller_task is not None:
            found.append("task")
        for route, crew in self.flow.table.crews.items():
            busy = crew.busy()
            found += [("join", route)] * bool(crew.starting)
            found += [("finish", route)] * (3 * len(busy))
            found += [("give_back", route), ("refuse", route)] * bool(busy)
            found += [("die", route), ("leave", route)] * bool(crew.held)
        return [*found, ("direct", self.draw(st.sampled_from(["processes", "threads", "loop"])))]

    def step(self):
        choice = self.draw(st.sampled_from(self.choices()))
        if choice == "take":
            self.take()
        elif choice == "time":
            now[0] += self.draw(st.sampled_from([0.001, 0.03, 2.0]))
            self.dispatch.tick()
        elif choice == "pull":
            self.dispatch.pull()
        elif choice == "task":
            self.run_task()
        elif choice[0] == "direct":
            self.dispatch.direct(choice[1], self.draw(st.integers(1, 3)), self.make)
        else:
            self.act(self.crew(choice[1]), choice[0])
        self.check()

    def act(self, crew, action):
        if action == "join":
            crew.join(self.draw(st.none() | st.integers(1, 4)))
            return
        idle = action in {"die", "leave"}
        worker = self.draw(st.sampled_from(sorted(crew.held) if idle else crew.busy()))
        if action == "finish":
            items = crew.held[worker][0][1]
            if worker in crew.killed or self.deadly.intersection(items):
                crew.die(worker)
            else:
                crew.finish(worker)
        elif action == "die":
            crew.die(worker, began=self.draw(st.booleans()))
        elif action == "give_back":
            crew.give_back(worker, self.draw(st.integers(0, 3)))
        elif action == "leave":
            crew.leave(worker, worn=self.draw(st.booleans()))
        else:
            crew.refuse(worker)

    def drain(self):
        self.deadly = set()
        super().drain()


@settings(max_examples=examples(150), deadline=None)
@given(
    data=st.data(),
    items=st.integers(0, 25),
    slow_input=st.booleans(),
    stream=st.booleans(),
    fails=st.dictionaries(st.integers(0, 24), st.integers(1, 3), max_size=3),
    deadly=st.sets(st.integers(0, 24), max_size=2),
    options=st.fixed_dictionaries(
        {
            "chunksize": st.none() | st.integers(1, 4),
            "ordered": st.booleans(),
            "retries": st.integers(0, 2),
            "on_error": st.sampled_from(["raise", "return"]),
            "buffersize": st.none() | st.integers(1, 6),
        }
    ),
    steps=st.integers(0, 40),
)
def test_any_course_of_events(data, items, slow_input, stream, fails, deadly, options, steps):
    """Every item is emitted exactly once, in order, and the run ends."""
    course = Course(
        data,
        items,
        fails=dict(fails),
        deadly=deadly,
        slow_input=slow_input,
        stream=stream,
        **options,
    )
    course.begin(data.draw(st.integers(1, 3)), caller=data.draw(st.booleans()))
    for _ in range(steps):
        course.step()
        if course.over:
            break
    if not course.over:
        course.drain()
    assert course.flow.fatal is None
    results = course.results
    seen = [result // 2 for result in results if isinstance(result, int)]
    assert len(seen) == len(set(seen)), "emitted twice"
    if options["ordered"]:
        assert seen == sorted(seen)
        for index, result in enumerate(results):
            assert result == 2 * index if isinstance(result, int) else failed_at(result) == index
    if options["on_error"] == "raise":
        failure = course.dispatch.failure()
        if failure is not None:
            assert options["ordered"] is False or len(results) == failed_at(failure)
            return
        assert all(isinstance(result, int) for result in results)
    assert len(results) == items


def failed_at(error):
    """The index of the item that an error is about."""
    return error.args[0] if isinstance(error, OopsError) else error.index


# -- rule by rule --------------------------------------------------------------------------------


def test_a_caller_works_until_the_others_are_up():
    """Then it gets nothing more, and what it has still counts."""
    machine = Machine(4, chunksize=1)
    crew = machine.begin(1, caller=True)
    assert machine.flow.caller_task is not None
    crew.join()
    machine.run_task()
    assert machine.flow.caller_task is None
    machine.drain()
    assert machine.results == [0, 2, 4, 6]
    assert crew.ran == [1, 2, 3]


def test_a_caller_that_is_kept_works_beside_the_others():
    """As nested calls do, whose thread is one of their workers."""
    machine = Machine(4, chunksize=1)
    crew = machine.begin(1, "threads", caller=True, keeps_caller=True)
    crew.join()
    machine.run_task()
    assert machine.flow.caller_task is not None


def test_items_that_the_caller_is_inside_of():
    """They belong to the run from its begin on, and are not handed to the caller again."""
    machine = Machine(3)
    inside = machine.source.take(1)
    machine.flow.begin(0, None, None, caller=True, keeps_caller=False, inside=inside)
    machine.check()
    assert machine.flow.caller_task is None
    machine.dispatch.direct("processes", 1, machine.make)
    machine.crew("processes").join()
    machine.dispatch.post_caller(ChunkResult(["inside"], (), 0.1, 0.1))
    machine.drain()
    assert machine.results == ["inside", 2, 4]


def test_results_that_were_there_before():
    """The first items were finished by a loop: the run begins behind them."""
    machine = Machine(5)
    machine.source.take(2)
    machine.begin(1, first=2, mean=0.001)
    machine.drain()
    assert machine.results == [4, 6, 8]


def test_a_dead_worker_is_replaced_and_its_items_run_again():
    """Of several items none is to blame; each then runs alone."""
    machine = Machine(6, chunksize=3)
    crew = machine.begin(1)
    worker = crew.join()
    crew.die(worker)
    assert crew.size == 1
    machine.drain()
    assert machine.results == [0, 2, 4, 6, 8, 10]
    assert machine.flow.losses.lost
    (note,) = machine.flow.losses.notes()
    assert note.startswith(f"worker process {1000 + worker} was lost with items 0 to 2 in flight")
    assert machine.flow.in_flight.rerun == 3


def test_an_item_that_ends_its_worker_gets_the_blame():
    """The error tells how the worker ended."""
    machine = Machine(2, chunksize=1, on_error="return")
    crew = machine.begin(1)
    crew.die(crew.join())
    machine.drain()
    error, value = machine.results
    assert isinstance(error, WorkerDiedError)
    assert (error.index, error.exitcode, value) == (0, -9, 2)


def test_an_item_that_overruns_its_time():
    """Its worker is killed once, and the error is that of the limit."""
    machine = Machine(2, item_timeout=1.0, on_error="return")
    crew = machine.begin(1)
    worker = crew.join()
    now[0] = machine.dispatch.deadline()
    machine.dispatch.tick()
    assert crew.killed == [worker]
    crew.die(worker)
    machine.drain()
    assert isinstance(machine.results[0], ItemTimeoutError)
    assert machine.results[1] == 2


def test_a_failed_item_of_a_retired_caller_finds_a_worker():
    """Those that were up have left meanwhile, because nothing was to be sent."""
    fails = [OopsError(0)]

    def fn(item):
        if fails:
            raise fails.pop()
        return item

    machine = Machine(1, fn=fn, retries=1)
    crew = machine.begin(1, caller=True)
    crew.die(crew.join(), began=False)
    assert crew.size == 0
    machine.run_task()
    assert crew.size == 1
    machine.drain()
    assert machine.results == [0]


def test_a_worker_at_its_limit_is_replaced():
    """It lost nothing, and is counted."""
    machine = Machine(4, chunksize=2)
    crew = machine.begin(1)
    crew.leave(crew.join())
    crew.leave(crew.join(), worn=False)
    machine.drain()
    assert machine.results == [0, 2, 4, 6]
    assert (machine.flow.losses.recycled, machine.flow.losses.lost) == (1, [])
    assert machine.flow.in_flight.rerun == 0


def test_an_idle_worker_is_given_what_another_one_gives_back():
    """A recall reaches the crew, and the items come back in the order of the input."""
    machine = Machine(40, chunksize=20)
    crew = machine.begin(1, "processes", mean=0.1)
    machine.dispatch.direct("processes", 2, machine.make)
    first, second = crew.join(), crew.join()
    now[0] = 0.005
    crew.finish(first, wall=0.1)
    assert crew.recalled == [second]
    crew.give_back(second, 4)
    assert sorted(crew.busy()) == [first, second]
    machine.drain()
    assert machine.results == [2 * i for i in range(40)]


def test_a_chunk_that_cannot_be_sent_goes_another_way():
    """The listener has found one: nothing of it ran, and no item is lost."""
    machine = Machine(4, chunksize=2, other="loop")
    crew = machine.begin(1)
    crew.refuse(crew.join())
    assert machine.flow.route == "loop"
    machine.drain()
    assert machine.results == [0, 2, 4, 6]


def test_a_chunk_that_cannot_be_sent_is_taken_apart():
    """Without another way the item that is to blame is found alone."""
    machine = Machine(2, chunksize=2, on_error="return")
    crew = machine.begin(1)
    worker = crew.join()
    crew.refuse(worker)
    crew.refuse(worker)
    machine.drain()
    error, value = machine.results
    assert isinstance(error, SerializationError)
    assert (error.index, error.path, value) == (0, "item.lock", 2)


def test_a_callable_that_cannot_be_sent_ends_the_run():
    """No item of it can run there."""
    machine = Machine(2)
    crew = machine.begin(1)
    crew.refuse(crew.join(), what="callable")
    assert isinstance(machine.flow.fatal, SerializationError)


def test_a_result_that_cannot_be_sent_is_made_again_elsewhere():
    """It does not count as a retry, and as run again."""
    machine = Machine(2, chunksize=2, other="loop")
    machine.begin(1)
    crew = machine.crew("processes")
    error = SerializationError("result", None, "result.lock", "why")
    crew.fn = lambda item: (_ for _ in ()).throw(error) if item == 0 else item
    crew.stop = False
    crew.finish(crew.join())
    machine.drain()
    assert machine.results == [0, 1]
    assert machine.flow.in_flight.rerun == 1


def test_no_workers_at_all():
    """Without another way that ends the run; with one it does not."""
    machine = Machine(2)
    machine.begin(1)
    machine.dispatch.post(Unable("no memory"))
    assert isinstance(machine.flow.fatal, WorkerStartError)
    machine = Machine(2, other="loop")
    machine.begin(1)
    machine.dispatch.post(Unable("no memory"))
    machine.drain()
    assert machine.results == [0, 2]


def test_a_crew_whose_selector_cannot_be_watched():
    """It is closed, and the run is told that there are no workers."""
    machine = Machine(2, other="loop")

    class Deaf(FakeCrew):
        def selector(self):
            raise OSError("too many open files")

    crews = []

    def make(route):
        crews.append(Deaf(machine.dispatch.post, machine.flow.table.new_id, machine.fn))
        return crews[0]

    machine.flow.begin(0, None, None, caller=False, keeps_caller=False)
    machine.dispatch.direct("processes", 1, make)
    assert [event.reason for event in machine.troubles] == ["too many open files"]
    assert crews[0].closed == 0.0
    machine.drain()
    assert machine.results == [0, 2]


def test_workers_of_the_old_route_work_until_the_new_ones_are_up():
    """And get nothing more after that."""
    machine = Machine(40, chunksize=1)
    threads = machine.begin(1, "threads")
    old = threads.join()
    machine.dispatch.direct("processes", 1, machine.make)
    threads.finish(old)
    assert threads.busy() == [old]
    machine.crew("processes").join()
    threads.finish(old)
    assert threads.busy() == []


def test_an_interrupt_of_an_item_ends_the_run():
    """Whatever ``on_error`` says."""

    def fn(item):
        raise KeyboardInterrupt

    machine = Machine(2, fn=fn, on_error="return")
    crew = machine.begin(1)
    crew.stop = True
    crew.finish(crew.join())
    assert isinstance(machine.flow.fatal, KeyboardInterrupt)


def test_what_is_finished_is_the_error_of_the_lowest_item():
    """An earlier item that is still running may fail too."""

    def fn(item):
        raise OopsError(item)

    machine = Machine(4, fn=fn, chunksize=1)
    crew = machine.begin(2)
    first, second = crew.join(), crew.join()
    crew.finish(second)
    machine.take()
    assert not machine.over
    assert failed_at(machine.dispatch.failure()) == 1
    crew.finish(first)
    machine.take()
    assert machine.over
    assert failed_at(machine.dispatch.failure()) == 0


def test_an_item_that_succeeds_in_a_retry_is_not_the_error():
    """The error of the run is that of the item that failed for good."""
    fails = {0: 1, 1: 2}

    def fn(item):
        if fails.get(item):
            fails[item] -= 1
            raise OopsError(item)
        return item

    machine = Machine(2, fn=fn, chunksize=1, retries=1)
    machine.begin(1)
    machine.drain()
    assert machine.results == [0]
    assert failed_at(machine.dispatch.failure()) == 1


def test_events_from_inside_of_an_event_wait_for_its_end():
    """A crew may report while it is sent a chunk."""
    machine = Machine(6, chunksize=1)
    crew = machine.begin(1)
    finish = itertools.count()

    def send(worker, chunk, items):
        FakeCrew.send(crew, worker, chunk, items)
        next(finish)
        crew.finish(worker)

    crew.send = send
    crew.join()
    machine.take()
    assert machine.results == [0, 2, 4, 6, 8, 10]
    assert next(finish) == 6


def test_events_are_handled_in_the_order_in_which_they_came():
    """A worker that leaves has said before what became of its chunk: it is not run again."""
    machine = Machine(1)
    crew = machine.begin(1)

    def send(worker, chunk, items):
        FakeCrew.send(crew, worker, chunk, items)
        crew.finish(worker)
        crew.leave(worker)

    crew.send = send
    crew.join()
    machine.drain()
    assert (machine.results, crew.ran) == ([0], [0])


def test_a_listener_that_fails_ends_the_run():
    """What goes wrong in a worker's thread must reach the caller."""
    machine = Machine(2)
    crew = machine.begin(1)

    def fail(done, route, first):
        raise LookupError("planner")

    machine.flow.listener = Listener(fail, machine.on_trouble, lambda: None)
    crew.finish(crew.join())
    assert isinstance(machine.flow.fatal, LookupError)


def test_the_input_is_read_as_far_as_it_is_wanted():
    """A generator is advanced by the reader only, and not beyond the window."""
    machine = Machine(100, slow_input=True, stream=True, buffersize=3, chunksize=1)
    crew = machine.begin(2)
    crew.join()
    crew.join()
    assert crew.busy() == []
    while machine.dispatch.pull():
        pass
    assert machine.source.taken == 2
    crew.finish(crew.busy()[0])
    while machine.dispatch.pull():
        pass
    assert machine.source.taken == 3
    machine.take()
    while machine.dispatch.pull():
        pass
    assert machine.source.taken == 4


def test_the_way_home_when_only_the_caller_has_a_chunk():
    """No worker's event is to be awaited: the caller's thread gets its chunk back at once."""
    machine = Machine(3, chunksize=1)
    crew = machine.begin(1, caller=True, mean=0.001)
    crew.starting.clear()  # its start goes on for long
    machine.dispatch.direct("loop", 1, machine.make)
    machine.drain()
    assert machine.results == [0, 2, 4]


def test_close_ends_every_crew_and_late_events_do_nothing():
    """What a crew reports while it is closed has no listener any more."""
    machine = Machine(4, chunksize=1)
    threads = machine.begin(1, "threads")
    worker = threads.join()
    machine.dispatch.direct("processes", 1, machine.make)
    processes = machine.crew("processes")
    machine.dispatch.close(1.5)
    assert (threads.closed, processes.closed) == (1.5, 1.5)
    threads.die(worker)
    machine.dispatch.post(Unable("late"))
    assert machine.troubles == []


def test_workers_are_asked_for_when_the_route_is_chosen():
    """What their making takes is part of their start; those of before keep their times."""
    machine = Machine(40)

    def make_slowly(route):
        made = machine.make(route)
        now[0] += 1.0
        return made

    machine.flow.begin(0, None, None, caller=False, keeps_caller=False)
    for chosen, route in [(3.0, "processes"), (7.0, "threads")]:
        now[0] = chosen
        machine.dispatch.direct(route, 2, make_slowly)
    assert list(machine.flow.table.asked_for.values()) == [3.0, 3.0, 7.0, 7.0]
