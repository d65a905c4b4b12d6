"""Kills and stops worker processes and zygotes from outside, as a plan says."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from tests.helpers.leaks import children_of

from .ledger import Injected
from .plan import Injection

__all__ = ["Injector", "workers_and_zygotes"]

#: Seconds for which an injection looks for a process.
SEARCH_LIMIT_S = 1.0


def workers_and_zygotes() -> tuple[list[int], list[int]]:
    """Process ids of parallax's workers of this process, and of its zygotes."""
    workers: list[int] = []
    zygotes: list[int] = []
    for pid in children_of(os.getpid()):
        words = _command(pid)
        if "start.zygote" in words:
            zygotes.append(pid)
            workers += children_of(pid)
        elif "worker.main" in words or words == _command(os.getpid()):
            workers.append(pid)  # executed, or forked from this very process
    return workers, zygotes


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


class Injector(threading.Thread):
    """Injects one fault after the other, while the calls of a round go on."""

    def __init__(self, injections: list[Injection], injected: Injected) -> None:
        super().__init__(name="chaos-injector", daemon=True)
        self._injections = injections
        self._injected = injected
        self._over = threading.Event()
        #: when each process that is stopped goes on.
        self._asleep: dict[int, float] = {}
        #: `Injection.what` of those that found a process.
        self.hits: list[str] = []

    def run(self) -> None:
        for injection in self._injections:
            if self._pause(injection.after):
                break
            deadline = time.monotonic() + SEARCH_LIMIT_S
            while not self._inject(injection) and time.monotonic() < deadline:
                if self._pause(0.005):
                    break
        while self._asleep and not self._pause(0.05):
            pass
        self._wake(force=True)

    def end(self) -> None:
        """Ends the thread; processes that it stopped go on."""
        self._over.set()
        self.join()

    def _pause(self, seconds: float) -> bool:
        """Wait, and wake whoever has slept for long enough; whether the round is over."""
        deadline = time.monotonic() + seconds
        while True:
            self._wake()
            left = deadline - time.monotonic()
            if self._over.wait(max(0.0, min(left, 0.05))):
                return True
            if left <= 0:
                return False

    def _wake(self, *, force: bool = False) -> None:
        for pid, until in list(self._asleep.items()):
            if force or time.monotonic() >= until:
                _send(pid, signal.SIGCONT)
                del self._asleep[pid]

    def _inject(self, injection: Injection) -> bool:
        workers, zygotes = workers_and_zygotes()
        among = zygotes if "zygote" in injection.what else workers
        if not among:
            return False
        pid = among[int(injection.which * len(among))]
        # Noted first: its consequences may be seen before this thread goes on.
        if pid in zygotes:
            self._injected.zygotes += 1
            self._injected.orphans.update(
                children_of(pid) if injection.what == "kill zygote" else ()
            )
        elif injection.what == "kill":
            self._injected.killed.add(pid)
        if injection.what.startswith("stop"):
            self._injected.stops += 1
            self._asleep[pid] = time.monotonic() + injection.length
            hit = _send(pid, signal.SIGSTOP)
        else:
            hit = _send(pid, signal.SIGKILL)
        if hit:
            self.hits.append(injection.what)
        return hit


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False  # it is gone
    return True
