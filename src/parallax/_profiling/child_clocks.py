"""CPU seconds of the processes below this one, read without letting go of the GIL.

Guarantees: nothing raises; processes that come and go between two reads count from the moment when
their parent has collected them. Linux only: elsewhere 0 until they are collected, or for ever.
"""

from __future__ import annotations

import os

from parallax._profiling.thread_states import keep_reading

#: Processes that are looked at in one read: more would keep the program waiting.
_MAX_CHILDREN = 64


class ChildClocks:
    """Adds up the clocks of all descendants."""

    def __init__(self) -> None:
        self._file = keep_reading()
        self._ticks = float(os.sysconf("SC_CLK_TCK")) if hasattr(os, "sysconf") else 100.0
        self._collected = _collected()
        self.seconds = 0.0
        #: CPU seconds of each descendant when it was looked at last, by process id.
        self.by_child: dict[int, float] = {}

    def read(self) -> float:
        """Seconds since the construction; never less than at the read before."""
        alive = 0.0
        if self._file is not None:
            queue, seen = self._children("self"), 0
            while queue and seen < _MAX_CHILDREN:
                process = queue.pop()
                seen += 1
                queue += self._children(process)
                fields = self._file(f"/proc/{process}/stat").rpartition(b")")[2].split()
                # user and system time, then that of its collected children
                times = [int(field) / self._ticks for field in fields[11:15]]
                alive += sum(times)
                if times:
                    self.by_child[int(process)] = sum(times[:2])
        self.seconds = max(self.seconds, alive + _collected() - self._collected)
        return self.seconds

    def _children(self, process: str) -> list[str]:
        if self._file is None:
            return []
        main = str(os.getpid()) if process == "self" else process
        return self._file(f"/proc/{process}/task/{main}/children").decode().split()


def _collected() -> float:
    times = os.times()
    return times.children_user + times.children_system
