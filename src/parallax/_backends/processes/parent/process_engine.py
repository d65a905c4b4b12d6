"""Single tasks on worker processes: what an executor's ``submit`` needs.

A task goes to an idle worker at once, written by the thread that submits it; otherwise it queues,
and one thread, the *turner*, hands out what waits whenever a worker answers: many short tasks in
one frame. A thread that asks for a result which a worker is at work on *borrows* that worker's
socket and reads the answer itself, so that a lone ``submit().result()`` wakes no other thread.

Guarantees: every task ends in its result or an error; a worker that dies fails only the task that
it was running, everything else it held runs elsewhere; nothing is left after ``shutdown``.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError
from contextvars import Context
from typing import Any

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.parent.function_cache import Callables, Known
from parallax._backends.processes.parent.process_view import ProcessHandle
from parallax._backends.processes.parent.task import Finished, Lent, Task, encode_arguments, settle
from parallax._backends.processes.parent.task_stall_view import WatchedStaff
from parallax._backends.processes.parent.task_workers import Staff
from parallax._backends.processes.parent.warm_pool import Pool
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.start.initializer import Initializer
from parallax._core.deferred_signals import Shield
from parallax._core.errors import SerializationError
from parallax._core.futures import Future
from parallax._reporting.stall_monitor import Watchman
from parallax._transport.codec import Encoded
from parallax._transport.wakeup import Waker, readable

__all__ = ["ProcessEngine"]

clock = time.monotonic

#: Seconds to wait for a worker to leave; the same for one that may have something to say to others.
EXIT, SAY = 0.5, 2.0

#: Seconds to wait for the process ids of workers that are starting.
START = 30.0

#: Seconds that the system lets a thread wait on a socket at least, if it is asked to.
LONG = 1e6


class ProcessEngine:
    """Runs single tasks on up to ``max_workers`` processes. Thread-safe."""

    def __init__(
        self,
        max_workers: int,
        pool: Pool,
        *,
        died: Callable[[WorkerEnd, int], BaseException],
        broken: Callable[[BaseException], BaseException],
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks: int | None = None,
        timed: Callable[[Task, float, float], None] | None = None,
        failed: Callable[[BaseException], BaseException] | None = None,
        lock: Any = None,
        stall_warn: float = 0.0,
    ) -> None:
        """Check the initializer; no worker is started yet.

        Args:
            max_workers: most workers.
            pool: starts them.
            died: makes the error of a task whose worker ended: (how, attempts).
            broken: makes the error of all tasks when no worker can be had, from its cause.
            initializer: called once in each worker.
            initargs: its arguments.
            max_tasks: tasks after which a worker is replaced.
            timed: is told, under the lock, of each task that a worker answered: its seconds on the
                clock and on the CPU clock.
            failed: gives the error of a call another form.
            lock: a reentrant lock to use, if somebody shares it.
            stall_warn: seconds without an end of any call after which that is logged; 0 for never.

        Raises:
            SerializationError: the initializer cannot travel.
            InheritanceError: it could be inherited by workers that are forked.
        """
        # First of all: if it raises, there is nothing to close yet.
        first = None
        if initializer is not None:
            first = Initializer(initializer, initargs, inherited=pool.forks)
        self._first = first
        self.lock = lock if lock is not None else threading.RLock()
        self._pool = pool
        self._forks = pool.forks
        self._broken = broken
        self._callables = Callables()
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._waker.attach(self._selector)
        self.thread: threading.Thread | None = None
        self._closing = False
        #: gives the error of a call another form.
        self.failed = failed
        self._greeted = threading.Condition(self.lock)
        self._staff = Staff(
            max_workers,
            pool,
            selector=self._selector,
            wake=self._wake,
            died=died,
            broken=broken,
            initializer=first,
            max_tasks=max_tasks,
            greeted=self._greeted.notify_all,
            timed=timed,
        )
        self._watchman = Watchman(WatchedStaff(self._staff, self.lock), stall_warn)

    # -- the face ------------------------------------------------------------------------------

    @property
    def workers(self) -> list[WorkerClient]:
        """The workers that there are now."""
        with self.lock:
            return [lent.worker for lent in self._staff.lent]

    def processes(self) -> dict[int, ProcessHandle]:
        """The worker processes by process id; waits for those that are starting."""
        with self.lock:
            lent = self._staff.lent
            if not self.mine():
                self._greeted.wait_for(lambda: all(each.worker.pid for each in lent), START)
            known = sorted((each for each in lent if each.worker.pid), key=lambda e: e.worker.born)
            return {each.worker.pid: self._handle(each) for each in known if each.worker.pid}

    def abort(self, end: Callable[[ProcessHandle], object]) -> None:
        """End all workers and all calls, those that run too, with an error.

        Args:
            end: ends one worker.
        """
        self.shutdown(wait=False, cancel=True)
        with self.lock:
            if self.thread is None or self._staff.resting:
                return
            for lent in self._staff.lent:
                end(self._handle(lent))
            self._staff.fatal = BrokenExecutor("the workers were ended on demand")
            finished = self._staff.fail_all(kill=False)
            self._waker.wake()
        self._settle(finished)

    @property
    def max_workers(self) -> int:
        """Most workers."""
        return self._staff.max_workers

    @property
    def ahead(self) -> int:
        """Calls that should be submitted at a time: twice what runs."""
        return 2 * self._staff.max_workers

    @property
    def fatal(self) -> BaseException | None:
        """Why no worker can be had; None as long as there can."""
        return self._staff.fatal

    def pieces(self, *_: Any) -> bool:
        """Short calls had better travel several at a time."""
        return True

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,  # noqa: ARG002 - it does not travel
    ) -> Task:
        """Hand a call to a worker, or queue it.

        Raises:
            RuntimeError: the engine was shut down.
            BrokenExecutor: no worker can be had.
        """
        return self._submit(fn, args, kwargs)

    def submit_piece(self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]) -> Task:
        """Hand several calls to a worker as one task, whose result is a ``Part``.

        Raises:
            RuntimeError: the engine was shut down.
            BrokenExecutor: no worker can be had.
        """
        return self._submit(fn, piece, None)

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> Task:
        try:
            known, data = self.encode(fn, args, kwargs)
        except SerializationError as error:
            return self._refused(error)
        task = Task(self, known, data)
        with self.lock:
            self._check()
            if self._staff.queued(task):
                return task  # without a shield, which costs as much as all else here
        with Shield(), self.lock:
            self.take(task)
        return task

    def _refused(self, error: SerializationError) -> Task:
        """A task that ended before it began; not made where its error was caught: a cycle."""
        task = Task(self, None, None)
        with Shield(), self.lock:
            self._check()
            # As if it had come through: who looks for workers finds them.
            self._take(None)
        task.settle(None, error)
        return task

    def encode(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> tuple[Known, Encoded]:
        """Make a call ready to travel, or without ``kwargs`` several: their tuples of arguments.

        Raises:
            SerializationError: it cannot.
        """
        with self.lock:
            known = self._callables.known(fn)
        return known, encode_arguments(args, kwargs)

    def take(self, task: Task) -> None:
        """Hand an encoded task to a worker, or queue it; the lock is held. Raises as `submit`."""
        self._check()
        self._take(task)

    def _take(self, task: Task | None) -> None:
        if self._forks:
            self._staff.add(task)  # first: it forks while there is no thread of ours
        if self.thread is None:
            self.thread = threading.Thread(target=self._turn, name="parallax-executor", daemon=True)
            self.thread.start()
        if not self._forks:
            self._staff.add(task)
        self._watchman.start()

    def rest_after(self, seconds: float) -> None:
        """From now on have workers leave that have had nothing to do for so long."""
        with self.lock:
            self._staff.idle_limit = seconds

    def kill(self, task: Task) -> None:
        """End a task that a worker may be at, with that worker; others that it holds go on."""
        dropped = False
        with self.lock:
            if not task.done():
                self._staff.doomed.add(task)
                # A worker may have given it back.
                dropped = self._staff.queue.drop(task)
        if dropped:
            self._settle([(task, None, CancelledError())])
            self._wake()

    def mine(self) -> bool:
        """Whether this thread is the turner."""
        return self.thread is not None and threading.get_ident() == self.thread.ident

    def take_back(self, wanted: Callable[[Task], bool]) -> list[Task]:
        """Give back queued tasks that nobody has begun; the lock is held.

        Args:
            wanted: says which.
        """
        return self._staff.queue.take_back(wanted)

    def _handle(self, lent: Lent) -> ProcessHandle:
        if lent.handle is None:
            lent.handle = ProcessHandle(lent.worker, self._pool)
        return lent.handle

    def cancel_queued(self) -> None:
        """Cancel the tasks that no worker has yet, and no starting worker is to have."""
        with self.lock:
            queued = list(self._staff.queue.tasks)[self._staff.starting :]
        for task in queued:
            task.cancel()

    def interrupt(self) -> None:
        """End all calls: those that workers have with those workers, which are replaced."""
        with Shield():
            finished: Finished = []
            with self.lock:
                # Taken out: with no worker left nobody would come to see that they are cancelled.
                queued = self._staff.queue.take_back(lambda _: True)
                self._staff.end_held(finished)
            for task in queued:
                with contextlib.suppress(KeyboardInterrupt):  # a callback's own, in this shield
                    task.cancel()
            self._settle(finished)

    def stop(self) -> None:
        """End all calls, and the engine; returns when nothing is left of it."""
        with Shield():
            self.interrupt()
            self.shutdown(wait=True, cancel=True)

    def withdraw(self, task: Task) -> None:
        """A task was cancelled; the lock is held. It leaves the queue when its turn comes."""
        task.data = None

    def help(self, task: Future[Any], timeout: float | None) -> float | None:
        """Read the answer of a task's worker in this thread, if nobody else does.

        Args:
            task: what this thread waits for.
            timeout: seconds to wait at most.

        Returns:
            What is left of ``timeout``.
        """
        assert isinstance(task, Task)
        mine: list[Lent] = []
        try:
            return self._help(task, timeout, mine)
        except BaseException:
            # An interrupt came as it was about to give it back.
            with Shield() as shield:
                for lent in mine:
                    self._take_back(lent, shield)
            raise

    def _help(self, task: Task, timeout: float | None, mine: list[Lent]) -> float | None:
        deadline = None if timeout is None else clock() + timeout
        in_time = True
        while in_time and not task.done():
            try:
                with self.lock:
                    lent = task.lent
                    # With something unsent the turner is needed anyway.
                    if (
                        lent is None
                        or lent.borrowed
                        or not lent.alive
                        or lent.worker.channel.unsent
                    ):
                        break
                    mine.append(lent)
                    lent.borrowed = True
                    self._selector.unregister(lent.worker.channel)
                left = None if deadline is None else min(max(0.0, deadline - clock()), LONG)
                channel = lent.worker.channel
                in_time = (left is None and channel.wait()) or readable(channel, left)
            finally:
                # Also if a KeyboardInterrupt came at any point of this.
                if mine:
                    with Shield() as shield:
                        self._take_back(mine.pop(), shield)
        return None if deadline is None else max(0.0, deadline - clock())

    def _take_back(self, lent: Lent, shield: Shield) -> None:
        """A thread is done with a worker's socket."""
        finished: Finished = []
        with self.lock:
            if lent.alive:
                self._staff.receive(lent, finished)
            lent.borrowed = False
            if lent.alive:
                # Only now: what was to be read would have woken the turner.
                with contextlib.suppress(KeyError):  # interrupted before it was taken out
                    self._selector.register(lent.worker.channel, selectors.EVENT_READ, lent)
            self._staff.advance()
            if self._closing or self._staff.fatal is not None:
                self._waker.wake()  # the turner waits for this to be over
        try:
            with shield.lifted():
                self._staff.hearing.tell()
        finally:
            self._settle(finished)

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more tasks; end when all are done.

        Args:
            wait: return only when nothing is left of the engine.
            cancel: cancel the tasks that no worker has yet.
        """
        with self.lock:
            self._closing = True
            thread = self.thread
            if thread is None:
                self._release()
        if cancel:
            self.cancel_queued()
        if thread is not None:
            with self.lock:  # the turner closes the waker under it
                self._waker.wake()
            if wait and not self.mine():
                thread.join()

    def forget(self) -> None:
        """Drop everything without ending it: this process is a forked copy of the owner's."""
        self.lock = threading.RLock()
        self.thread = None
        tasks = self._staff.forget()
        assert self._staff.fatal is not None
        for task in tasks:
            task.abandon(self._broken(self._staff.fatal), running=True)
        self._release()

    def _check(self) -> None:
        if self._staff.fatal is not None:
            raise self._broken(self._staff.fatal)
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    # -- the turner ----------------------------------------------------------------------------

    def _turn(self) -> None:
        """Read what workers say and hand out what waits, until all is done after a shutdown."""
        try:
            self._serve()
        except BaseException as error:  # a mistake of ours, for which nobody may wait for ever
            with self.lock:
                self._staff.fatal = self._staff.fatal or error
                finished = self._staff.fail_all()
            self._settle(finished)
            raise
        finally:
            self._end()

    def _serve(self) -> None:
        staff = self._staff
        while True:
            finished: Finished = []
            with self.lock:
                if staff.fatal is not None:
                    finished = staff.fail_all()
                borrowed = any(lent.borrowed for lent in staff.lent)
                over = (self._closing or staff.fatal is not None) and staff.resting
                due = staff.look_at
                timeout = None if due is None else min(max(0.0, due - clock()), LONG)
            self._settle(finished)
            del finished
            if over and not borrowed:
                break
            ready = self._selector.select(timeout)
            self._waker.clear()
            finished = []
            with self.lock:
                for key, events in ready:
                    lent = key.data
                    if not isinstance(lent, Lent) or not lent.alive or lent.borrowed:
                        continue
                    if events & selectors.EVENT_WRITE:
                        staff.flush(lent)
                    if events & selectors.EVENT_READ:
                        staff.receive(lent, finished)
                staff.advance()
                staff.look_after(finished)
            staff.hearing.settle() if finished else staff.hearing.pass_on()  # not in this thread
            self._settle(finished)
            # What the frames held must not live until the next one comes.
            del finished, ready

    def _settle(self, finished: Finished) -> None:
        settle(finished, self.failed)

    def _wake(self) -> None:
        # By ident: current_thread() would enter a thread like the ticker's into a list, for good.
        if not self.mine():
            self._waker.wake()

    def _end(self) -> None:
        with self.lock:
            left = self._staff.end()
        patience = SAY if self._first is not None and self._first.shared else EXIT
        for lent in left:
            if self._pool.discard(lent.worker, kill=False, timeout=patience) is None:
                self._pool.discard(lent.worker, kill=True, timeout=EXIT)
        self._pool.settle(EXIT)
        self._staff.hearing.close()
        with self.lock:
            self._release()

    def _release(self) -> None:
        self._watchman.stop()
        self._callables = Callables()  # what they captured may be large
        # An engine is part of a cycle of references, and the thread is over.
        self.thread = None
        if self._first is not None:
            self._first.close()
        self._selector.close()
        self._waker.close()
