"""The tasks of an executor that no worker has, and what of them travels in one frame.

Assumptions: the engine's lock guards every method.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from parallax._backends.processes.parent.task import Task, TaskWorker
from parallax._backends.processes.parent.worker_client import MAX_KEPT_CALLS
from parallax._backends.processes.parent.worker_state import CONDEMNED
from parallax._scheduling.batch_size import BatchSize

#: Bytes of arguments from which a task travels alone, and a frame takes no more. What a busy worker
#: is sent must fit its socket, or it could not give it back.
MIN_LARGE_TASK_BYTES = 1 << 16

#: Seconds that a task is expected to take which was never timed.
UNTIMED_S = float("inf")


class TaskQueue:
    def __init__(self, max_tasks: int | None) -> None:
        self.tasks: deque[Task] = deque()
        #: how long the tasks of each callable take.
        self.batch_size = BatchSize()
        self._max_tasks = max_tasks

    def take_back(self, wanted: Callable[[Task], bool]) -> list[Task]:
        back = [task for task in self.tasks if not task.running() and wanted(task)]
        if back:
            out = set(back)
            self.tasks = deque(task for task in self.tasks if task not in out)
        return back

    def drop(self, task: Task) -> bool:
        """Take out a task that is to be killed; False if it was not there."""
        try:
            self.tasks.remove(task)
        except ValueError:
            return False
        task.data = None
        return True

    def choose(self, worker: TaskWorker, workers: int) -> tuple[deque[Task], float]:
        """Take the tasks of one frame, and the seconds that they are expected to take."""
        queue, sizes = self.tasks, self.batch_size
        tasks: deque[Task] = deque()
        keys: set[int] = set()
        most = sizes.share(len(queue), workers)
        if not worker.started.recalls:
            most = 1
        if worker.state is CONDEMNED:
            most = 0
        if self._max_tasks is not None:
            most = min(most, self._max_tasks - worker.given)
        before = busy = worker.expected()
        size = 0
        while queue and len(tasks) < most:
            task = queue[0]
            known, data = task.known, task.data
            if known is None or data is None or not task.begin():
                queue.popleft()  # it was cancelled
                continue
            alone = task.alone or task.limit is not None  # then it is known when it has begun
            large = alone or data.nbytes > MIN_LARGE_TASK_BYTES or bool(data.buffers)
            if tasks and (large or (known.key not in keys and len(keys) >= MAX_KEPT_CALLS)):
                break
            if not sizes.fits(known.key, len(tasks), busy):
                break
            if large and worker.batches:
                break
            queue.popleft()
            tasks.append(task)
            keys.add(known.key)
            mean = sizes.mean(known.key)
            busy += UNTIMED_S if mean is None else mean
            size += data.nbytes
            if large or mean is None or size > MIN_LARGE_TASK_BYTES:
                break
        return tasks, busy - before
