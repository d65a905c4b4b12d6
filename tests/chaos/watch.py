"""What hangs: who waits where, in this process and in its workers."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.helpers.leaks import descendants

__all__ = ["dump", "end_all"]


def dump() -> None:
    """Write the stacks of all threads of this process and of its workers to the standard error."""
    print("== threads of this process", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    pool = sys.modules.get("parallax._backends.processes.parent.warm_pool")
    if pool is None:
        return
    # Without the pools' locks: somebody who hangs may hold them.
    known = {w for each in list(pool._pools.values()) for w in list(each._alive)}
    for worker in known | set(pool.hired_anywhere):
        _tell(worker)
    for pid in descendants():
        _state(pid)
    for each in gc.get_objects():
        if type(each).__name__ == "TaskWorkers":
            _tell_tasks(each)


def _tell_tasks(workers: Any) -> None:
    """The workers of an executor, and what they hold."""
    print(
        f"== executor: {len(workers.queue.tasks)} wait, {workers.starting} workers start, "
        f"fatal {workers.fatal!r}, looks after {workers.look_at} at {time.monotonic()}",
        file=sys.stderr,
    )
    for worker in list(workers.workers.values()):
        held = [len(batch.tasks) for batch in worker.batches]
        words = f"{worker.state}, holds {held}"
        print(f"   worker {worker.pid}: {words}", file=sys.stderr, flush=True)


def _tell(worker: Any) -> None:
    words = {
        "state": worker.state,
        "begun": worker.begun,
        "owed": worker.owed,
        "unsent": worker.channel.unsent,
    }
    print(f"== worker {worker.pid}: {words}", file=sys.stderr, flush=True)
    with contextlib.suppress(Exception):
        _state(worker.pid)
        print(worker.stacks(1.0), file=sys.stderr, flush=True)


def _state(pid: int) -> None:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        state = next(line for line in lines if line.startswith("State"))
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-120:]
        print(f"== process {pid}: {state} {command}", file=sys.stderr, flush=True)


def end_all() -> None:
    """End all that this process has started, however it hangs."""
    for pid in descendants():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
