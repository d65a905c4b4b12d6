"""What is made of the changes that the net has seen, of one callable.

In the caller's thread the first items are looked at one by one. What changes at first and then not
any more is a cache that fills; what goes on changing keeps the callable at home. What a worker says
is confirmed at home: the items of its chunk run again there and are looked at, so a cache that only
the worker had to fill is told from a change.

Guarantees: pure decisions over what ``Net`` says; nothing is looked at unless there is work enough.
"""

from __future__ import annotations

import time

from parallax._core.callables import unwrap_partial
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.effects import DRAWS, Finding
from parallax._guard.net import Change, Mesh, Net
from parallax._guard.process_state import PROCESS_TITLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final, Literal

    from parallax._guard.fingerprint import Path

#: Items that are looked at in any case, and at most while something changes. Fewer: what follows
#: the first item is left to workers; more: the net costs more.
LOOKS: Final = 2
MAX_LOOKS: Final = 8

#: Changes of a place that keep a callable at home.
CHANGES: Final = 3

#: Share of the time that looking at an input may take.
INPUT_LOOK_SHARE: Final = 0.02

#: Seconds of an item, and of all that are left, from which on the net is worth its cost.
MIN_ITEM_S: Final = 0.0002
MIN_WORK_S: Final = 0.015

#: Items of an input whose length is not known.
UNKNOWN_LENGTH: Final = 50

#: Share of the expected work that a look may cost.
LOOK_SHARE: Final = 0.002

#: Steps of a look, at least and at most; see ``digest``.
LEAST_STEPS: Final = 200
MOST_STEPS: Final = 20_000


class Watch:
    """The net over the items of one callable, and what it has caught."""

    def __init__(self, fn: Callable[..., Any], name: str, kept: Finding | None) -> None:
        """Prepare; nothing is looked at.

        Args:
            fn: the callable.
            name: its name, for people.
            kept: what kept it at home in an earlier call.
        """
        self._fn = fn
        self._name = name
        code = getattr(unwrap_partial(fn), "__code__", None)
        self._place = "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
        self._net: Net | None = None
        #: what keeps the callable at home.
        self.finding = kept
        #: more items may lift that.
        self.open = kept is not None
        #: the input changes what items read: each is taken when the one before has ended.
        self.interleaved = False
        self._look_at = 0.0  # when the next item of the input is looked at
        #: the latest item was looked at, so that what taking the next one changes will show.
        self.fresh = False
        #: places that were seen to change without consequence.
        self.harmless: set[str] = set()
        #: what other threads may change: workers, which have none, tell about generators from which
        #: others draw, and ``ProcessWatch`` about the state of the process.
        self._noisy = {*PROCESS_TITLES}
        self._began = 0.0  # when the item began
        #: items that a worker has run, to be run again at home and looked at.
        self.suspected: set[int] = set()
        self._names: list[str] = []  # of suspected places
        self._looks = self._changes = self._unchanged = 0
        self._enough = MAX_LOOKS if kept is not None else LOOKS

    @property
    def spent(self) -> float:
        """Seconds that looking took here."""
        return self._net.spent if self._net is not None else 0.0

    @property
    def looking(self) -> bool:
        """Whether the next item is to be looked at."""
        undecided = self.finding is None or self.open
        return self._net is not None and undecided and self._looks < self._enough

    def cast(self, caches: Iterable[Path], *, inputs_run: bool = False) -> None:
        """Items are looked at from now on; ``caches`` are paths to what only caches.

        If ``inputs_run`` taking an item runs code, which may change the item before it.
        """
        self._net = Net(self._fn, Mesh(LEAST_STEPS, tuple(caches)), keep=inputs_run)

    def weigh(self, wall: float, left: int | None) -> None:
        """Look no more if there is little work left, and closer if there is much.

        Args:
            wall: seconds of an item.
            left: items that are left, None if that is not known.
        """
        if not self.looking or self._net is None:
            return
        work = wall * (UNKNOWN_LENGTH if left is None else left)
        if work < MIN_WORK_S or wall < MIN_ITEM_S:
            self._looks = self._enough
        else:
            self._net.refine(steps_for(LOOK_SHARE * work))

    def before(self, args: tuple[Any, ...]) -> None:
        """An item begins."""
        if self._net is not None:
            self._net.before(args)
            self._began = time.perf_counter()

    def after(self, index: int) -> None:
        """An item has ended."""
        if self._net is None:
            return
        self._looks += 1
        self.fresh = True
        took = time.perf_counter() - self._began
        change = self._first(each for each in self._net.after() if each.name not in self._noisy)
        if change is not None and self._net.drawn_elsewhere(change.name, took):
            self._noisy.add(change.name)
            self._look_again(change.name)
            return
        if change is None:
            self._unchanged += 1
            # What the workers of an earlier call found may come late.
            enough = LOOKS if self._changes else MAX_LOOKS
            if self.open and self.finding is not None and self._unchanged >= enough:
                if self._changes:
                    self.harmless.add(self.finding.target)
                self.finding, self.open = None, False
            return
        self._unchanged, self._enough = 0, MAX_LOOKS
        self._changes += 1
        self._keep(change, index, open_=self._changes < CHANGES and self._looks < MAX_LOOKS)

    def took(self, index: int, *, late: bool = False) -> bool:
        """An item was taken from an input that runs code of the program: whether that changed it.

        Args:
            index: of the item.
            late: items may have run since the net has looked.
        """
        due = self.fresh or (late and time.perf_counter() > self._look_at)
        if self._net is None or self.interleaved or not due:
            return False
        before = self.spent
        change = self._first(each for each in self._net.between() if each.name not in self._noisy)
        if change is not None and self._net.drawn_elsewhere(change.name, 0.0):
            self._noisy.add(change.name)
            change = None
        self.fresh = False
        self._look_at = time.perf_counter() + (self.spent - before) / INPUT_LOOK_SHARE
        if change is not None:
            self._name = ""
            self._keep(change, index, open_=False)
            self.interleaved = True
        return change is not None

    def suspect(self, names: Iterable[str], caches: Iterable[Path], ran: range) -> bool:
        """A worker's copies of some places have changed: whether its results count all the same.

        Args:
            names: the places.
            caches: as for ``cast``.
            ran: the items that have changed them, or ran after those.
        """
        found = [name for name in names if name not in self.harmless]
        if not found:
            return True
        if self.finding is None:
            mesh = Mesh(LEAST_STEPS, tuple(caches))
            self._net = self._net or Net(self._fn, mesh)
            self._net.forget()
            self._names = found
            self._keep(Change(found[0]), -1, open_=True)
            self._looks = self._enough  # no others than the items of that worker
        if self.open:
            self.suspected.update(ran)
        return False

    def confirm(self, index: int) -> None:
        """A suspected item has run again at home, where the last one lifts the suspicion."""
        self.suspected.discard(index)
        change = self._first(self._net.after()) if self._net is not None else None
        if change is not None:
            self.suspected.clear()
            self._keep(change, index, open_=False)
        elif not self.suspected:
            self.harmless.update(self._names)
            self.finding, self.open = None, False

    def _look_again(self, name: str) -> None:
        """What was seen of a place does not count, nor what it was held against."""
        if self.finding is not None and self.finding.target == name:
            self.finding, self.open = None, False
        self._looks = self._changes = self._unchanged = 0
        if self._net is not None:
            self._net.forget()

    def _first(self, changes: Iterable[Change]) -> Change | None:
        return next((each for each in changes if each.name not in self.harmless), None)

    def _keep(self, change: Change, index: int, *, open_: bool) -> None:
        kind: Literal["grow", "update"] = "grow" if change.foreign else "update"
        self.open = open_
        draws = self._net is not None and self._net.draws(change.name)
        how = DRAWS if draws else "changes"
        if self.finding is None or self.finding.item < 0:
            self.finding = Finding(kind, change.name, self._name, self._place, 0, how, item=index)


def steps_for(seconds: float) -> float:
    """Steps of a look that may take so long."""
    return max(LEAST_STEPS, min(MOST_STEPS, seconds * 1e6))
