"""Which routes are open to a callable: limited by side effects, by pickling, by nested calls.

Purpose: joins what the guard finds in the code and on the first items with what is found out later.
Guarantees: a callable is warned of once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from parallax._core.callables import name_of
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import Any, local
from parallax._guard.common_objects import except_own
from parallax._guard.effects import (
    OPEN,
    SEED_ADVICE,
    Finding,
    Observer,
    Verdict,
    except_shared,
    follow,
    judge,
    restrict,
    scan,
    seen,
    with_finding,
)
from parallax._guard.fingerprint import Path
from parallax._guard.generators import shared_generators
from parallax._guard.lookup import called_method, is_a, is_seeded
from parallax._guard.net import Mesh, Net
from parallax._guard.process_state import ProcessWatch, one_thread_object
from parallax._guard.watch import LEAST_STEPS, Watch

#: Items that are watched one by one while the guard is undecided. A cache that fills later than
#: this keeps its callable in the process; more items delay the plan.
MAX_OBSERVED_ITEMS = 12

#: Blocks of items in the caller's thread after each of which generators are looked at. Fewer miss
#: draws that come late; each look takes 20 us.
MAX_SEEN_BLOCKS = 32

#: Blocks of items for whose sake threads wait for a first look at an item that runs. The thread
#: that looks is late on a loaded machine; it may not come at all where no more can be started.
MAX_BLIND_BLOCKS = 8

NESTED_CALLS = "they make parallel calls themselves, which use the cores already"


class RouteLimits:
    """The routes that are open to one callable.

    ``history`` says for each item that was watched in earlier calls whether shared state changed.
    ``kept`` is the change by which the callable was kept at home in an earlier call. Without
    ``guard`` no route is closed for side effects.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        history: tuple[bool, ...],
        kept: Finding | None = None,
        *,
        guard: bool = True,
    ) -> None:
        self._fn: Any = fn
        #: what items were seen to draw from, change, or use that other threads have, too.
        self.shared: Finding | None = None
        self._process: ProcessWatch | None = None
        self._blocks, self._glanced = 0, False
        self._glimpsed = ""  # what another thread saw to be swapped while an item ran
        self._history = history
        self._guard = guard
        self._effects: Any = None
        self._observer: Observer | None = None
        self._observed = False  # the item that runs
        self._verdict = Verdict("free", "", None, True)
        #: what is seen by what happens; not of a route that was asked for.
        self.watch: Watch | None = None
        if guard:
            self.watch = Watch(fn, name_of(fn).rpartition("<locals>.")[2], kept)
        #: the module globals that the callable reads.
        self.reads: tuple[Any, ...] = ()
        #: whether items were seen to have workers of their own.
        self.nested = False
        #: why items cannot leave this process, found out after the start; "" if they can.
        self.stay_reason = ""

    def inspect(self, sample: tuple[Any, ...], calls: Callable[[], Sequence[Any]] = tuple) -> None:
        """Look at the callable's code before its first item; ``calls`` gives arguments of more."""
        if not self._guard:
            return
        if sample:
            self._fn = called_method(self._fn, sample[0])
        effects = except_shared(scan(self._fn, sample), self._fn, sample)
        effects = except_own(effects, self._fn, calls)
        self.reads = effects.reads
        if effects.findings or effects.opaque:
            self._effects, self._observer = effects, Observer(self._fn, effects)
            self._verdict = judge(effects, self._history)

    def find_reads(self) -> None:
        """Find the module globals that the callable reads, where the guard did not look.

        Warns of generators of random numbers that each process would have a copy of.
        """
        if self.reads or self._guard:
            return
        effects = scan(self._fn)
        self.reads = effects.reads
        shared = [generator for _, generator in shared_generators()]
        for each in effects.findings:
            target = follow(each.root, self._fn, ()) if each.draws and each.root else None
            if each.kind != "apart" and target and all(target is not one for one in shared):
                copies = f"{each}, and all workers draw the same numbers from their copies of it"
                self._warn_once(each, f"{copies}; {SEED_ADVICE}")
                return

    @property
    def watching(self) -> bool:
        """Whether items must be watched one by one now, to settle what was seen."""
        return self._observing or (
            self.watch is not None and self.watch.open and self._verdict.limit in OPEN
        )

    @property
    def _observing(self) -> bool:
        observer = self._observer
        return (
            observer is not None
            and not self._verdict.settled
            and len(observer.history) < MAX_OBSERVED_ITEMS
        )

    @property
    def looking(self) -> bool:
        """Whether the next item runs alone, to see what it changes."""
        return self._observing or (
            self.watch is not None and self.watch.looking and self._verdict.limit in OPEN
        )

    def before_item(self, args: tuple[Any, ...]) -> None:
        """An item that is watched begins."""
        self._observed = self._observing
        if self._observed and self._observer is not None:
            self._observer.before(args)
        elif self.watch is not None:
            self.watch.before(args)

    def after_item(self, index: int = 0) -> None:
        """An item that was watched has ended."""
        if self._observed and self._observer is not None:
            self._observer.after()
            self._verdict = judge(self._effects, (*self._history, *self._observer.history))
        elif self.watch is not None:
            self.watch.after(index)

    def cast_net(self, *, inputs_run: bool = False) -> None:
        """From now on see what items change, and code that the input runs if ``inputs_run``."""
        if self.watch is not None and self._verdict.limit in OPEN:
            self.watch.cast(self.caches, inputs_run=inputs_run)

    @property
    def caches(self) -> list[Path]:
        """Where the callable keeps what only caches."""
        findings = self._effects.findings if self._effects is not None else ()
        roots = [each.root for each in findings if each.guarded and each.root]
        # Other steps do not travel to workers.
        return [r for r in roots if all(type(key) in (str, int, type(None)) for _, key in r)]

    def writes(self) -> tuple[str, ...]:
        """What items change outside of their calls, as far as that was looked for."""
        findings = self._effects.findings if self._effects is not None else ()
        seen = *findings, self.shared, self.kept
        return tuple(dict.fromkeys(str(each) for each in seen if each is not None))

    @property
    def kept(self) -> Finding | None:
        """The change, seen by what happened, that keeps the callable at home."""
        return self.watch.finding if self.watch is not None else None

    def begun(self, process: ProcessWatch | None) -> None:
        """Items have run that were not watched; a cache may have been filled by them.

        ``process`` has seen the state of the process before.
        """
        self._process, self._history = process, self._history or (True,)

    def find_one_thread(self) -> bool:
        """Find what one thread alone may use; whether there is what only that thread can tell."""
        net = Net(self._fn, Mesh(LEAST_STEPS))
        reached = [*net.reached()]
        if name := one_thread_object(reached, net.stored):
            self.shared = seen(self._fn, "uses what one thread alone may use:", name, "apart")
        return any(is_a(obj, local) for _, obj in reached)

    def before_block(self) -> None:
        """Items begin in the caller's thread, watched or not."""
        if not self._blocks and self._guard:
            self._process = ProcessWatch()
            self.find_one_thread()
        self._blocks += 1
        if self._process is not None:
            self._process.before()

    def after_block(self) -> None:
        """Items have ended."""
        glimpsed, self._glimpsed = self._glimpsed, ""
        if self._process is not None and glimpsed and self._process.changed_elsewhere(glimpsed):
            self.shared = None
        if self._process is not None and (target := self._process.changed()):
            self.shared = seen(self._fn, "changes", target, "update")
        if self._blocks >= MAX_SEEN_BLOCKS or (self.shared and self.shared.kind == "update"):
            self._process = None

    def glance(self) -> None:
        """Look, from another thread, at what the caller's items swap for a moment."""
        process = self._process
        if process is None or self.shared is not None or (target := process.swapped()) is None:
            return
        self._glanced = True
        if target:
            self.shared, self._glimpsed = seen(self._fn, "swaps", target, "apart"), target

    @property
    def blind(self) -> bool:
        """Whether it is still to be seen what items swap for a moment: threads must wait for it."""
        return self._process is not None and not self._glanced and self._blocks < MAX_BLIND_BLOCKS

    @property
    def verdict(self) -> Verdict:
        """The routes that are open, and why no others."""
        found = self._verdict
        if self.shared is not None and found.limit != "loop":
            found = with_finding(found, self.shared)
        if self.nested and found.limit != "loop":
            return Verdict("loop", NESTED_CALLS, None, True)
        if found.limit in OPEN and self.watch is not None and self.watch.finding:
            kept = restrict(self.watch.finding, settled=not self.watch.open)
            return kept if found.limit == "free" else kept._replace(limit="loop")
        if is_seeded(self._fn) and self._fn.drew and found.limit == "free":
            found = found._replace(limit="apart", reason="it draws from generators of all threads")
        if self.stay_reason and found.limit in OPEN:
            alone = found.limit == "apart"
            return Verdict("loop" if alone else "process", self.stay_reason, None, True)
        return found

    def warn(self) -> None:
        """Warn once per callable that its shared state kept it from running in parallel."""
        verdict = self.verdict
        open_ = self.watch is not None and self.watch.open
        finding = verdict.finding
        if finding is not None and finding.kind == "update" and not open_:
            self._warn_once(finding, verdict.reason)

    @staticmethod
    def _warn_once(finding: Finding, text: str) -> None:
        key = (finding.filename, finding.line, finding.target)
        if key not in _warned:
            _warned.add(key)
            warnings.warn(errors.SharedStateWarning(text), stacklevel=_user_level())

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
