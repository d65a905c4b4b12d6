"""CPU time and memory of a process with all that it started, live or reaped.

Processes of a workload that were there before the measured work, such as a server, are left out.
A worker that is neither in the tree nor reaped by it is not seen.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import psutil

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class Usage:
    """Counts from the moment it is made, or from the birth of this process.

    Args:
        at_birth: what `machine_cpu` said just before this process was started.
    """

    def __init__(self, at_birth: tuple[float, float] | None = None) -> None:
        self._self = psutil.Process()
        self._ignored: set[int] = set()
        self._start = 0.0
        if at_birth is None:
            self._ignored = {child.pid for child in self._self.children(recursive=True)}
            self._start = self._cpu()
        self._machine = at_birth or machine_cpu()

    def cpu_seconds(self) -> float:
        return self._cpu() - self._start

    def others_share(self) -> float:
        """Share of the machine that other programs took since the start, from 0 to 1."""
        busy, total = machine_cpu()
        passed = total - self._machine[1]
        if passed <= 0:
            return 0.0
        return max(0.0, (busy - self._machine[0] - self.cpu_seconds()) / passed)

    def peak_megabytes(self) -> float:
        """Sum of the highest resident sizes; a page shared by a fork counts for each process."""
        return sum(_peak(process) for process in self._tree()) / 1e6

    def _tree(self) -> list[psutil.Process]:
        children = self._self.children(recursive=True)
        return [self._self, *(child for child in children if child.pid not in self._ignored)]

    def _cpu(self) -> float:
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
                # Reaped children; Windows has no such figure.
                total += getattr(times, "children_user", 0.0)
                total += getattr(times, "children_system", 0.0)
        return total


def machine_cpu() -> tuple[float, float]:
    """CPU seconds of the whole machine: busy, and all."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    total = sum(times) - guests  # guests are in the user's time already
    return total - idle, total


def _peak(process: psutil.Process) -> int:
    with contextlib.suppress(OSError):
        found = _PEAK.search(Path(f"/proc/{process.pid}/status").read_text())
        if found:
            return int(found[1]) * 1024
    with contextlib.suppress(psutil.Error):
        memory = process.memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    return 0
