"""How a worker ended, as far as that can be found out: status, stack, the out-of-memory killer.

The kernel counts whom its out-of-memory killer has ended, by control group. A worker that was ended
by SIGKILL while the count went up is taken for one of them; each step of the count stands for one
worker only. A process of somebody else in the same group may be mistaken for it.
"""

from __future__ import annotations

import threading

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._core.memory import oom_kills

__all__ = ["describe_end", "expect_ends", "unreadable"]

SIGKILL = 9


class _Ledger:
    """Which kills the kernel's count accounts for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: the kernel's count less the workers that it was taken to stand for.
        self._accounted: int | None = None
        self._begun = False

    def begin(self) -> None:
        if not self._begun:
            with self._lock:
                self._begun = True
                self._accounted = oom_kills()

    def judge(self) -> bool | None:
        """Whether the kernel has ended one more than is accounted for; None if nobody knows."""
        with self._lock:
            if self._accounted is None or (count := oom_kills()) is None:
                return None
            if count <= self._accounted:
                return False
            self._accounted += 1
            return True


_ledger = _Ledger()


def expect_ends() -> None:
    """Note what the kernel has counted before there was a worker."""
    _ledger.begin()


def describe_end(worker: WorkerClient, exitcode: int | None, detail: str = "") -> WorkerEnd:
    """What can be said of a worker that the pool has let go of.

    Args:
        worker: it.
        exitcode: its exit status, as ``subprocess`` counts them; None if unknown.
        detail: why it was given up, if it did not end by itself.
    """
    oom = _ledger.judge() if exitcode == -SIGKILL and not detail else None
    return WorkerEnd(worker.pid, exitcode, detail or None, oom, worker.crash or None)


def unreadable(error: BaseException) -> str:
    """Why a worker was ended whose words make no sense."""
    return f"what it sent cannot be read ({str(error) or 'too long'}), so it was ended"
