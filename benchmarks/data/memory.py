"""Memory of a process with all that it started, from what Linux says in /proc.

Two measures, both of use as growth only:

- `held`: private memory of each process of the tree, and the shared memory (memfd, /dev/shm) of
  the whole machine, mapped by anybody or not. It is cheap to read, so peaks can be sampled; other
  programs must leave shared memory alone meanwhile. Pages that a fork shares count for each.
- `proportional`: the sum of PSS, in which a page counts once however many map it. Shared memory
  that no process maps is not in it.

Run as `python -m benchmarks.data.memory PID` this is the sampler of a `Peak`: a process, for a
thread would wait for the interpreter's lock through the very copies that it is there to see.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")
_PRIVATE = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
_SHARED = re.compile(r"^Shmem:\s+(\d+) kB", re.MULTILINE)
# Longer misses short peaks, shorter takes a core from the work.
_INTERVAL_S = 0.002
# Samples between two looks for new processes. Pools are warm when they are measured.
_SAMPLES_PER_SCAN = 20


class Peak:
    """The growth of `held` while it is entered: `bytes` is the highest, against the start."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> Peak:
        check()
        command = [sys.executable, "-m", __name__, str(os.getpid())]
        self._sampler = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._sampler.stdout is not None
        if self._sampler.stdout.readline() != "started\n":
            raise RuntimeError("the sampler of memory did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        output, _ = self._sampler.communicate()  # closes its input, which ends it
        if kind is None:
            self.bytes = int(output)


def check() -> None:
    """Raises RuntimeError where memory cannot be measured like this."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise RuntimeError("memory is measured by /proc/PID/smaps_rollup, which Linux has")


def family(root: int, without: int = 0) -> list[int]:
    """The process ids of `root` and all that descend from it, but for one."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # The name stands in parentheses and may hold anything.
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid != without:
            found.append(pid)
            waiting += children.get(pid, ())
    return found


def held(pids: list[int]) -> int:
    """Bytes that the processes have for themselves, and shared memory of the machine."""
    private = sum(_read(f"{pid}/status", _PRIVATE) for pid in pids)
    return private + _read("meminfo", _SHARED)


def proportional(pids: list[int]) -> int:
    """Bytes; the sum of PSS."""
    return sum(_read(f"{pid}/smaps_rollup", _PSS) for pid in pids)


def _read(name: str, pattern: re.Pattern[str]) -> int:
    with contextlib.suppress(OSError):  # it ended
        found = pattern.search((_PROC / name).read_text())
        if found:
            return int(found[1]) * 1024
    return 0


def _sample(root: int) -> int:
    """Samples until the standard input is closed; returns the highest growth in bytes."""
    import select

    pids = family(root, without=os.getpid())
    start = highest = held(pids)
    print("started", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], _INTERVAL_S)[0]:
        number += 1
        if number % _SAMPLES_PER_SCAN == 0:
            pids = family(root, without=os.getpid())
        highest = max(highest, held(pids))
    return max(highest, held(pids)) - start


if __name__ == "__main__":
    print(_sample(int(sys.argv[1])))
