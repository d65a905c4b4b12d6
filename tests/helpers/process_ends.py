"""The end of a process, whoever started it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable

import psutil


def living(pids: Iterable[int], seconds: float) -> list[int]:
    """Those that have not ended within that time, one after the other; a zombie has ended."""
    deadline = time.monotonic() + seconds
    return [pid for pid in pids if not _ended(pid, max(0.0, deadline - time.monotonic()))]


def _ended(pid: int, seconds: float) -> bool:
    try:
        if not hasattr(os, "pidfd_open"):
            psutil.Process(pid).wait(seconds)
            return True
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return True
    except psutil.TimeoutExpired:
        return False
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)
