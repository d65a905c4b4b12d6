"""Striking worker processes and zygotes from outside, as a plan says."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from tests.helpers.leaks import children_of

from .ledger import Struck
from .plan import Blow

__all__ = ["Striker", "workers_and_zygotes"]

#: Seconds that a blow waits for somebody to strike.
SEEK = 1.0


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


class Striker(threading.Thread):
    """Strikes one after the other, while the calls of a round go on."""

    def __init__(self, blows: list[Blow], struck: Struck) -> None:
        super().__init__(name="chaos-striker", daemon=True)
        self._blows = blows
        self._struck = struck
        self._over = threading.Event()
        #: when each process that is stopped goes on.
        self._asleep: dict[int, float] = {}
        #: blows that hit somebody, by what they were.
        self.hits: list[str] = []

    def run(self) -> None:
        for blow in self._blows:
            if self._pause(blow.after):
                break
            deadline = time.monotonic() + SEEK
            while not self._strike(blow) and time.monotonic() < deadline:
                if self._pause(0.005):
                    break
        while self._asleep and not self._pause(0.05):
            pass
        self._wake(force=True)

    def end(self) -> None:
        """The calls are over: nobody stays stopped."""
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

    def _strike(self, blow: Blow) -> bool:
        workers, zygotes = workers_and_zygotes()
        among = zygotes if "zygote" in blow.what else workers
        if not among:
            return False
        pid = among[int(blow.which * len(among))]
        # Noted first: what comes of it may be seen before the signal's sender goes on.
        if pid in zygotes:
            self._struck.zygotes += 1
            self._struck.orphans.update(children_of(pid) if blow.what == "kill zygote" else ())
        elif blow.what == "kill":
            self._struck.killed.add(pid)
        if blow.what.startswith("stop"):
            self._struck.stops += 1
            self._asleep[pid] = time.monotonic() + blow.length
            hit = _send(pid, signal.SIGSTOP)
        else:
            hit = _send(pid, signal.SIGKILL)
        if hit:
            self.hits.append(blow.what)
        return hit


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False  # it is gone
    return True
