"""The workers of an executor, the tasks that they hold and those that wait for one.

Guarantees: a task that waits goes to an idle worker at once; to a busy one only if both are known
to be short, and it is recalled from there when the worker turns out to be busy for long; a worker
that dies fails only the task that it was running, everything else it held runs elsewhere.
Assumptions: the engine's lock guards every method; the engine takes tasks that have ended, and
settles them without the lock: callbacks run then.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.common import protocol
from parallax._backends.processes.parent.environment_capture import capture_environment
from parallax._backends.processes.parent.output_receiver import OutputReceiver
from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.task import Batch, Finished, Task, TaskWorker, outcomes
from parallax._backends.processes.parent.task_killer import MAX_SILENCE_S, TaskKiller
from parallax._backends.processes.parent.task_queue import TaskQueue
from parallax._backends.processes.parent.worker_set import EXIT_STATUS_TIMEOUT_S, Loss, WorkerSet
from parallax._backends.processes.parent.worker_state import BORROWED, IDLE, STARTING, WORKING
from parallax._backends.processes.start.initializer import Initializer
from parallax._core.callables import weakly
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import Any
from parallax._core.nesting import here
from parallax._transport.framing import Frame
from parallax._transport.shm_channel import SharedFrame

#: What a killed worker counts for ``MAX_STILLBORN``: less than 1, for the work is hardly to blame;
#: not 0, for the system may kill each one for want of memory.
KILLED_WEIGHT = 0.15

#: Frames that a worker holds at a time; the second hides the way there and back.
MAX_FRAMES_IN_FLIGHT = 2


class TaskWorkers(WorkerSet[TaskWorker]):
    """Up to ``max_workers`` worker processes and their tasks."""

    def __init__(
        self,
        max_workers: int,
        pool: Pool,
        *,
        wake: Callable[[], None],
        died: Callable[[WorkerEnd, int], BaseException],
        broken: Callable[[BaseException], BaseException],
        initializer: Initializer | None,
        max_tasks: int | None,
        greeted: Callable[[], None],
        timed: Callable[[Task, float, float], None] | None,
    ) -> None:
        """As ``ProcessEngine``; ``greeted``: called when a worker is up, or will not be."""
        super().__init__(pool, OutputReceiver(), wake, killed_weight=KILLED_WEIGHT)
        self.max_workers = max_workers
        self._died = died
        self._broken = broken
        self._initializer = initializer
        self._max_tasks = max_tasks
        #: seconds after which an idle worker leaves; None for never.
        self.idle_limit: float | None = None
        self._greeted = greeted
        self._timed = timed
        self.context = capture_environment(here().worker(max_workers))
        self._numbers = itertools.count(1)
        #: the one that became idle last at the end.
        self._idle: deque[TaskWorker] = deque()
        self._grown = False
        self.queue = TaskQueue(max_tasks)
        self.killer = TaskKiller(weakly(self._expect))
        self._finished: Finished = []
        #: why no worker can be had.
        self.fatal: BaseException | None = None
        #: when a call ended last; when ``look_after`` is due.
        self.last = 0.0
        self.look_at: float | None = None

    def add(self, task: Task | None) -> None:
        """Hand a task to an idle worker, or queue it; without a task only start a worker."""
        if task is None:
            if len(self.workers) < self.max_workers and not any(w.given for w in self._idle):
                self._grow(1)  # new ones do not count as idle, as in the standard library
            return
        self.queue.tasks.append(task)
        if self._idle:
            self._hand_out()
        elif len(self.workers) < self.max_workers:
            self._grow()

    def queued(self, task: Task) -> bool:
        """Queue a task if all workers are busy: one append, which no signal tears apart."""
        if busy := not self._idle and len(self.workers) >= self.max_workers:
            self.queue.tasks.append(task)
        return busy

    def take_finished(self) -> Finished:
        """The tasks that have ended since the last call, for the engine to settle."""
        finished, self._finished = self._finished, []
        return finished

    @property
    def resting(self) -> bool:
        """Whether nothing waits and nothing is held."""
        return not self.queue.tasks and not any(w.batches for w in self.workers.values())

    @property
    def held(self) -> list[Task]:
        return [task for worker in self.workers.values() for task in worker.tasks]

    def _grow(self, least: int = 0) -> None:
        """Start as many workers as there are tasks that no starting worker will take."""
        room = self.max_workers - len(self.workers)
        count = min(room, max(least, len(self.queue.tasks) - self.starting))
        if self.pool.forks and not self._grown:
            count = room  # as long as there are few threads
        if count <= 0:
            return
        self._grown = True
        if self.pool.imports and self.queue.tasks and (known := self.queue.tasks[-1].known):
            self.pool.prepare(known.modules())
        for _ in range(count):
            try:
                worker = self.pool.hire(TaskWorker, self._initializer)
            except errors.WorkerStartError as error:
                if self._fall_back(str(error)):
                    continue
                self.fatal = self.fatal if self.workers else errors.without_frames(error)
                break
            self._admit(worker, next(self._numbers))
            try:
                worker.surround(self.context)
                if self._initializer is not None:
                    worker.initialize(self._initializer)
            except OSError:
                continue  # it left just now; its end-of-file is seen
            self.watch(worker)
            self._expect(worker.pool.deadline(worker))
        self._wake()

    def advance(self) -> None:
        """Hand out what waits and see to it that there are workers."""
        if self.queue.tasks and self.fatal is None:
            self._hand_out()
            if self.queue.tasks and len(self.workers) < self.max_workers:
                self._grow()

    def receive(self, worker: TaskWorker) -> None:
        """Read what a worker sent, and give it what waits if there is room for it."""
        super().receive(worker)
        if not worker.alive:
            return
        self.killer.press(worker)
        if not worker.batches:
            if self._max_tasks is not None and worker.given >= self._max_tasks:
                self._dismiss(worker)
            elif worker.state is WORKING or worker.state is BORROWED:
                worker.enter(IDLE)
                self._idle.append(worker)
                if self.idle_limit is not None:
                    worker.idle_since = time.monotonic()
                    self._expect(worker.idle_since + self.idle_limit)
        elif self.queue.tasks and self.fatal is None:
            self._fill(worker)

    def _heard(self, worker: TaskWorker, frame: Frame | SharedFrame) -> None:
        if frame.kind == protocol.RESULT:
            self._answered(worker, frame)
        elif frame.kind == protocol.RETURNED:
            self._requeue(worker.returned(frame))
        elif frame.kind == protocol.BYE:  # of an interpreter
            if frame.tag == protocol.CANNOT_LOAD:
                self._fall_back(frame.open()[0])
            self._dismiss(worker)
        elif frame.kind == protocol.FAILED:
            self.fatal = outcomes(frame)[0][0][1]
            self.fail_all()
        else:
            super()._heard(worker, frame)
            if frame.kind == protocol.BEGUN and worker.batches:
                worker.batches[0].since = time.monotonic()  # before, it called the initializer
                self.killer.check_limit(worker)

    def _came_up(self, worker: TaskWorker) -> None:  # noqa: ARG002 - as in the base class
        self._greeted()

    def _answered(self, worker: TaskWorker, frame: Frame | SharedFrame) -> None:
        finished, wall, cpu = worker.answered(frame, self.recording)
        self.last = time.monotonic()
        for task, value, error in finished:
            self._finish(task, error, value)
            if self._timed is not None and wall:
                self._timed(task, wall, cpu)
        if wall:
            known = finished[0][0].known
            self.queue.batch_size.took(known.key if known is not None else 0, wall)

    def _finish(self, task: Task, error: BaseException | None, value: Any = None) -> None:
        """Have the engine settle a task, or queue it again if it failed and a retry is left."""
        task.worker = None
        if error is not None and task.killed_at is None and not self.fatal and task.again(error):
            self.queue.tasks.append(task)
            return
        task.data = None
        self._finished.append((task, value, error))

    def _requeue(self, tasks: list[Task]) -> None:
        for task in reversed(tasks):
            if task.killed_at is None:
                task.worker = None
                self.queue.tasks.appendleft(task)
            else:
                self._finish(task, task.verdict or CancelledError())

    def _ended(self, worker: TaskWorker, loss: Loss) -> None:
        """Fail the task that the worker was running; the others that it held run elsewhere."""
        held, ended_before = worker.tasks, len(self._finished)
        suspects = len(worker.batches[0].tasks) if loss.began else 0
        for task in held[:suspects]:
            task.attempts += 1
            task.alone = True
        # If it may have read neither of two frames, the first one is tried again.
        unclear = loss.unread and len(worker.batches) > 1
        # One that we have killed it for is cancelled, or timed out, below.
        if suspects == 1 and held[0].killed_at is None and (not unclear or held[0].attempts > 1):
            task = held.pop(0)
            self._finish(task, self._died(loss.end, task.attempts))
        self._requeue(held)
        worker.record_death(self.recording, suspects, len(self._finished) - ended_before, loss.end)
        worker.batches.clear()
        if loss.hopeless and self.fatal is None and not self._fall_back(loss.hopeless):
            self.fatal = errors.WorkerStartError(self.pool.method, loss.hopeless)
            self.fail_all()

    def _remove(self, worker: TaskWorker) -> None:
        super()._remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._greeted()

    def _dismiss(self, worker: TaskWorker) -> None:
        """Let a worker go; tasks that it owes run elsewhere, or end if they are to be killed."""
        held = worker.tasks
        worker.batches.clear()
        self._remove(worker)
        worker.pool.settle(0.0)  # those before it
        worker.pool.retire(worker)
        self._requeue(held)

    def fail_all(self, cause: BaseException | None = None, *, kill: bool = True) -> None:
        """Part with all workers, and end every task for a cause; ``kill`` also the workers."""
        cause = cause or self.fatal
        assert cause is not None
        tasks = [*self.held, *(task for task in self.queue.tasks if task.begin())]
        self.queue.tasks.clear()
        for worker in list(self.workers.values()):
            worker.batches.clear()
            self._remove(worker)
            worker.pool.discard(worker, kill=kill, timeout=EXIT_STATUS_TIMEOUT_S)
        for task in tasks:
            task.retries = 0
            self._finish(task, self._broken(cause))

    def end_held(self) -> None:
        """Kill the workers that have tasks; no other one gets these, nor those that had one."""
        for task in (*self.queue.tasks, *self.held):
            task.killed_at = time.monotonic()
        while self.queue.tasks:
            self._finish(self.queue.tasks.popleft(), CancelledError())
        for worker in [w for w in self.workers.values() if w.batches]:
            worker.started.kill()
            if not worker.started.killable:
                self._dismiss(worker)

    def end(self) -> list[TaskWorker]:
        """Part with all workers; the caller waits for their end."""
        self._initializer = None  # its arguments may be large
        for worker in (left := list(self.workers.values())):
            if worker.batches or worker.state is STARTING:
                worker.started.kill()
            self._remove(worker)
            worker.close()
        return left

    def forget(self) -> list[Task]:
        """Drop all workers, in a forked copy of their owner; returns the tasks that they had."""
        tasks = [*self.queue.tasks, *self.held]
        self.queue.tasks.clear()
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()
        self._idle.clear()
        self.output = OutputReceiver()
        self.fatal = BrokenExecutor("this executor belongs to the process that forked this one")
        return tasks

    def _hand_out(self) -> None:
        while self.queue.tasks and self._idle:
            worker = self._idle[-1]  # the one that is awake, or was last
            if not self._fill(worker):
                return  # what was queued was cancelled
            worker.enter(WORKING)
            self._idle.pop()

    def _fill(self, worker: TaskWorker) -> bool:
        """Send a worker what it may have now; whether it got anything."""
        sent = False
        while self.queue.tasks and len(worker.batches) < MAX_FRAMES_IN_FLIGHT:
            if worker.state is BORROWED:
                break  # the thread that has it would have to send
            if worker.batches and (not worker.started.recalls or worker.batches[0].recalled):
                break  # what it holds could not be taken back, or takes unexpectedly long
            tasks, expected = self.queue.choose(worker, len(self.workers))
            if not tasks:
                break
            batch = Batch(next(self._numbers), tasks, expected)
            sent = True
            try:
                worker.send(batch)
            except OSError:
                continue  # its end-of-file is seen, and what it holds goes elsewhere
            self.watch(worker)
            self.killer.check_limit(worker)
            if len(batch.tasks) > 1 or len(worker.batches) > 1:
                self._expect(batch.since + MAX_SILENCE_S)
        return sent

    def borrow(self, worker: TaskWorker) -> None:
        """Leave the socket of a working worker to the calling thread; see ``read_directly``."""
        worker.enter(BORROWED)
        self._unregister(worker)

    def return_borrowed(self, worker: TaskWorker) -> None:
        """Read what a borrowed worker sent, and leave its socket to the engine's thread again."""
        if worker.alive:
            self.receive(worker)
        if worker.state is BORROWED:
            worker.enter(WORKING)
        if worker.alive:
            # Only now: what was to be read would have woken the engine's thread.
            with contextlib.suppress(KeyError):  # interrupted before it was taken out
                self._register(worker)
        self.advance()

    def _expect(self, moment: float) -> None:
        """Have ``look_after`` called at that moment."""
        if self.look_at is None or moment < self.look_at:
            self.look_at = moment
            self._wake()

    def look_after(self) -> None:
        """Recall workers that hold up tasks; let go of those that are late, or idle for long."""
        now = time.monotonic()
        if self.look_at is None or now < self.look_at:
            return
        self.look_at = None
        if self.idle_limit is not None:
            for worker in list(self._idle):
                if now < (due := worker.idle_since + self.idle_limit):
                    self._expect(due)
                else:
                    self._dismiss(worker)
        self.give_up_late()
        if (late := self.due()) is not None:
            self._expect(late)
        for worker in list(self.workers.values()):
            self.killer.attend(worker, now)
        self.advance()  # one that was given up may have been the only one
