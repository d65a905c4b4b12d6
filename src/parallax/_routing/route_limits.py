"""Which routes are open to a callable: limited by side effects, by pickling, by nested calls.

Purpose: joins what the guard finds in the code and on the first items with what is found out later.
Guarantees: a callable is warned of once.
"""

from __future__ import annotations

import sys
import warnings

from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.effects import Observer, Verdict, except_shared, judge, scan

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallax._core import errors
else:
    errors = lazy_module("parallax._core.errors")

#: Items that are watched one by one while the guard is undecided. A cache that fills later than
#: this keeps its callable in the process; more items delay the plan.
MAX_OBSERVED_ITEMS = 12

NESTED_CALLS = "they make parallel calls themselves, which use the cores already"


class RouteLimits:
    """The routes that are open to one callable.

    ``history`` says for each item that was watched in earlier calls whether shared state changed.
    Without ``guard`` no route is closed for side effects.
    """

    def __init__(
        self, fn: Callable[..., Any], history: tuple[bool, ...], *, guard: bool = True
    ) -> None:
        self._fn = fn
        self._history = history
        self._guard = guard
        self._effects: Any = None
        self._observer: Observer | None = None
        self._verdict = Verdict("free", "", None, True)
        #: the module globals that the callable reads.
        self.reads: tuple[Any, ...] = ()
        #: whether items were seen to have workers of their own.
        self.nested = False
        #: why items cannot leave this process, found out after the start; "" if they can.
        self.stay_reason = ""

    def inspect(self, sample: tuple[Any, ...]) -> None:
        """Look at the callable's code before its first item, whose arguments are given."""
        if not self._guard:
            return
        effects = except_shared(scan(self._fn, sample), self._fn, sample)
        self.reads = effects.reads
        if effects.findings or effects.opaque:
            self._effects, self._observer = effects, Observer(self._fn, effects)
            self._verdict = judge(effects, self._history)

    def find_reads(self) -> None:
        """Find the module globals that the callable reads, where the guard did not look."""
        if not self.reads:
            self.reads = scan(self._fn).reads

    @property
    def watching(self) -> bool:
        """Whether items must be watched one by one now, to settle what is seen in the code."""
        observer = self._observer
        return (
            observer is not None
            and not self._verdict.settled
            and len(observer.history) < MAX_OBSERVED_ITEMS
        )

    def before_item(self, args: tuple[Any, ...]) -> None:
        """An item that is watched begins."""
        if self._observer is not None:
            self._observer.before(args)

    def after_item(self) -> None:
        """An item that was watched has ended."""
        if self._observer is not None:
            self._observer.after()
            self._verdict = judge(self._effects, (*self._history, *self._observer.history))

    @property
    def verdict(self) -> Verdict:
        """The routes that are open, and why no others."""
        if self.nested and self._verdict.limit != "loop":
            return Verdict("loop", NESTED_CALLS, None, True)
        if self.stay_reason and self._verdict.limit == "free":
            return Verdict("process", self.stay_reason, None, True)
        return self._verdict

    def warn(self) -> None:
        """Warn once per callable that its shared state kept it from running in parallel."""
        finding = self._verdict.finding
        if finding is None or self._verdict.limit != "loop":
            return
        key = (finding.filename, finding.line, finding.target)
        if key not in _warned:
            _warned.add(key)
            warnings.warn(errors.SharedStateWarning(self._verdict.reason), stacklevel=_user_level())

    @property
    def history(self) -> tuple[bool, ...]:
        """Whether shared state changed, item by item, in earlier calls and in this one."""
        past = self._history
        if self._observer is None:
            return ()
        history = (*past, *self._observer.history)[-MAX_OBSERVED_ITEMS:]
        # The first item ever tells a cache that fills from one that was full before.
        return (True, *history[1:]) if past and past[0] else history


_warned: set[tuple[str, int, str]] = set()


def _user_level() -> int:
    """The stack level of the caller's own code, for ``warnings.warn`` in our caller."""
    level = 2
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("parallax."):
        frame = frame.f_back
        level += 1
    return level
