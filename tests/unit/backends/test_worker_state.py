"""The states of workers: whatever happens in whatever order, nothing is lost and nobody has two.

Hypothesis moves the workers of an executor, those of a run and those of the pool; after every step
what must hold is checked. No process is started.
"""

from __future__ import annotations

import socket
import threading
import types

import pytest
from helpers.effort import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallax._backends.contract import Call, Died, Done, Joined, Left, Refused, Unable, Yielded
from parallax._backends.processes.common import protocol
from parallax._backends.processes.parent import worker_set
from parallax._backends.processes.parent import worker_state as states
from parallax._backends.processes.parent.function_cache import Known
from parallax._backends.processes.parent.map_workers import ProcessCrew
from parallax._backends.processes.parent.output_receiver import OutputReceiver
from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.run_call import RunCall
from parallax._backends.processes.parent.task import Task
from parallax._backends.processes.parent.task_workers import TaskWorkers
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.parent.worker_state import (
    CONDEMNED,
    GONE,
    LEAVING,
    STARTING,
    TRANSITIONS,
    WORKING,
    WorkerLife,
)
from parallax._core.chunks import Chunk
from parallax._shm.arena import release_when_unused
from parallax._transport import codec
from tests.helpers.leaks import pool_resources
from tests.helpers.worker_checks import check_pool, check_task_workers, check_workers
from tests.unit.backends.fake_workers import FakePool, FakeProcess

EACH = settings(max_examples=examples(120), stateful_step_count=50, deadline=None)


def test_every_state_has_a_row():
    """The table is whole."""
    named = {value for name, value in vars(states).items() if name.isupper() and type(value) is str}
    assert set(TRANSITIONS) == named


def reachable(state):
    found, fresh = set(), {state}
    while fresh:
        found |= fresh
        fresh = set().union(*(TRANSITIONS[each] for each in fresh)) - found
    return found


@pytest.mark.parametrize("state", TRANSITIONS)
def test_ways(state):
    """Nothing is a dead end but the end, and nothing comes back from there, or to the start."""
    assert state in reachable(STARTING)
    assert GONE in reachable(state)
    assert STARTING not in TRANSITIONS[state]
    if state in {LEAVING, GONE}:
        assert reachable(state) <= {LEAVING, GONE}


@pytest.mark.parametrize("state", TRANSITIONS)
def test_a_wrong_transition_raises(state):
    """The table is obeyed, and the message names both states."""
    for wrong in TRANSITIONS.keys() - TRANSITIONS[state]:
        life = WorkerLife()
        life.state = state
        with pytest.raises(AssertionError, match=f"{state} cannot be {wrong}"):
            life.enter(wrong)
        assert life.state == state


def test_condemn_is_idempotent():
    """Also for one that is gone already."""
    life = WorkerLife()
    life.condemn()
    life.condemn()
    assert life.state == CONDEMNED
    life.enter(LEAVING)
    life.condemn()
    assert life.state == LEAVING
    assert not life.alive


class FakeWorkersMachine(RuleBasedStateMachine):
    """What workers do by themselves."""

    def __init__(self):
        super().__init__()
        self.pool = FakePool()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(worker_set, "warm_pool", self.spare_pool)
        self.patch.setattr(worker_set, "_told", {"why"})

    def spare_pool(self, method, rights):
        assert method == self.pool.spare
        self.pool.spare = ""
        return self.pool

    def some(self, number, wanted):
        for process in self.pool.running:
            process.read()
        found = [process for process in self.pool.running if wanted(process)]
        return found[number % len(found)] if found else None

    @rule(number=st.integers(0, 2), all_of_them=st.booleans())
    def hello(self, number, all_of_them):
        fresh = [process for process in self.pool.running if not process.greeted]
        for process in fresh if all_of_them else fresh[number : number + 1]:
            process.hello()

    @rule(
        number=st.integers(0, 2),
        fault=st.sampled_from(["exit", "unread", "garbage", "late"]),
        code=st.sampled_from([0, 1, -9, -15, -11]),
    )
    def fail(self, number, fault, code):
        running = self.pool.running
        if fault == "late":
            running = [process for process in running if not process.greeted]
        for process in running[number : number + 1]:
            if fault == "late":
                process.deadline = 0.0
            elif fault == "garbage":
                process.garbage()
            else:
                if fault == "exit":
                    process.read()
                process.end(code)

    @rule(number=st.integers(0, 2))
    def cannot_load(self, number):
        """What it owes runs elsewhere."""
        if process := self.some(number, lambda each: each.greeted):
            process.bye(protocol.CANNOT_LOAD)

    def teardown(self):
        self.patch.undo()
        self.pool.close()


class TasksMachine(FakeWorkersMachine):
    """An executor's tasks: each is queued, held by one worker, or has ended once."""

    def __init__(self):
        super().__init__()
        encoded = codec.encode((len, False, False, []))
        self.known = [Known(key, encoded, frozenset) for key in (1, 2)]
        self.engine = types.SimpleNamespace(
            lock=threading.RLock(), withdraw=lambda task: setattr(task, "data", None)
        )
        self.tasks, self.ended, self.cancelled = [], {}, set()
        self.borrowed = []
        self.workers = TaskWorkers(
            3,
            self.pool,
            wake=lambda: None,
            died=lambda end, attempts: ChildProcessError(end, attempts),
            broken=lambda cause: RuntimeError(cause),
            initializer=None,
            max_tasks=9,
            greeted=lambda: None,
            timed=None,
        )

    @rule(count=st.integers(1, 5), key=st.integers(0, 1), size=st.sampled_from([9, 9, 70_000]))
    def submit(self, count, key, size):
        for _ in range(count if self.workers.fatal is None else 0):
            task = Task(self.engine, self.known[key], codec.encode(((bytes(size),), {})))
            self.tasks.append(task)
            if not self.workers.queued(task):
                self.workers.add(task)

    @rule()
    def serve(self):
        """A turn of the engine's thread."""
        if self.workers.fatal is not None:
            self.workers.fail_all()
        self.workers.serve(self.workers.selector().select(0))
        self.workers.advance()
        self.workers.look_after()

    @rule()
    def look(self):
        """What is due later is due now."""
        for worker in self.workers.workers.values():
            worker.recalled_at = 0.0
            for batch in worker.batches:
                batch.since = 0.0
        self.workers.look_at = 0.0
        self.serve()

    @rule(number=st.integers(0, 2), count=st.integers(1, 4), serve=st.booleans())
    def answer(self, number, count, serve):
        if process := self.some(number, lambda each: each.greeted and each.work):
            process.answer(count)
        if serve:
            self.serve()

    @rule(number=st.integers(0, 2), key=st.integers(0, 1))
    def recall(self, number, key):
        """Short tasks wait behind one that takes long."""
        self.submit(5, key, 9)
        self.look()
        if process := self.some(number, lambda each: each.recalled):
            process.give_back()
        self.serve()

    @rule(number=st.integers(0, 2))
    def borrow(self, number):
        found = [w for w in self.workers.workers.values() if w.state is WORKING]
        for worker in found[number : number + 1]:
            self.workers.borrow(worker)
            self.borrowed.append(worker)

    @precondition(lambda self: self.borrowed)
    @rule()
    def give_back_borrowed(self):
        self.workers.return_borrowed(self.borrowed.pop())

    @precondition(lambda self: self.tasks)
    @rule(
        number=st.integers(0, 99),
        how=st.sampled_from(["cancel", "cancel", "kill", "kill", "interrupt"]),
    )
    def end(self, number, how):
        task = self.tasks[number % len(self.tasks)]
        if how == "cancel":
            if task.cancel():
                self.cancelled.add(task)
        elif how == "kill":
            if task.running() and task not in self.ended:
                self.workers.killer.add(task)
                if self.workers.queue.drop(task):
                    self.ended[task] = None
        else:
            for queued in self.workers.queue.take_back(lambda _: True):
                queued.cancel()
                self.cancelled.add(queued)
            self.workers.end_held()

    @rule(seconds=st.sampled_from([0.0, 100.0, None]))
    def rest_after(self, seconds):
        self.workers.idle_limit = seconds

    @invariant()
    def nothing_is_lost(self):
        check_task_workers(self.workers)
        for task, value, error in self.workers.take_finished():
            assert task not in self.ended
            assert value == 7 or error is not None
            self.ended[task] = error
        queued, held = set(self.workers.queue.tasks), set(self.workers.held)
        for task in self.tasks:
            if task not in self.cancelled:
                assert (task in queued) + (task in held) + (task in self.ended) == 1

    def teardown(self):
        """Left alone, all comes to its end."""
        while self.borrowed:
            self.give_back_borrowed()
        for _ in range(3 * len(self.tasks) + 9):
            if self.workers.resting:
                break
            for process in self.pool.running:
                if not process.greeted:
                    process.hello()
                process.read()
                process.answer(9)
            self.serve()
            self.nothing_is_lost()
        assert self.workers.resting
        for worker in self.workers.end():
            assert worker.state is LEAVING
        self.workers.selector().close()
        super().teardown()


class ChunksMachine(FakeWorkersMachine):
    """A run's chunks: each ends in one event, or with its worker."""

    def __init__(self):
        super().__init__()
        self.sent, self.joined, self.events = {}, {}, []
        self.open_count = 0
        self.numbers = iter(range(1, 10**6))
        call = RunCall(Call(len, star=False, stop=False), tuple)
        self.crew = ProcessCrew(
            self.events.append,
            threading.RLock(),
            call,
            pool=self.pool,
            limit=9,
            idle_timeout=60.0,
            new_id=lambda: next(self.numbers),
            surround=lambda count: b"",
            wait=False,
            output=OutputReceiver(),
            items=20,
        )

    @rule(count=st.integers(0, 3), eager=st.booleans())
    def open(self, count, eager):
        self.crew.eager = eager
        self.crew.open(count)

    @precondition(lambda self: self.joined)
    @rule(number=st.integers(0, 2), items=st.integers(1, 4))
    def send(self, number, items):
        worker = list(self.joined)[number % len(self.joined)]
        if self.joined[worker] >= items:
            self.joined[worker] -= items
            chunk = Chunk(next(self.numbers), 0, items)
            self.sent[chunk.id] = worker
            self.crew.send(worker, chunk, [b"x"] * items)

    @rule()
    def poll(self):
        self.crew.poll(0.0)

    @rule(number=st.integers(0, 2), poll=st.booleans())
    def answer(self, number, poll):
        if process := self.some(number, lambda each: each.greeted and each.work):
            process.answer_chunk()
        if poll:
            self.crew.poll(0.0)

    @rule(number=st.integers(0, 2), keep=st.integers(0, 2))
    def give_back(self, number, keep):
        if process := self.some(number, lambda each: each.greeted and each.work):
            process.yield_chunks(keep)

    @rule(number=st.integers(0, 2), worn=st.booleans())
    def bye(self, number, worn):
        if process := self.some(number, lambda each: each.greeted and not each.work):
            process.bye(protocol.AT_LIMIT if worn else 0)

    @invariant()
    def events_fit(self):
        check_workers(self.crew)
        for event in self.events:
            if isinstance(event, Joined):
                assert event.worker not in self.joined
                self.joined[event.worker] = event.quota
            elif isinstance(event, Done | Refused):
                assert self.sent.pop(event.chunk) == event.worker
            elif isinstance(event, Yielded):
                if not event.keep:
                    assert self.sent.pop(event.chunk) == event.worker
            elif isinstance(event, Died | Left):
                self.joined.pop(event.worker, None)
                self.sent = {c: w for c, w in self.sent.items() if w != event.worker}
            else:
                assert isinstance(event, Unable)
        self.events.clear()
        held = {c: w.number for w in self.crew.workers.values() for c in w.flight}
        assert held == self.sent
        assert set(self.joined) <= set(self.crew.workers)

    def teardown(self):
        clients = list(self.crew.workers.values())
        self.crew.close(0.0)
        assert not any(client.alive for client in clients)
        super().teardown()


class PoolMachine(RuleBasedStateMachine):
    """The pool's workers: each is idle, with one holder, or on its way out."""

    def __init__(self):
        super().__init__()
        self.pool = Pool("spawn")
        self.processes, self.lent, self.hired = [], [], []
        self.pool._starter.start = self.start

    def start(self, sock, handles, initializer, *, load):
        process = FakeProcess(socket.socket(fileno=socket.dup(sock.fileno())), len(self.processes))
        self.processes.append(process)
        return process

    @rule(count=st.integers(1, 3))
    def lease(self, count):
        for worker in self.pool.lease(count, 6, wait=False):
            assert worker.state in {STARTING, WORKING}
            assert worker not in self.lent
            self.lent.append(worker)

    @rule()
    def hire(self):
        self.hired.append(self.pool.hire(WorkerClient))

    @rule(number=st.integers(0, 2))
    def hello(self, number):
        found = [p for p in self.processes if p.code is None and not p.greeted]
        if found:
            found[number % len(found)].hello()

    @precondition(lambda self: self.lent)
    @rule(number=st.integers(0, 2))
    def greet(self, number):
        worker = self.lent[number % len(self.lent)]
        if worker.started.greeted and worker.state is STARTING:
            worker.channel.receive()
            self.pool.greet(worker, 1)

    @precondition(lambda self: self.lent)
    @rule(how=st.sampled_from(["back", "back", "discard", "kill", "retire"]), tell=st.booleans())
    def part(self, how, tell):
        worker = self.lent.pop()
        if how == "back":
            self.pool.give_back(worker, 1.0 if tell else None)
        elif how == "retire":
            self.pool.retire(worker)
        else:
            self.pool.discard(worker, kill=how == "kill", timeout=0.0)

    @precondition(lambda self: self.hired)
    @rule()
    def dismiss(self):
        worker = self.hired.pop()
        self.pool.retire(worker)
        worker.started.end(0)
        self.pool.settle(0.0)
        assert worker.state is GONE

    @rule(number=st.integers(0, 2), said=st.booleans())
    def end(self, number, said):
        found = [p for p in self.processes if p.code is None]
        if found:
            process = found[number % len(found)]
            process.bye() if said else process.end(-9)

    @rule()
    def resources(self):
        pool_resources(self.pool)
        self.pool.settle(0.0)

    @invariant()
    def each_has_one_holder(self):
        check_pool(self.pool)
        assert self.pool._alive - set(self.pool._idle) == set(self.lent)
        assert self.pool._hired == set(self.hired)

    def teardown(self):
        for process in self.processes:
            process.end(0)
        for worker in self.hired:
            self.pool.discard(worker, kill=True)
        self.pool.shutdown()
        release_when_unused()


def test_a_late_worker_is_given_up():
    """What it was started for is done by another one."""
    machine = TasksMachine()
    machine.submit(1, 0, 9)
    (worker,) = machine.workers.workers.values()
    worker.started.deadline = 0.0
    machine.look()
    assert worker.state is LEAVING
    assert len(machine.pool.running) == 1
    machine.teardown()
    assert machine.ended == {machine.tasks[0]: None}


TestTasks = TasksMachine.TestCase
TestTasks.settings = EACH
TestChunks = ChunksMachine.TestCase
TestChunks.settings = EACH
TestPool = PoolMachine.TestCase
TestPool.settings = EACH
