"""Runs rounds: the threads of callers, the injected faults, the watchdog, the check for leaks."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.helpers.leaks import (
    Held,
    close_default_executors,
    shutdown_pool,
    wait_until_clean,
    warm_resources,
)

from .calls import make
from .injector import Injector, workers_and_zygotes
from .ledger import Injected, Ledger
from .plan import Round

__all__ = ["HangError", "Rounds"]

#: Seconds that a worker whose zygote was killed has to leave.
GRACE = 10.0


class HangError(Exception):
    """No item has ended for too long."""


class Rounds:
    """Plays rounds and counts."""

    def __init__(self, folder: str, patience: float) -> None:
        """Prepare.

        Args:
            folder: for what items leave.
            patience: seconds without an item that ends until it is a hang.
        """
        self._folder = folder
        self._patience = patience
        self.counts: Counter[str] = Counter()
        self._known: dict[int, float] = {}
        self._orphans: set[int] = set()
        settle()
        self._before = Held.now()

    def play(self, played: Round) -> list[str]:
        """Play a round; what was wrong with it, in words.

        Raises:
            HangError: it does not end.
        """
        counts = self.counts
        injected = Injected(orphans=self._orphans)
        ledgers: list[Ledger] = []
        threads: list[threading.Thread] = []
        mistakes: list[BaseException] = []
        for calls in played.threads:
            mine = []
            for call in calls:
                trail = str(Path(self._folder, f"trail-{counts['calls']}-{len(ledgers)}"))
                mine.append(Ledger(call, trail))
                ledgers.append(mine[-1])
            threads.append(
                threading.Thread(target=_caller, args=(mine, mistakes), name="chaos-caller")
            )
        injector = Injector(played.injections, injected)
        usual = sys.getswitchinterval()
        sys.setswitchinterval(played.switch)
        for thread in (injector, *threads):
            thread.daemon = True  # so that a hang can be told of
            thread.start()
        self._await(threads, ledgers)
        sys.setswitchinterval(usual)
        self._remember()
        injector.end()
        for mistake in mistakes:
            raise mistake
        found = [f"{fault} [{each}]" for each in ledgers for fault in each.faults(injected)]
        counts["rounds"] += 1
        counts["calls"] += len(ledgers)
        counts["items"] += sum(ledger.moves for ledger in ledgers)
        for hit in injector.hits:
            counts[hit] += 1
        settle()
        found += [late for ledger in ledgers for late in ledger.late()]
        del ledgers, threads, mine, calls, call
        return self._counted(found + self._left())

    def rest(self) -> list[str]:
        """Shut everything down; what is left then, which must be nothing at all."""
        settle()
        self._remember()
        shutdown_pool()
        found = [f"leak: {line}" for line in wait_until_clean(self._before)]
        gc.collect()
        maps = Path("/proc/self/maps").read_text().splitlines()
        found += [f"leak: mapping {line}" for line in maps if "memfd:parallax" in line]
        return self._counted(found + self._left_workers(alive=set()))

    def _counted(self, found: list[str]) -> list[str]:
        for fault in found:
            self.counts[fault.partition(":")[0]] += 1
        return found

    def _await(self, threads: list[threading.Thread], ledgers: list[Ledger]) -> None:
        moves, since = -1, time.monotonic()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                self._remember()
                now = sum(each.moves + each.over for each in ledgers)
                if now != moves:
                    moves, since = now, time.monotonic()
                elif time.monotonic() - since > self._patience:
                    self.counts["hang"] += 1
                    raise HangError(", ".join(str(each) for each in ledgers if not each.over))

    def _left(self) -> list[str]:
        settle()
        found = [f"leak: {line}" for line in wait_until_clean(self._before)]
        workers, zygotes = workers_and_zygotes()
        return found + self._left_workers(alive={*workers, *zygotes})

    def _remember(self) -> None:
        """Note the workers there are: one whose zygote was killed is no descendant of ours."""
        for pid in workers_and_zygotes()[0]:
            if pid not in self._known:
                with contextlib.suppress(psutil.Error):
                    self._known[pid] = psutil.Process(pid).create_time()

    def _left_workers(self, alive: set[int]) -> list[str]:
        """Workers that live on and that nobody knows."""
        deadline = time.monotonic() + GRACE
        while True:
            known = alive | warm_resources()[0]
            left = [pid for pid, born in self._known.items() if _lives(pid, born)]
            self._known = {pid: self._known[pid] for pid in left}
            lost = [pid for pid in left if pid not in known]
            if not lost:
                return []
            if time.monotonic() > deadline:
                for pid in lost:
                    del self._known[pid]
                return [f"leak: worker {pid} lives on" for pid in lost]
            time.sleep(0.02)


def _caller(ledgers: list[Ledger], mistakes: list[BaseException]) -> None:
    for ledger in ledgers:
        try:
            make(ledger)
        except BaseException as error:  # told by the main thread
            mistakes.append(error)
        finally:
            ledger.ended = time.monotonic()
            ledger.over = True


def _lives(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def settle() -> None:
    """End what may live on between calls by design, except the warm pool."""
    close_default_executors()
