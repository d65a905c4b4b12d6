"""How many single tasks travel to a worker in one frame: a pure rule over measured times.

A task alone costs a system call, a wake-up and a reply, tens of microseconds; many short ones in a
frame share that. What is sent together runs one after the other, so only tasks that are known to be
short are: a task that nobody has timed yet, or a long one, travels alone and only to an idle
worker.

Guarantees: no clock, no input or output; never less than one task for an idle worker.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["BatchSize"]

#: Seconds of work in one frame. Longer makes results wait, shorter pays more frames.
FRAME = 0.001

#: Weight of the newest frame in a callable's mean time.
NEWEST = 0.3

#: Tasks in one frame, at most: so many arguments are pickled and unpickled in a row.
MOST = 512

#: Callables whose times are remembered.
REMEMBERED = 1024


class BatchSize:
    """What is known about the time that each callable takes."""

    def __init__(self) -> None:
        self._mean: dict[Hashable, float] = {}

    def mean(self, key: Hashable) -> float | None:
        """Seconds per task of that callable, None if it was never timed."""
        return self._mean.get(key)

    def took(self, key: Hashable, seconds: float) -> None:
        """Learn from a task, or from the mean of several.

        Args:
            key: the callable.
            seconds: what one task took.
        """
        mean = self._mean.pop(key, None)
        if mean is None:
            if len(self._mean) >= REMEMBERED:
                del self._mean[next(iter(self._mean))]
            mean = seconds
        elif seconds > mean:
            # At once: what is thought short and is not holds up its neighbours.
            mean = max(mean + NEWEST * (seconds - mean), seconds / 4)
        else:
            mean += NEWEST * (seconds - mean)
        self._mean[key] = mean

    def share(self, queued: int, workers: int) -> int:
        """How many of the queued tasks one worker may get now, so that all have work to the end.

        Args:
            queued: tasks that wait.
            workers: workers that could take them.
        """
        return max(1, min(MOST, -(-queued // (2 * max(1, workers)))))

    def fits(self, key: Hashable, count: int, busy: float) -> bool:
        """Whether one more task may go into a frame.

        Args:
            key: its callable.
            count: tasks that are in the frame already.
            busy: seconds of work that the worker has, the frame's included; 0 if it is idle.
        """
        mean = self._mean.get(key)
        if count == 0 and busy == 0.0:
            return True
        return mean is not None and busy + mean <= FRAME
