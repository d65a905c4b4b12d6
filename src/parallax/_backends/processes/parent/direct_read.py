"""Reading the answer of a worker in the thread that waits for it, so that no other one wakes up.

Guarantees: one thread at a time reads a worker's socket; a borrowed worker is returned whatever is
raised in between, Ctrl-C and time limits included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from parallax._backends.processes.parent.task import Task, TaskWorker
from parallax._backends.processes.parent.task_workers import TaskWorkers
from parallax._backends.processes.parent.worker_state import WORKING
from parallax._core.deferred_signals import MAX_WAIT_S, Shield
from parallax._transport.wakeup import ready_channels

clock = time.monotonic


def read_directly(
    task: Task,
    timeout: float | None,
    workers: TaskWorkers,
    lock: Any,
    give_back: Callable[[TaskWorker, Shield], None],
) -> float | None:
    """Borrow a task's worker till it is done, unless another does; what is left of ``timeout``."""
    if not workers.concurrent:
        return timeout
    deadline = None if timeout is None else clock() + timeout
    borrowed: list[TaskWorker] = []
    in_time = True
    try:
        while in_time and not task.done():
            try:
                with lock:
                    worker = task.worker
                    if worker is None or worker.state is not WORKING:
                        break
                    # With something unsent the engine's thread is needed anyway. And who reads a
                    # worker that cannot be killed would not see that its task was cancelled.
                    if worker.channel.unsent or not worker.started.killable:
                        break
                    borrowed.append(worker)
                    workers.borrow(worker)
                channel, left = worker.channel, None
                if deadline is not None:
                    left = min(max(0.0, deadline - clock()), MAX_WAIT_S)
                in_time = (left is None and channel.wait()) or bool(ready_channels([channel], left))
            finally:
                # Also if a KeyboardInterrupt came at any point of this.
                if borrowed:
                    with Shield() as shield:
                        give_back(borrowed.pop(), shield)
    except BaseException:
        # An interrupt came as the worker was about to be returned.
        with Shield() as shield:
            for worker in borrowed:
                give_back(worker, shield)
        raise
    return None if deadline is None else max(0.0, deadline - clock())
