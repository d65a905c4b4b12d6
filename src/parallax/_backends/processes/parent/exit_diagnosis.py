"""How a worker ended, as far as that can be found out: status, stack, the out-of-memory killer.

The kernel counts the kills of its out-of-memory killer per control group. A worker that ended by
SIGKILL while the count rose is reported as one of them; each step of the count stands for one
worker only. Another process of the same group may be mistaken for the worker.
"""

from __future__ import annotations

import threading

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._core.memory import oom_kills

SIGKILL = 9


class Ledger:
    """Which kills the kernel's count accounts for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: kills that were attributed to workers, or happened before there was one.
        self._accounted: int | None = None
        self._begun = False

    def begin(self) -> None:
        """Read the kernel's count before there is a worker."""
        if not self._begun:
            with self._lock:
                self._begun = True
                self._accounted = oom_kills()

    def judge(self) -> bool | None:
        """Whether the kernel counts one more kill than is accounted for; None if not known."""
        with self._lock:
            if self._accounted is None or (count := oom_kills()) is None:
                return None
            if count <= self._accounted:
                return False
            self._accounted += 1
            return True


ledger = Ledger()


def describe_end(worker: WorkerClient, exitcode: int | None, detail: str = "") -> WorkerEnd:
    """Describe the end of a worker; ``detail``: why it was killed, if it was."""
    oom = ledger.judge() if exitcode == -SIGKILL and not detail else None
    return WorkerEnd(worker.pid, exitcode, detail or None, oom, worker.crash or None)


def unreadable(error: BaseException) -> str:
    """Why a worker was killed: it sent an invalid frame."""
    why = str(error) or "there is no memory for it"
    return f"what it sent cannot be read ({why}), so it was ended"
