"""Nested calls: the depth at which code runs, and the cores and threads that it may use.

A run with W workers on C cores gives each worker C // W cores. All nested calls of its workers
together get no more threads than one call that is not nested.

Guarantees: a place travels with the task, into threads, worker processes and executors; code
outside of workers has the whole machine.
"""

from __future__ import annotations

from collections.abc import Callable

from parallax._core.cores import usable_cores
from parallax._core.light_stdlib import local

#: Levels of workers within workers. Deeper levels add processes and no parallelism.
MAX_WORKER_LEVELS = 2

#: Depth of nested calls, loops included, from which a call is a plain loop without measuring: a
#: recursive function would otherwise measure at each of its levels.
MAX_CALL_DEPTH = 4


class Place:
    """One place, shared by all code that runs there. The enclosing run may change its values."""

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
        #: number of enclosing workers.
        self.level = level
        #: number of enclosing parallel calls, loops included.
        self.depth = depth
        #: cores that code here may keep busy; None for all cores.
        self.budget = budget
        #: workers that share the machine, this one included.
        self.crowd = crowd
        #: whether the enclosing run may move its items to other workers.
        self.movable = movable
        #: seconds after which the enclosing item is ended; None for no limit.
        self.limit = limit
        #: whether this is the place of a whole process.
        self.whole = False
        #: whether a call that was made here has workers of its own.
        self.spread = False

    @property
    def cores(self) -> int:
        """Cores that code here may keep busy, at least 1."""
        cores = usable_cores()
        return cores if self.budget is None else max(1, min(cores, self.budget))

    @property
    def innermost(self) -> bool:
        """Whether calls made here are to be loops."""
        return self.level >= MAX_WORKER_LEVELS or self.depth >= MAX_CALL_DEPTH

    def part(self, most: int) -> int:
        """The share of ``most`` that a call made here may use; at least 1."""
        return max(1, most // self.crowd)

    def worker(self, workers: int, limit: float | None = None) -> Place:
        """The place of each of the workers of a run that ends an item after ``limit`` seconds."""
        if self.limit is not None:
            limit = self.limit if limit is None else min(limit, self.limit)
        place = Place(depth=self.depth + 1, limit=limit)
        place.share(self, workers)
        return place

    def item(self, *, movable: bool) -> Place:
        """The place of the items that the calling thread runs for a run started here."""
        movable = movable or self.movable
        return Place(self.level, self.depth + 1, self.budget, self.crowd, movable, self.limit)

    def share(self, outer: Place, workers: int) -> None:
        """Become one of ``workers`` that share an outer place; 0 reverts that."""
        self.level = outer.level + (1 if workers else 0)
        self.budget = max(1, outer.cores // workers) if workers else outer.budget
        self.crowd = outer.crowd * max(1, workers)
        self.movable = self.movable or workers > 0

    def packed(self) -> tuple[int, int, int | None, int, bool, float | None]:
        """The constructor arguments of an equal place in another process."""
        return self.level, self.depth, self.budget, self.crowd, self.movable, self.limit


_whole = Place()
#: whether items of this worker run; None if this process is no worker.
_at_work: Callable[[], bool] | None = None
_local = local()


def here() -> Place:
    return entered() or _whole


def nesting_depth() -> int:
    """How many parallel calls enclose the running code; 0 in the program itself.

    An item of ``parallel_map`` and its relatives, and a call of an executor, are one deeper than
    the code that made the call or the executor, be it in a loop, a thread or a process.
    """
    return here().depth


def available_cores() -> int:
    """Number of cores that the running code may keep busy, at least 1.

    In the program itself, ``cpu_count()``. An item of a parallel call with W workers has its part,
    one in W, so that all of them together do not use more than there are.
    """
    return here().cores


def loading() -> bool:
    """Whether this worker, or process that makes workers, imports or unpickles: no item runs.

    A pool that a module makes while it is imported, and the workers of which import that module,
    would have pools of its kind without end.
    """
    return _at_work is not None and not _at_work()


def work_while(at_work: Callable[[], bool]) -> None:
    global _at_work  # noqa: PLW0603 - state of the process
    _at_work = at_work


def entered() -> Place | None:
    """The place of this thread; None if it shares the place of its process."""
    place: Place | None = getattr(_local, "place", None)
    return place


def enter(place: Place | None) -> Place | None:
    """Put this thread in a place; return the previous one, to be entered afterwards."""
    before = entered()
    _local.place = place
    return before


def settle(place: Place) -> None:
    """Put all threads of this process in a place, except those that entered another."""
    global _whole  # noqa: PLW0603 - state of the process
    place.whole = True
    _whole = place
