"""How a run of CPython's tests went; no test of them may hang, or leave something to the next."""

from __future__ import annotations

import faulthandler
import gc
import signal
import threading
import time
import traceback
import unittest
from collections import Counter
from typing import Any

from test import support

__all__ = ["Outcome", "expect_failure"]

#: Seconds that a test may take, and one of which is known that it fails.
LIMIT, BRIEF = 180, 20

#: Seconds until one that was interrupted is interrupted again: its end may hang as well.
AGAIN = 20

#: Seconds that a thread may take to end after its test.
PATIENCE = 2


class Outcome(unittest.TextTestResult):
    """Counts by the kind of executor, and interrupts tests that hang."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: (kind of executor, what became of the test) -> tests.
        self.counts: Counter[tuple[str, str]] = Counter()
        #: tests that left threads behind which run.
        self.littered: list[str] = []
        self._threads: set[threading.Thread] = set()

    @property
    def stale(self) -> list[str]:
        """Tests that pass although they are said to fail."""
        return [test.id() for test in self.unexpectedSuccesses]

    def wasSuccessful(self) -> bool:
        """Nothing failed, nothing passed that should not, nothing was left behind."""
        return super().wasSuccessful() and not self.littered

    def startTest(self, test: unittest.TestCase) -> None:
        support.environment_altered = False
        self._threads = set(threading.enumerate())
        _interrupt_after(LIMIT)
        super().startTest(test)
        self.counts[_kind(test), "run"] += 1

    def stopTest(self, test: unittest.TestCase) -> None:
        _interrupt_after(0)
        super().stopTest(test)
        # CPython's tests mind ended threads too that something still refers to, and look once.
        if support.environment_altered and not self._ended():
            self.littered.append(test.id())

    def _ended(self) -> bool:
        until = time.monotonic() + PATIENCE
        while set(threading.enumerate()) - self._threads:
            if time.monotonic() > until:
                return False
            gc.collect()
            time.sleep(0.05)
        return True

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self.counts[_kind(test), "failed"] += 1

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.counts[_kind(test), "failed"] += 1

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.counts[_kind(test), "skipped by CPython"] += 1

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.counts[_kind(test), "known to differ"] += 1

    def table(self) -> str:
        """The counts, a line for each kind of executor."""
        lines = [f"left threads behind: {name}" for name in self.littered]
        for kind in sorted({kind for kind, _ in self.counts}):
            parts = [
                f"{self.counts[kind, what]:4} {what}"
                for what in ("run", "failed", "known to differ", "skipped by CPython")
            ]
            lines.append(f"  {kind:32} {', '.join(parts)}")
        return "\n".join(lines)


def expect_failure(test: unittest.TestCase) -> None:
    """Have a test run that is known to fail; if it passes, that is an unexpected success."""
    name = test.id().rpartition(".")[2]
    genuine = getattr(test, name)

    @unittest.expectedFailure
    def run() -> None:
        _interrupt_after(BRIEF)
        reason = None
        try:
            genuine()
        except unittest.SkipTest:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            traceback.clear_frames(error.__traceback__)
        if reason is None:
            return
        # Its calls may wait for what will not come any more.
        end = getattr(getattr(test, "executor", None), "kill_workers", None)
        if end is not None:
            end()
        # Executors that it made end with what refers to them.
        gc.collect()
        raise AssertionError(reason)

    setattr(test, name, run)


def _kind(test: unittest.TestCase) -> str:
    kind = getattr(test, "executor_type", None)
    if kind is None:
        return "neither"
    context = getattr(test, "ctx", None)
    return f"{kind.__name__}{f', {context}' if context else ''}"


def _interrupt_after(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, _interrupt)
        signal.alarm(seconds)


def _interrupt(*_: Any) -> None:
    _interrupt_after(AGAIN)
    faulthandler.dump_traceback()
    raise AssertionError("the test hangs")
