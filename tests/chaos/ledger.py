"""The ledger of a call: every item ends exactly once, in the right result or in an error that fits.

``Injected`` says what was done to workers from outside: an error without a cause is a fault.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from concurrent.futures import BrokenExecutor, CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallax import ItemTimeoutError, SerializationError, WorkerDiedError, WorkerStartError

from .plan import ASYNC, Call
from .work import EXIT, Item, SourError, Tally, fits, work, work_and_draw

__all__ = ["BrokenInputError", "Injected", "Ledger"]

#: Workers that end before they begin an item until parallax may say that none can be had.
STILLBORN = 3

#: Seconds after which nothing begins any more of a coroutine's call that was cancelled.
SOON = 1.0


class BrokenInputError(Exception):
    """What an input raises that is to raise."""


@dataclass
class Injected:
    """What was done to workers from outside in this round, in whatever call."""

    killed: set[int] = field(default_factory=set)
    #: zygotes that were killed or stopped, and workers that were stopped.
    zygotes: int = 0
    #: workers whose zygote was killed, in this round or an earlier one: nobody knows how they end.
    orphans: set[int] = field(default_factory=set)
    stops: int = 0

    @property
    def violent(self) -> bool:
        return bool(self.killed or self.zygotes)

    @property
    def hopeless(self) -> bool:
        """Whether so many were killed that parallax may give up."""
        return len(self.killed) + 2 * self.zygotes >= STILLBORN


class Ledger:
    """What became of the items of one call. Thread-safe."""

    def __init__(self, call: Call, trail: str) -> None:
        self.call = call
        self.trail = trail if call.trailed else ""
        self._read = ""
        if self.trail:
            Path(self.trail).touch()
        self._lock = threading.Lock()
        self._values: Counter[int] = Counter()
        self._errors: dict[int, list[BaseException]] = {}
        self._cancelled: set[int] = set()
        #: values that are not what they should be, in words.
        self._wrong: list[str] = []
        draws = any(item.seed is not None for item in call.items)
        fn = work_and_draw if draws else work
        self.fn = Tally(fn) if call.stateful else fn
        #: what ended the call as a whole, and whether all its results were read.
        self.error: BaseException | None = None
        self.complete = False
        #: the call has ended, and when, on the clock that all processes share.
        self.over = False
        self.ended = 0.0

    def __str__(self) -> str:
        call = self.call
        return f"{call.face}.{call.api} {call.backend} {call.start_method} {call.options}"

    @property
    def moves(self) -> int:
        """Items that have ended."""
        return sum(list(self._values.values())) + len(self._errors)

    def value(self, index: int | None, value: Any) -> None:
        """An item came back; with ``on_error="return"`` perhaps as an error.

        Args:
            index: which it should be; None if that is not known.
            value: what came.
        """
        if isinstance(value, BaseException):
            self.failed(index, value)
            return
        if index is None:
            index = getattr(value, "index", -1)
        good = 0 <= index < len(self.call.items) and fits(self.call.items[index], value)
        with self._lock:
            self._values[index] += 1
            if not good:
                self._wrong.append(f"item {index} gave {repr(value)[:120]}")

    def failed(self, index: int | None, error: BaseException) -> None:
        """An item failed."""
        if index is None:
            index = getattr(error, "index", None)
        with self._lock:
            self._errors.setdefault(-1 if index is None else index, []).append(error)

    def cancelled(self, index: int) -> None:
        """An item was cancelled before it began, it is said."""
        with self._lock:
            self._cancelled.add(index)

    # -- judging -------------------------------------------------------------------------------

    def faults(self, injected: Injected) -> list[str]:
        """What is wrong with all that, in words that begin with "lost", "wrong" or "twice"."""
        found = [f"wrong: {words}" for words in self._wrong]
        for index, errors in self._errors.items():
            for error in errors:
                broken = isinstance(error, BrokenInputError) and self.call.source == "broken"
                if broken and index in {-1, len(self.call.items) // 2}:
                    continue
                if not 0 <= index < len(self.call.items):
                    found.append(f"wrong: an error that names no item: {error!r}")
                elif not self._fits(self.call.items[index], error, injected):
                    found.append(f"wrong: item {index} failed with {_words(error)}")
        if self.error is not None and not self._may_end(self.error, injected):
            found.append(f"wrong: the call raised {_words(self.error)}")
        for index in range(len(self.call.items)):
            ends = (
                self._values[index] + len(self._errors.get(index, ())) + (index in self._cancelled)
            )
            if ends > 1:
                found.append(f"twice: item {index} ended {ends} times")
            elif not ends and self.complete and index < self._promised():
                found.append(f"lost: item {index} ({self.call.items[index].action})")
        return found + self._effects() + self._runs(injected)

    def _effects(self) -> list[str]:
        """Compare what a callable with state has collected with what the loop would have."""
        whole = self.complete and self.error is None and "retries" not in self.call.options
        if not isinstance(self.fn, Tally) or not whole or "PARALLAX_RETRIES" in os.environ:
            return []
        ran = self.fn.ran
        if ran == list(range(self._promised())):
            return []
        return [f"wrong: the callable has collected {len(ran)} items: {str(ran)[:120]}"]

    def _promised(self) -> int:
        count = len(self.call.items)
        return count // 2 if self.call.source == "broken" else count

    def _runs(self, injected: Injected) -> list[str]:
        """Compare what ran with what ended."""
        path = Path(self.trail) if self.trail else None
        if path is None:
            return []
        self._read = path.read_text()
        runs = Counter(int(line.split()[0]) for line in self._read.splitlines())
        found = [f"wrong: item {n} returned and never ran" for n in self._values if not runs[n]]
        found += [f"wrong: item {n} was cancelled and ran" for n in self._cancelled if runs[n]]
        actions = {item.action for item in self.call.items}
        retries = "retries" in self.call.options or "PARALLAX_RETRIES" in os.environ
        repeats = retries or actions & {"exit", "kill", "hang", "unsendable"}
        if not (injected.violent or injected.stops or repeats):
            found += [f"twice: item {n} ran {k} times" for n, k in runs.items() if k > 1]
        return found

    def late(self) -> list[str]:
        """Items that a worker process has begun after the call had ended, in words."""
        if not self.trail:
            return []
        path = Path(self.trail)
        more = [line.split() for line in path.read_text()[len(self._read) :].splitlines()]
        path.unlink()
        if not self.call.processes:
            return []
        # An event loop does not wait until what was handed to a worker is back or has ended.
        limit = self.ended + (SOON if self.call.api in ASYNC else 0.0)
        return [f"late: item {n} [{self}]" for n, begun in more if float(begun) > limit]

    def _may_end(self, error: BaseException, injected: Injected) -> bool:
        call = self.call
        if isinstance(error, BrokenInputError):
            return call.source == "broken"
        if isinstance(error, TimeoutError) and not isinstance(error, ItemTimeoutError):
            return "timeout" in call.options
        if "on_error" in call.options:
            return isinstance(error, WorkerStartError) and injected.hopeless
        index = getattr(error, "index", None)
        items = call.items if index is None else call.items[index : index + 1]
        return any(self._fits(item, error, injected) for item in items)

    def _fits(self, item: Item, error: BaseException, injected: Injected) -> bool:
        """Whether an item may have failed with that."""
        call = self.call
        named = getattr(error, "index", None)
        if item.action == "nested" and isinstance(error, WorkerDiedError):
            return error.pid in injected.killed  # a worker of the call inside it
        if isinstance(error, WorkerStartError):
            return injected.hopeless
        in_executor = call.api not in {"map", "starmap", "imap", "imap_unordered"}
        if named != item.index and not (named is None and in_executor):
            return False
        if isinstance(error, SourError):
            return item.action == "raise"
        if isinstance(error, ItemTimeoutError):
            late = item.action == "hang" or bool(injected.stops)
            return late and "item_timeout" in call.options
        if isinstance(error, SerializationError):
            return item.action == "unsendable"
        if isinstance(error, WorkerDiedError):
            return self._died(item, error, injected)
        if isinstance(error, BrokenExecutor):
            return injected.hopeless
        if type(error) is RuntimeError:  # another thread has shut the executor down
            return call.leave is not None and call.callers > 1
        if isinstance(error, (CancelledError, asyncio.CancelledError)):
            return item.index in call.cancel or call.leave is not None
        return False

    def _died(self, item: Item, error: WorkerDiedError, injected: Injected) -> bool:
        statuses = {None} if injected.zygotes or error.pid in injected.orphans else set()
        if item.action == "exit" and error.exitcode in statuses | {EXIT}:
            return True
        if item.action == "kill" and error.exitcode in statuses | {-9}:
            return True
        if not self.call.processes and self.call.backend != "auto":
            return False
        return error.pid in injected.killed and error.exitcode in statuses | {-9}


def _words(error: BaseException) -> str:
    cause = f" from {error.__cause__!r}" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {str(error)[:300]}{cause[:200]}"
