"""Killing a single task that a worker has, without harm to what else that worker holds.

What the worker has not begun is recalled from it first. Once the task is all that it holds, the
worker is killed; a task that the worker gives back is dropped.
Assumptions: the engine's lock guards every method.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from parallax._backends.processes.parent.task import Task, TaskWorker

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

    def add(self, task: Task) -> None:
        """Kill a task that was handed to a worker."""
        if task.killed_at is None:
            task.killed_at = time.monotonic()
        if task.worker is not None:  # else it waits, having lost a worker, and is dropped there
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
