"""Ending a single task that a worker has, without harm to what else that worker holds.

What the worker has not begun is recalled from it first. Once the task is all that it holds, or was
never begun at all, the worker is killed or the task dropped.

Not thread-safe: the engine's lock guards every method.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from parallax._backends.processes.common import protocol
from parallax._backends.processes.parent.task import Lent, Task

__all__ = ["Doomed"]

clock = time.monotonic

#: Seconds after which a worker is killed for one of its tasks though it holds others: native code
#: keeps it from giving them back.
PRESS = 0.5

#: Seconds after which a worker is asked again to give back what it has not begun.
AGAIN = 0.1


class Doomed:
    """Tasks that are to be ended and that workers have yet.

    Args:
        expect: has ``press`` called again at a moment.
    """

    def __init__(self, expect: Callable[[float], None]) -> None:
        self._expect = expect
        self._tasks: set[Task] = set()

    def add(self, task: Task) -> None:
        """End a task that was handed to a worker."""
        if task.doomed is None:
            task.doomed = clock()
        if task.lent is not None:  # else it waits, having lost a worker, and is dropped there
            self._tasks.add(task)
            self.press(task.lent)

    def press(self, lent: Lent) -> bool:
        """Go on with a worker that has such a task; False if it has none."""
        if not self._tasks:
            return False
        self._tasks = {task for task in self._tasks if task.lent is not None}
        since = [task.doomed for task in self._tasks if task.lent is lent]
        if not since:
            return False
        held = sum(len(batch.tasks) for batch in lent.flight)
        if held == 1 or any(moment and clock() - moment > PRESS for moment in since):
            lent.condemned = True
            lent.worker.started.kill()
            return True
        if protocol.RECALL is not None:
            for batch in lent.flight:
                batch.recalled = True
            lent.worker.started.signal(protocol.RECALL)
        self._expect(clock() + AGAIN)
        return True
