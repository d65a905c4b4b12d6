"""Killing a single task that a worker has, without harm to what else that worker holds.

A task is killed when it is cancelled, or when its worker has been at it for as long as it may be.

What the worker has not begun is recalled from it first. Once the task is all that it holds, the
worker is killed; a task that the worker gives back is dropped.
Assumptions: the engine's lock guards every method.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from parallax._backends.processes.parent.task import Task, TaskWorker
from parallax._core.lazy_import import errors

#: Seconds that a worker may be silent while tasks wait behind its present one. Shorter recalls what
#: would have run soon, longer delays what waits.
MAX_SILENCE_S = 0.02

#: Seconds after which a worker is killed for one of its tasks though it holds others: native code
#: keeps it from giving them back. Shorter kills tasks that were not meant.
RECALL_TIMEOUT_S = 0.5

#: Seconds after which a worker that was recalled and holds tasks yet is asked again: it may have
#: had only part of a frame, or have been between two tasks.
TASK_RECALL_RETRY_S = 0.1


class TaskKiller:
    """Tasks that are to be killed and that workers have yet."""

    def __init__(self, expect: Callable[[float], None]) -> None:
        self._expect = expect
        self._tasks: set[Task] = set()

    def attend(self, worker: TaskWorker, now: float) -> None:
        """Kill or recall a worker that holds up tasks."""
        self.check_limit(worker)
        if self.press(worker) or not worker.started.recalls or len(worker.tasks) < 2:
            return
        due = max(worker.batches[0].since + MAX_SILENCE_S, worker.recalled_at + TASK_RECALL_RETRY_S)
        if now >= due:
            worker.recalled_at = now
            worker.recall()
            due = now + TASK_RECALL_RETRY_S
        self._expect(due)

    def check_limit(self, worker: TaskWorker) -> None:
        """Kill the task that a worker is at if its time is over; else look again when it is."""
        if not worker.batches or not worker.begun:
            return
        batch = worker.batches[0]
        task, now = batch.tasks[0], time.monotonic()
        if task.limit is None or task.killed_at is not None:
            return
        if now < batch.since + task.limit:
            self._expect(batch.since + task.limit)
            return
        task.verdict = errors.ItemTimeoutError(None, task.limit, worker.pid)
        self.add(task)

    def add(self, task: Task) -> None:
        """Kill a task that was handed to a worker."""
        if task.killed_at is None:
            task.killed_at = time.monotonic()
        # Without one it waits, having lost a worker, and is dropped there.
        if task.worker is not None and task.worker.started.killable:
            self._tasks.add(task)
            self.press(task.worker)

    def press(self, worker: TaskWorker) -> bool:
        """Go on with a worker that has such a task; False if it has none."""
        if not self._tasks:
            return False
        self._tasks = {task for task in self._tasks if task.worker is not None}
        since = [task.killed_at for task in self._tasks if task.worker is worker]
        if not since:
            return False
        now = time.monotonic()
        if len(worker.tasks) == 1 or any(at and now - at > RECALL_TIMEOUT_S for at in since):
            worker.condemn()
            worker.started.kill()
            return True
        worker.recall()
        self._expect(now + TASK_RECALL_RETRY_S)
        return True
