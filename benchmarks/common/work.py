"""What the workers of the engine benchmark run. They import this module, so it imports little."""

from __future__ import annotations

import os
import select
import time

# Longer than any worker takes to start; shorter than the limit of a cell, so that a pool that
# never fills is reported as such.
MEETING_LIMIT_S = 10.0


def noop(item: int) -> int:
    return item


def short(item: int) -> int:
    """About 0.1 ms of pure Python."""
    total = 0
    for number in range(2000):
        total += number ^ item
    return total


def nap(seconds: float) -> int:
    """Keeps a worker occupied without a core; returns its process id."""
    time.sleep(seconds)
    return os.getpid()


def open_gate(folder: str) -> None:
    """Prepares `folder` for one meeting."""
    os.mkfifo(f"{folder}/gate")


def meet(folder: str, number: int, limit: float = MEETING_LIMIT_S) -> tuple[int, bool]:
    """Waits until `number` workers are here; returns the process id and whether they all came.

    It waits no longer than `limit`, in seconds.
    No worker polls: each waits on a named pipe, and the last to arrive writes a byte for each.
    A worker holds the pipe open before it is counted, so the bytes cannot be lost.
    """
    gate = os.open(f"{folder}/gate", os.O_RDWR | os.O_NONBLOCK)
    counter = os.open(f"{folder}/arrived", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(counter, b".")
        # Two workers may both find themselves last; the surplus bytes do no harm.
        if os.fstat(counter).st_size >= number:
            os.write(gate, b"." * (number - 1))
            return os.getpid(), True
        ready, _, _ = select.select([gate], [], [], limit)
        if ready:
            os.read(gate, 1)
        return os.getpid(), bool(ready)
    finally:
        os.close(counter)
        os.close(gate)
