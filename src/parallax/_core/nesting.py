"""Where code runs: how many parallel calls it is inside of, and what it may still use.

Purpose: depth and budget of nested calls. A run that lends W workers on C cores gives each of
them C // W cores, and the nested calls of all of them together no more threads than one call has
that is not nested.
Guarantees: a place travels with the task: into threads, worker processes and the slots of an
executor; code that is in no worker has the whole machine.
"""

from __future__ import annotations

from parallax._core.cores import usable_cores
from parallax._core.light_stdlib import local

__all__ = ["DEEPEST", "WORKER_LEVELS", "Place", "enter", "entered", "here", "settle"]

#: Workers within workers. Work that is divided twice has been divided enough.
WORKER_LEVELS = 2

#: Calls within calls, loops included, from which on a call is a loop without further thought:
#: a recursion that calls itself would measure at each of its levels.
DEEPEST = 4


class Place:
    """One place, shared by all code that runs there. The run around it may change its figures."""

    __slots__ = ("budget", "crowd", "depth", "level", "limit", "movable", "spread", "whole")

    def __init__(
        self,
        level: int = 0,
        depth: int = 0,
        budget: int | None = None,
        crowd: int = 1,
        movable: bool = False,
        limit: float | None = None,
    ) -> None:
        """Describe a place.

        Args:
            level: workers that this code is inside of.
            depth: parallel calls that it is inside of, loops included.
            budget: cores that it may keep busy, None for all that there are.
            crowd: workers that share the machine with it, itself included.
            movable: the run around it may take its items to other workers.
            limit: seconds after which the item that this code is part of is ended.
        """
        self.level = level
        self.depth = depth
        self.budget = budget
        self.crowd = crowd
        self.movable = movable
        self.limit = limit
        #: it is that of a whole process.
        self.whole = False
        #: a call that was made here has workers of its own at work.
        self.spread = False

    @property
    def cores(self) -> int:
        """Cores that code here may keep busy, at least 1."""
        cores = usable_cores()
        return cores if self.budget is None else max(1, min(cores, self.budget))

    @property
    def innermost(self) -> bool:
        """Whether calls made here are to be loops."""
        return self.level >= WORKER_LEVELS or self.depth >= DEEPEST

    def part(self, most: int) -> int:
        """This place's part of a number that one call may have; at least 1."""
        return max(1, most // self.crowd)

    def worker(self, workers: int, limit: float | None = None) -> Place:
        """The place of each of so many workers of a run that was started here.

        Args:
            workers: how many.
            limit: seconds after which the run ends an item.
        """
        if self.limit is not None:
            limit = self.limit if limit is None else min(limit, self.limit)
        place = Place(depth=self.depth + 1, limit=limit)
        place.share(self, workers)
        return place

    def item(self, *, movable: bool) -> Place:
        """The place of the items of such a run that this very thread runs.

        Args:
            movable: the run may take items to workers.
        """
        movable = movable or self.movable
        return Place(self.level, self.depth + 1, self.budget, self.crowd, movable, self.limit)

    def share(self, outer: Place, workers: int) -> None:
        """Become one of ``workers`` that share an outer place; 0 takes that back."""
        self.level = outer.level + (1 if workers else 0)
        self.budget = max(1, outer.cores // workers) if workers else outer.budget
        self.crowd = outer.crowd * max(1, workers)
        self.movable = self.movable or workers > 0

    def packed(self) -> tuple[int, int, int | None, int, bool, float | None]:
        """The arguments that make the same place in another process."""
        return self.level, self.depth, self.budget, self.crowd, self.movable, self.limit


_whole = Place()
_local = local()


def here() -> Place:
    """The place of the running code."""
    place = entered()
    return _whole if place is None else place


def entered() -> Place | None:
    """What this thread was put in, None if it shares the place of its process."""
    place: Place | None = getattr(_local, "place", None)
    return place


def enter(place: Place | None) -> Place | None:
    """Put this thread in a place; returns what to enter afterwards to put it back."""
    before = entered()
    _local.place = place
    return before


def settle(place: Place) -> None:
    """Declare all threads of this process to be in a place, unless they entered another."""
    global _whole  # noqa: PLW0603 - a fact about the process
    place.whole = True
    _whole = place
