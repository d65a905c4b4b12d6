"""Single tasks on worker processes: what an executor's ``submit`` needs.

A task goes to an idle worker at once, written by the thread that submits it; otherwise it queues,
and the engine's thread hands out what waits whenever a worker answers: many short tasks in one
frame. A thread that asks for a result *borrows* the socket of the worker that is at it.

Guarantees: every task ends in its result or an error; a worker that dies fails only the task that
it was running, everything else it held runs elsewhere; nothing is left after ``shutdown``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError
from contextvars import Context
from operator import attrgetter
from typing import Any

from parallax._backends.processes.common.arithmetic import arithmetic
from parallax._backends.processes.parent.direct_read import read_directly
from parallax._backends.processes.parent.function_cache import Callables, Known
from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.process_view import PIDS_TIMEOUT_S, ProcessHandle
from parallax._backends.processes.parent.task import Task, TaskWorker, encode_arguments, settle
from parallax._backends.processes.parent.task_stall_view import TaskStallView
from parallax._backends.processes.parent.task_workers import TaskWorkers
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.parent.worker_set import EXIT_STATUS_TIMEOUT_S
from parallax._backends.processes.start.initializer import Initializer
from parallax._core.callables import weakly
from parallax._core.cores import MAX_PROCESSES
from parallax._core.deferred_signals import MAX_WAIT_S, Shield
from parallax._core.futures import Future
from parallax._core.lazy_import import errors
from parallax._core.options import CallOptions
from parallax._core.process_rights import own_ids
from parallax._reporting.stall_monitor import StallMonitor
from parallax._transport.codec import Encoded
from parallax._transport.wakeup import Waker

#: Seconds for a worker to leave that may still write to queues: shorter loses what was not read.
SHARED_EXIT_TIMEOUT_S = 2.0

_ENDED = BrokenExecutor("the workers were ended on demand")


class ProcessEngine:
    """Runs single tasks on up to ``max_workers`` processes; see ``Engine``. Thread-safe."""

    def __init__(
        self,
        max_workers: int,
        pool: Pool,
        *,
        call_errors: Any,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks: int | None = None,
        timed: Callable[[Task, float, float], None] | None = None,
        lock: Any = None,
        stall_warn: float = 0.0,
        snapshot: bool = False,
    ) -> None:
        """Check the initializer; ``timed`` is called, lock held, for each answered task."""
        self._first: Initializer | None = None  # before what would be to be closed if it raises
        if initializer is not None:
            self._first = Initializer(initializer, initargs, inherited=pool.forks)
        self.max_workers = max_workers = min(max_workers, MAX_PROCESSES)
        self.lock = lock if lock is not None else threading.RLock()
        self.backend = "interpreters" if pool.spare else "processes"
        self._callables, self._broken = Callables(), call_errors.broken_pool
        self.thread: threading.Thread | None = None
        self.closing, self._snapshot = False, snapshot
        self.failed: Callable[[BaseException], BaseException] = call_errors.standard_error
        self._greeted = threading.Condition(self.lock)
        self._workers = TaskWorkers(
            max_workers,
            pool,
            wake=weakly(self._wake),
            died=call_errors.lost_call,
            broken=self._broken,
            initializer=self._first,
            max_tasks=max_tasks,
            greeted=self._greeted.notify_all,
            timed=timed,
        )
        self._arithmetic = arithmetic()  # those that workers take over
        self._waker = Waker()
        self._waker.attach(self._workers.selector())
        self._stall_monitor = StallMonitor(TaskStallView(self._workers, self.lock), stall_warn)

    @property
    def workers(self) -> list[WorkerClient]:
        with self.lock:
            return list(self._workers.workers.values())

    def processes(self) -> dict[int, ProcessHandle]:
        """The worker processes by process id; waits for those that are starting."""
        with self.lock:
            workers = self._workers.workers
            if not self.mine():
                self._greeted.wait_for(lambda: all(w.pid for w in workers.values()), PIDS_TIMEOUT_S)
            born = sorted(workers.values(), key=lambda w: w.born)
            return {w.pid: ProcessHandle(w, w.pool) for w in born if w.pid}

    def abort(self, end: Callable[[ProcessHandle], object]) -> None:
        """Take no more calls, and end all workers and calls; see ``end_workers``."""
        self.shutdown(wait=False, cancel=True)
        self.end_workers(end, for_good=True)

    def end_workers(self, end: Callable[[Any], object], *, for_good: bool = False) -> None:
        for task in () if for_good else tuple(self._workers.queue.tasks):
            task.cancel()
        with self.lock:
            if self.thread is None or (for_good and self._workers.resting):
                return
            if for_good:
                self._workers.fatal = _ENDED
            for worker in self._workers.workers.values():
                end(ProcessHandle(worker, worker.pool))
            self._workers.fail_all(_ENDED, kill=False)
            finished = self._workers.take_finished()
            self._waker.wake()
        settle(finished, self.failed)

    ahead = property(lambda self: 2 * self.max_workers)
    fatal = property(attrgetter("_workers.fatal"))
    pool = property(attrgetter("_workers.pool"))
    record = property(attrgetter("_workers.record"))

    def pieces(self, *_: Any) -> bool:
        """Whether short calls travel several at a time: not if one may have to run elsewhere."""
        return not self.pool.spare

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        context: Context | None = None,
        options: CallOptions | None = None,
    ) -> Task:
        try:
            if context is None:
                known, data = self.encode(fn, args, kwargs)
            else:
                known, data = context.run(self.encode, fn, args, kwargs)
        except errors.SerializationError as error:
            return self._refused(error.with_traceback(None))
        task = Task(self, known, data, options)
        with self.lock:
            self._check()
            if self._workers.queued(task):
                return task  # without a shield, which costs as much as all else here
        with Shield(), self.lock:
            self.take(task)
        return task

    def submit_piece(self, fn: Any, piece: tuple[tuple[Any, ...], ...], context: Context) -> Task:
        return self.submit(fn, piece, None, context)

    def _refused(self, error: errors.SerializationError) -> Task:
        """A task that ended before it began; not made where its error was caught: a cycle."""
        task = Task(self, None, None)
        with Shield(), self.lock:
            self.take(None)
        task.settle(None, error)
        return task

    def encode(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> tuple[Known, Encoded]:
        """Encode a call, or several without ``kwargs``; raises SerializationError."""
        with self.lock:
            known = self._callables.known(fn)
        now = arithmetic()
        return known, encode_arguments(args, kwargs, now if now != self._arithmetic else None)

    def take(self, task: Task | None) -> None:
        """Take an encoded task, lock held; without one start a worker, as the standard library."""
        self._check()
        self.begin()
        self._workers.add(task)  # first: it may fork while there is no thread of ours
        if self.thread is None:
            self._start(task)
        self._stall_monitor.start()

    def begin(self) -> None:
        """Fork the program now if it is to be forked, for workers that start later; idempotent."""
        if self._snapshot and (context := self._workers.take_snapshot(self.max_workers)):
            self._workers.context, self._arithmetic = context, arithmetic()
            self._start()  # which ends the template at last
        self._snapshot = False

    def _start(self, task: Task | None = None) -> None:
        thread = threading.Thread(target=self._run, name="parallax-executor", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many, or (3.12) the interpreter is shutting down
            self.take_back(lambda queued: queued is task)
            raise
        self.thread = thread

    def rest_after(self, seconds: float) -> None:
        with self.lock:
            self._workers.idle_limit = seconds

    def mine(self) -> bool:
        return threading.get_ident() == getattr(self.thread, "ident", None)

    def take_back(self, wanted: Callable[[Task], bool]) -> list[Task]:
        """Give back the wanted tasks that no worker has begun; the lock is held."""
        return self._workers.queue.take_back(wanted)

    def _check(self) -> None:
        if self._workers.fatal is not None:
            raise self._broken(self._workers.fatal)
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self.pool.rights.ids != own_ids():
            self._workers.change_pool(resting=self._workers.resting)

    def cancel_queued(self) -> None:
        """Cancel the tasks that no worker has yet, and no starting worker is to have."""
        with self.lock:
            queued = list(self._workers.queue.tasks)[self._workers.starting :]
        for task in queued:
            task.cancel()

    def interrupt(self) -> None:
        """End all calls: those that workers have with those workers, which are replaced."""
        with Shield():
            with self.lock:
                # Taken out: with no worker left nobody would come to see that they are cancelled.
                queued = self._workers.queue.take_back(lambda _: True)
                self._workers.end_held()
                finished = self._workers.take_finished()
            for task in queued:
                with contextlib.suppress(KeyboardInterrupt):  # a callback's own, in this shield
                    task.cancel()
            settle(finished, self.failed)

    def stop(self) -> None:
        with Shield():
            self.interrupt()
            self.shutdown(wait=True, cancel=True)

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        with self.lock:
            self.closing, thread = True, self.thread
            if thread is None:  # it never was, or there is none to be had
                self._end()
        if cancel:
            self.cancel_queued()
        if thread is not None:
            with self.lock:  # the engine's thread closes the waker under it
                self._waker.wake()
            if wait and not self.mine():
                thread.join()

    def forget(self) -> None:
        self.lock = threading.RLock()
        self.thread = None
        tasks = self._workers.forget()
        assert self._workers.fatal is not None
        for task in tasks:
            task.abandon(self._broken(self._workers.fatal), running=True)
        self._release()

    def withdraw(self, task: Task) -> None:
        """A task was cancelled; the lock is held. It leaves the queue when its turn comes."""
        task.data = None

    def kill(self, task: Task) -> None:
        """End a task that a worker may be at, with that worker; others that it holds go on."""
        with self.lock:
            self._workers.killer.add(task)
            dropped = self._workers.queue.drop(task)  # a worker may have given it back
        if dropped:
            settle([(task, None, CancelledError())], self.failed)
            self._wake()

    def help(self, task: Future[Any], timeout: float | None) -> float | None:
        """Read the answer of a task's worker in this thread, if no other thread does."""
        assert isinstance(task, Task)
        return read_directly(task, timeout, self._workers, self.lock, self._return)

    def _return(self, worker: TaskWorker, shield: Shield) -> None:
        """Read what a borrowed worker sent, and leave its socket to the engine's thread again."""
        with self.lock:
            self._workers.return_borrowed(worker)
            finished = self._workers.take_finished()
            if self.closing or self._workers.fatal is not None:
                self._waker.wake()  # the engine's thread waits for this to be over
        try:
            with shield.lifted():
                self._workers.output.deliver()
        finally:
            settle(finished, self.failed)

    def _run(self) -> None:
        """Read what workers send and hand out what waits, until all is done after a shutdown."""
        try:
            while self._turn():
                pass
        except BaseException as error:  # a mistake of ours, for which nobody may wait for ever
            self._workers.fatal = self._workers.fatal or error
            self._give_up()
            raise
        finally:
            self._end()

    def _give_up(self) -> None:
        """No worker can be had any more: all tasks end."""
        with self.lock:
            self._workers.fail_all()
            finished = self._workers.take_finished()
        settle(finished, self.failed)

    def _turn(self) -> bool:
        """Wait once, and handle what came; False if all is over."""
        workers = self._workers
        if workers.fatal is not None:
            self._give_up()
        with self.lock:
            if (self.closing or workers.fatal is not None) and workers.resting:
                return False
            due = workers.look_at
            timeout = None if due is None else min(max(0.0, due - time.monotonic()), MAX_WAIT_S)
        ready = workers.select(timeout)
        self._waker.clear()
        with self.lock:
            workers.serve(ready)
            workers.advance()
            workers.look_after()
            finished = workers.take_finished()
        # By another thread: a handler of the program's may wait for a result.
        workers.output.wait_delivered() if finished else workers.output.deliver_soon()
        settle(finished, self.failed)
        return True

    def _wake(self) -> None:
        # By ident: current_thread() would enter a thread like the sampler's into a list, for good.
        if not self.mine():
            self._waker.wake()

    def _end(self) -> None:
        with self.lock:
            left = self._workers.end()
        # Workers may share queues or similar objects with other processes.
        shared = self._first is not None and (self._first.fds or self._first.inherited)
        timeout = SHARED_EXIT_TIMEOUT_S if shared else EXIT_STATUS_TIMEOUT_S
        for worker in left:
            if worker.pool.discard(worker, kill=False, timeout=timeout) is None:
                worker.pool.discard(worker, kill=True, timeout=EXIT_STATUS_TIMEOUT_S)
        self.pool.finish(EXIT_STATUS_TIMEOUT_S)
        self._workers.output.close()
        with self.lock:
            self._release()

    def _release(self) -> None:
        self._stall_monitor.stop()
        self._callables = Callables()  # what they captured may be large
        self.thread = None
        if self._first is not None:
            self._first.close()
        self._workers.selector().close()
        self._waker.close()
