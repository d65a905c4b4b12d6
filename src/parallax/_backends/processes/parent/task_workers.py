"""The workers of an executor, the tasks that they hold and those that wait for one.

Not thread-safe: the engine's lock guards every method. What has ended is put on a list that the
engine settles after it has let go of the lock, because callbacks run then.

Guarantees: a task that waits goes to an idle worker at once; to a busy one only if both are known
to be short, and it is recalled from there when the worker turns out to be busy for long; a worker
that dies fails only the task that it was running, everything else it held runs elsewhere.
"""

from __future__ import annotations

import itertools
import pickle
import selectors
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.environment import capture, kinship
from parallax._backends.processes.parent.exit_diagnosis import describe_end, unreadable
from parallax._backends.processes.parent.output_receiver import Hearing
from parallax._backends.processes.parent.task import Batch, Finished, Lent, Task, outcomes
from parallax._backends.processes.parent.task_killer import Doomed
from parallax._backends.processes.parent.task_queue import Queue
from parallax._backends.processes.parent.warm_pool import Pool
from parallax._backends.processes.start.initializer import Initializer
from parallax._core.errors import WorkerStartError, exit_reason
from parallax._core.light_stdlib import signals
from parallax._core.nesting import here
from parallax._transport.framing import Frame, WireError
from parallax._transport.shm_channel import Parcel

__all__ = ["Staff"]

clock = time.monotonic

#: Seconds to wait for the exit status of a worker whose socket closed.
EXIT = 0.5

#: Seconds that a worker may be silent while tasks wait behind its present one.
SILENT = 0.02

#: Seconds after which a worker that was recalled and holds tasks yet is asked again: it may have
#: had only part of a frame, or have been between two tasks.
AGAIN = 0.1

#: Workers in a row that end before they begin a task until we give up.
STILLBORN = 3

#: What one counts that was killed: less, because that is hardly the work's doing; not nothing,
#: because the system may kill each one for want of memory.
KILLED = 0.15

#: Frames that a worker holds at a time; the second hides the way there and back.
DEPTH = 2


class Staff:
    """Up to ``max_workers`` worker processes and their tasks."""

    def __init__(
        self,
        max_workers: int,
        pool: Pool,
        *,
        selector: selectors.BaseSelector,
        wake: Callable[[], None],
        died: Callable[[WorkerEnd, int], BaseException],
        broken: Callable[[BaseException], BaseException],
        initializer: Initializer | None,
        max_tasks: int | None,
        greeted: Callable[[], None],
        timed: Callable[[Task, float, float], None] | None,
    ) -> None:
        """Prepare; no worker is started yet.

        Args:
            max_workers: most workers.
            pool: starts them.
            selector: where the workers' sockets are registered.
            wake: makes the thread that waits on the selector look again.
            died: makes the error of a task whose worker ended: (how, attempts).
            broken: makes the error of all tasks when no worker can be had, from its cause.
            initializer: what each worker calls first.
            max_tasks: tasks after which a worker is replaced.
            greeted: is called when a worker has come up, or will not.
            timed: is told of each answered task: seconds on the clock and on the CPU clock.
        """
        self.max_workers = max_workers
        self._pool = pool
        self._selector = selector
        self._wake = wake
        self._died = died
        self._broken = broken
        self._initializer = initializer
        self._max_tasks = max_tasks
        #: seconds after which a worker leaves that has nothing to do; None for never.
        self.idle_limit: float | None = None
        self._greeted = greeted
        self._timed = timed
        self._context = capture(here().worker(max_workers))
        self._ids = itertools.count(1)
        self._idle: deque[Lent] = deque()
        #: workers that have not come up yet.
        self.starting = 0
        self._grown = False
        self._stillborn = 0.0
        self.queue = Queue(max_tasks)
        self.lent: set[Lent] = set()
        #: what workers said besides.
        self.hearing = Hearing()
        #: what is to be ended, whoever has it.
        self.doomed = Doomed(self._expect)
        #: why no worker can be had; nothing runs any more.
        self.fatal: BaseException | None = None
        #: when calls have ended last.
        self.last = 0.0
        #: when ``look_after`` is to be called next.
        self.look_at: float | None = None

    def add(self, task: Task | None) -> None:
        """Take a task: to an idle worker, or into the queue. Without one only start a worker."""
        if task is None:
            if len(self.lent) < self.max_workers and not any(w.given for w in self._idle):
                self._grow(1)  # new ones do not count as idle, as in the standard library
            return
        self.queue.tasks.append(task)
        if self._idle:
            self._hand_out()
        elif len(self.lent) < self.max_workers:
            self._grow()

    def queued(self, task: Task) -> bool:
        """Queue a task if all workers are busy: one append, which no signal tears apart."""
        if busy := not self._idle and len(self.lent) >= self.max_workers:
            self.queue.tasks.append(task)
        return busy

    @property
    def resting(self) -> bool:
        """Nothing waits and nobody works."""
        return not self.queue.tasks and not any(lent.flight for lent in self.lent)

    def forget(self) -> list[Task]:
        """Drop all workers, in a forked copy of their owner; returns the tasks that they had."""
        tasks = [*self.queue.tasks, *self._held()]
        self.queue.tasks.clear()
        for lent in self.lent:
            lent.alive = False
            lent.worker.close()
        self.lent.clear()
        self._idle.clear()
        self.hearing = Hearing()
        self.fatal = BrokenExecutor("this executor belongs to the process that forked this one")
        return tasks

    def end(self) -> list[Lent]:
        """Part with all workers; the caller waits for their end."""
        left = list(self.lent)
        self._initializer = None  # its arguments may be large
        for lent in left:
            self._remove(lent)
            if lent.flight or not lent.worker.ready:
                lent.worker.started.kill()
            lent.worker.close()
        return left

    def _grow(self, least: int = 0) -> None:
        """Start as many workers as there are tasks that no starting worker will take."""
        room = self.max_workers - len(self.lent)
        count = min(room, max(least, len(self.queue.tasks) - self.starting))
        if self._pool.forks and not self._grown:
            count = room  # as long as there are few threads
        if count <= 0:
            return
        self._grown = True
        if self.queue.tasks and (known := self.queue.tasks[-1].known) is not None:
            self._pool.prepare(known.modules)
        for _ in range(count):
            try:
                lent = Lent(self._pool.hire(self._initializer))
            except WorkerStartError as error:
                if not self.lent:
                    self.fatal = error
                break
            self.lent.add(lent)
            self.starting += 1
            self._selector.register(lent.worker.channel, selectors.EVENT_READ, lent)
            try:
                lent.worker.surround(self._context)
                if self._initializer is not None:
                    lent.worker.initialize(self._initializer)
            except OSError:
                continue  # it left just now; its end-of-file is seen
            self._watch(lent)
            self._expect(self._pool.deadline(lent.worker))
        self._wake()

    def advance(self) -> None:
        """Hand out what waits and see to it that there are workers."""
        if self.queue.tasks and self.fatal is None:
            self._hand_out()
            if self.queue.tasks and len(self.lent) < self.max_workers:
                self._grow()

    def receive(self, lent: Lent, finished: Finished) -> None:
        """Read what a worker said; what has ended is added to ``finished``."""
        channel = lent.worker.channel
        try:
            for frame in channel.receive():
                self._heard(lent, frame, finished)
            if channel.broken is not None:
                raise channel.broken
        except (EOFError, OSError):
            if lent.alive:
                self._lost(lent, finished)
            return
        except (WireError, MemoryError) as error:  # a wrong length asks for too much
            if lent.alive:
                lent.worker.started.kill()
                self._lost(lent, finished, words=unreadable(error))
            return
        self.doomed.press(lent)
        if not lent.flight:
            if self._spent(lent):
                self._dismiss(lent)
            elif lent.worker.ready and lent.alive and not (lent.idle or lent.condemned):
                lent.idle = True
                self._idle.append(lent)
                if self.idle_limit is not None:
                    lent.rests = clock()
                    self._expect(lent.rests + self.idle_limit)
        elif self.queue.tasks and self.fatal is None:
            self._fill(lent)

    def _heard(self, lent: Lent, frame: Frame | Parcel, finished: Finished) -> None:
        if frame.kind == protocol.RESULT:
            self._answered(lent, frame, finished)
        elif frame.kind == protocol.SAID:
            self.hearing.take(lent.worker.ear, frame)
        elif frame.kind == protocol.BEGUN:
            lent.worker.begun = True
            self._stillborn = 0.0
        elif frame.kind == protocol.HELLO:
            self._pool.greet(lent.worker, frame.tag)
            self.starting -= 1
            self._greeted()
        elif frame.kind == protocol.RETURNED:
            self._returned(lent, frame, finished)
        elif frame.kind == protocol.FAILED:
            self.fatal = outcomes(frame)[0][0][1]
            finished += self.fail_all()

    def _answered(self, lent: Lent, frame: Frame | Parcel, finished: Finished) -> None:
        batch = lent.flight[0]
        self.last = now = clock()
        found, wall, cpu = outcomes(frame)
        key = batch.tasks[0].known.key if batch.tasks[0].known is not None else 0
        for value, error in found:
            task = batch.tasks.popleft()
            task.data = task.lent = None
            finished.append((task, value, error))
            if self._timed is not None and wall:
                self._timed(task, wall / len(found), cpu / len(found))
        if wall:
            self.queue.pace.took(key, wall / len(found))
        batch.since = now
        batch.expected -= wall
        if not batch.tasks:
            lent.flight.popleft()
            if lent.flight:
                lent.flight[0].since = now

    def _returned(self, lent: Lent, frame: Frame | Parcel, finished: Finished) -> None:
        """Take back what the worker has not begun."""
        back: list[Task] = []
        for name, count in pickle.loads(frame.open()[0]):
            batch = next(b for b in lent.flight if b.id == name)
            keep = 0 if count < 0 else len(batch.tasks) - count
            back += itertools.islice(batch.tasks, keep, None)
            while len(batch.tasks) > keep:
                batch.tasks.pop()
            if not batch.tasks:
                lent.flight.remove(batch)
        lent.given -= len(back)
        self._requeue(back, finished)

    def _requeue(self, tasks: list[Task], finished: Finished) -> None:
        for task in reversed(tasks):
            task.lent = None
            if task.doomed is None:
                self.queue.tasks.appendleft(task)
            else:
                task.data = None
                finished.append((task, None, CancelledError()))

    def _lost(self, lent: Lent, finished: Finished, *, late: bool = False, words: str = "") -> None:
        """A worker ended: its task fails, the others that it held run elsewhere."""
        worker = lent.worker
        self._remove(lent)
        # The last frame was not read to its end.
        unread = worker.channel.unsent or worker.channel.reset
        exitcode = self._pool.discard(worker, kill=late, timeout=EXIT)
        if exitcode is None:
            self._pool.discard(worker, kill=True, timeout=EXIT)
        if not worker.begun:
            killed = not late and exitcode in {-signals.SIGTERM, -getattr(signals, "SIGKILL", 9)}
            self._stillborn += KILLED if killed else 1
        held = [task for batch in lent.flight for task in batch.tasks]
        begun = worker.begun and len(lent.flight) > unread and not lent.condemned
        suspects = len(lent.flight[0].tasks) if begun else 0
        for task in held[:suspects]:
            task.attempts += 1
            task.alone = True
        # If it may have read neither of two frames, the first one is tried again.
        if suspects == 1 and (not unread or len(lent.flight) == 1 or held[0].attempts > 1):
            task = held.pop(0)
            task.data = task.lent = None
            end = describe_end(worker, exitcode, words)
            finished.append((task, None, self._died(end, task.attempts)))
        self._requeue(held, finished)
        lent.flight.clear()
        if worker.begun:
            return
        said, again = ("", False) if worker.ready else self._pool.trouble(worker, late=late)
        if again:
            self._stillborn = 0.0
        if self._stillborn >= STILLBORN and self.fatal is None:
            reason = "it did not come up in time" if late else exit_reason(exitcode, at_work=False)
            detail = words or said or f"the worker ended before its first task: {reason}"
            self.fatal = WorkerStartError(self._pool.method, detail)
            finished += self.fail_all()

    def _dismiss(self, lent: Lent) -> None:
        """Let a worker go that has done its share of tasks; it leaves by itself."""
        self._remove(lent)
        self._pool.settle(0.0)  # those before it
        self._pool.retire(lent.worker)

    def _remove(self, lent: Lent) -> None:
        lent.alive = False
        if not lent.worker.ready:
            self.starting -= 1
        if not lent.borrowed:
            self._selector.unregister(lent.worker.channel)
        self.lent.discard(lent)
        self._greeted()
        if lent.idle:
            self._idle.remove(lent)

    def fail_all(self, *, kill: bool = True) -> Finished:
        """No worker can be had: everything that waits ends with the cause.

        Args:
            kill: end the workers at once; otherwise they have been told to end.
        """
        assert self.fatal is not None
        tasks = self._held()
        tasks += [t for t in self.queue.tasks if t.begin()]
        self.queue.tasks.clear()
        for lent in list(self.lent):
            lent.flight.clear()
            self._remove(lent)
            self._pool.discard(lent.worker, kill=kill, timeout=EXIT)
        for task in tasks:
            task.data = task.lent = None
        return [(task, None, self._broken(self.fatal)) for task in tasks]

    def end_held(self, finished: Finished) -> None:
        """End the workers that have tasks; no other one gets these, nor those that had one."""
        finished += [(task, None, CancelledError()) for task in self.queue.tasks]
        self.queue.tasks.clear()
        for task in self._held():
            task.doomed = clock()
        for lent in self.lent:
            if lent.flight:
                lent.worker.started.kill()

    def _held(self) -> list[Task]:
        return [t for lent in self.lent for batch in lent.flight for t in batch.tasks]

    # -- handing out ---------------------------------------------------------------------------

    def _hand_out(self) -> None:
        while self.queue.tasks and self._idle:
            lent = self._idle[-1]  # the one that is awake, or was last
            if not self._fill(lent):
                return  # what was queued was cancelled
            lent.idle = False
            self._idle.pop()

    def _fill(self, lent: Lent) -> bool:
        """Send a worker what it may have now; whether it got anything."""
        sent = False
        while self.queue.tasks and len(lent.flight) < DEPTH and not lent.borrowed:
            if lent.flight and (protocol.RECALL is None or lent.flight[0].recalled):
                break  # what it holds could not be taken back, or takes unexpectedly long
            tasks, expected = self.queue.choose(lent, len(self.lent))
            if not tasks:
                break
            self._send(lent, Batch(next(self._ids), tasks, expected))
            sent = True
        return sent

    def _send(self, lent: Lent, batch: Batch) -> None:
        worker = lent.worker
        frame: list[tuple[int, bytes]] = []
        buffers: list[memoryview] = []
        lent.flight.append(batch)
        lent.given += len(batch.tasks)
        try:
            if (relation := kinship()) != lent.relation and relation is not None:
                lent.relation = relation
                worker.channel.send(protocol.CONTEXT, 0, relation, hold=True)
            for task in batch.tasks:
                assert task.known is not None
                assert task.data is not None
                task.lent = lent
                worker.teach(task.known.key, task.known.encoded)
                frame.append((task.known.key, task.data.payload))
                buffers += task.data.buffers
            worker.channel.send(protocol.BATCH, batch.id, pickle.dumps(frame, 5), buffers)
        except OSError:
            return  # its end-of-file is seen, and what it holds goes elsewhere
        self._watch(lent)
        if len(batch.tasks) > 1 or len(lent.flight) > 1:
            self._expect(batch.since + SILENT)

    def _watch(self, lent: Lent) -> None:
        """Ask for writability exactly while something waits to be written."""
        channel = lent.worker.channel
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.unsent else 0)
        if self._selector.get_key(channel).events != events:
            self._selector.modify(channel, events, lent)
            self._wake()

    def flush(self, lent: Lent) -> None:
        """Go on sending what did not fit a worker's socket."""
        try:
            lent.worker.channel.flush()
        except OSError:
            return  # its last words may still be read
        self._watch(lent)

    def _expect(self, moment: float) -> None:
        """Have the turner look after the workers at that moment."""
        if self.look_at is None or moment < self.look_at:
            self.look_at = moment
            self._wake()

    def look_after(self, finished: Finished) -> None:
        """Recall workers that hold up tasks; give up those that should be up by now."""
        now = clock()
        if self.look_at is None or now < self.look_at:
            return
        self.look_at = None
        self._send_off(now)
        for lent in list(self.lent):
            if not lent.alive:
                continue  # with the last one that was given up all others ended
            if not lent.worker.ready:
                due = self._pool.deadline(lent.worker)
                if now < due:
                    self._expect(due)
                elif not lent.borrowed:
                    self._lost(lent, finished, late=True)
                continue
            if self.doomed.press(lent):
                continue
            held = sum(len(batch.tasks) for batch in lent.flight)
            if held < 2 or protocol.RECALL is None:
                continue
            due = max(lent.flight[0].since + SILENT, lent.asked + AGAIN)
            if now < due:
                self._expect(due)
                continue
            for batch in lent.flight:
                batch.recalled = True
            lent.asked = now
            lent.worker.started.signal(protocol.RECALL)
            self._expect(now + AGAIN)
        self.advance()  # one that was given up may have been the only one

    def _send_off(self, now: float) -> None:
        """Let workers go that have had nothing to do for long."""
        if self.idle_limit is None:
            return
        for lent in list(self._idle):
            due = lent.rests + self.idle_limit
            if now < due:
                self._expect(due)
            else:
                self._dismiss(lent)

    def _spent(self, lent: Lent) -> bool:
        return self._max_tasks is not None and lent.given >= self._max_tasks
