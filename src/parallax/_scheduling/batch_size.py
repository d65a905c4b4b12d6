"""How many single tasks are sent to a worker in one frame: a pure rule over measured times.

A task alone costs a system call, a wake-up and a reply, tens of microseconds; many short tasks in
one frame share that cost. Tasks of a frame run one after the other, so only tasks known to be
short are sent together: an untimed or long task is sent alone, and only to an idle worker.

Guarantees: no clock, no I/O; never less than one task for an idle worker.
"""

from __future__ import annotations

from collections.abc import Hashable

#: Seconds of work in one frame. Longer makes results wait, shorter pays more frames.
FRAME_WORK_S = 0.001

#: Weight of the newest time in a callable's mean time.
NEWEST_TASK_WEIGHT = 0.3

#: Tasks in one frame. More would pickle and unpickle too many arguments in a row.
MAX_FRAME_TASKS = 512

#: Callables whose mean times are kept. More would keep too many callables alive.
MAX_TIMED_CALLABLES = 1024


class BatchSize:
    """The mean times of callables, and the frame sizes that follow."""

    def __init__(self) -> None:
        self._mean: dict[Hashable, float] = {}

    def mean(self, key: Hashable) -> float | None:
        """Mean seconds per task of a callable, None if it was never timed."""
        return self._mean.get(key)

    def took(self, key: Hashable, seconds: float) -> None:
        """Learn the seconds of one task of a callable, or the mean of several."""
        mean = self._mean.pop(key, None)
        if mean is None:
            if len(self._mean) >= MAX_TIMED_CALLABLES:
                del self._mean[next(iter(self._mean))]
            mean = seconds
        elif seconds > mean:
            # At once: a long task that is taken for a short one holds up its neighbours.
            mean = max(mean + NEWEST_TASK_WEIGHT * (seconds - mean), seconds / 4)
        else:
            mean += NEWEST_TASK_WEIGHT * (seconds - mean)
        self._mean[key] = mean

    def share(self, queued: int, workers: int) -> int:
        """How many of ``queued`` tasks one of ``workers`` may get, so all have work to the end."""
        return max(1, min(MAX_FRAME_TASKS, -(-queued // (2 * max(1, workers)))))

    def fits(self, key: Hashable, count: int, busy: float) -> bool:
        """Whether a frame takes one more task, for a worker ``busy`` so many seconds."""
        mean = self._mean.get(key)
        if count == 0 and busy == 0.0:
            return True
        return mean is not None and busy + mean <= FRAME_WORK_S
