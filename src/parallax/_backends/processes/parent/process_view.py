"""A worker process as programs see it that read ``_processes``: like ``multiprocessing.Process``.

Guarantees: waiting for the end collects no exit status, which is the pool's to collect.
"""

from __future__ import annotations

import signal
import time

from parallax._backends.processes.common.process_exit import wait_for_exit
from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.worker_client import WorkerClient

#: Seconds between two looks at a process, where the system cannot wait for its end. Shorter costs
#: more wake-ups, longer notices the end later.
POLL_INTERVAL_S = 0.01


#: Seconds to wait for the process ids of starting workers.
PIDS_TIMEOUT_S = 30.0


class ProcessHandle:
    """One worker process."""

    def __init__(self, worker: WorkerClient, pool: Pool) -> None:
        self._worker = worker
        self._pool = pool

    @property
    def pid(self) -> int | None:
        """The process id; None as long as it is starting."""
        return self._worker.pid

    @property
    def name(self) -> str:
        """The name, which ``multiprocessing.current_process()`` has in the worker."""
        return self._worker.started.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self.pid} {'alive' if self.is_alive() else 'ended'}>"

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.exitcode is None and not self._ended(0.0)

    @property
    def exitcode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs or if it is not known."""
        return self._pool.exitcode(self._worker)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, for at most ``timeout`` seconds."""
        if self.exitcode is None:
            self._ended(timeout)

    def terminate(self) -> None:
        """Send SIGTERM; as ``kill`` on Windows."""
        self._worker.started.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._worker.started.kill()

    def _ended(self, timeout: float | None) -> bool:
        pid = self.pid
        if pid is None:
            return False
        ended = wait_for_exit(pid, timeout)
        if ended is not None:
            return ended
        import psutil

        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(POLL_INTERVAL_S)
