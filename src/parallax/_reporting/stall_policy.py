"""When silence is to be told of, and in which words. Pure: the time is a parameter.

A stall is a time in which something is in flight and nothing ends. Each is told once: the next one
begins when something has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Activity", "InFlight", "StallDetector", "WorkerSnapshot", "describe"]

#: Workers of which is told where they are. More fill the log, and nobody reads them.
TOLD = 8

#: How often it is looked, in parts of the limit, while nothing is known to be due. More often costs
#: wake-ups, less often tells later.
PARTS = 4


class WorkerSnapshot(NamedTuple):
    """A worker, and what it is at."""

    #: "worker process 123".
    who: str
    #: where its threads are, as text; "" if nobody knows.
    stack: str = ""
    #: how many items of its chunk have ended; None if nobody knows.
    done: int | None = None


class InFlight(NamedTuple):
    """Something that has begun and has not ended."""

    #: what it is, and who has it: "item 3", "worker process 123".
    what: str
    who: str
    #: seconds that it has run.
    age: float
    #: where it is, as text; "" if nobody knows.
    stack: str = ""


class Activity(NamedTuple):
    """What can be seen of a run, or of an executor, at one moment."""

    #: since when nothing has ended although something was in flight.
    since: float
    #: how many are in flight.
    busy: int


class StallDetector:
    """Decides when one stall is told.

    Args:
        limit: seconds of silence from which it is; above 0.
        now: the time.
    """

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit
        self._since: float | None = None
        self._told = False
        self._look = now + limit

    @property
    def due(self) -> float:
        """When to look next."""
        return self._look

    def is_stalled(self, activity: Activity | None, now: float) -> bool:
        """Whether a stall is to be told now.

        Args:
            activity: what is seen; None if nothing is in flight.
            now: the time.
        """
        self._look = now + self._limit / PARTS
        if activity is None or not activity.busy:
            self._since, self._told = None, False
            return False
        if self._told and self._since is not None and activity.since < self._since + self._limit:
            return False  # what had ended since would have done so after the stall was told
        self._since, self._told = activity.since, False
        due = activity.since + self._limit
        if now < due:
            self._look = due
            return False
        self._told = True
        return True


def describe(name: str, silent: float, flights: Sequence[InFlight], waiting: int | None) -> str:
    """One message for a stall.

    Args:
        name: of what nothing has ended: "item of `work`".
        silent: seconds since something ended.
        flights: what is in flight.
        waiting: what waits besides; None if nobody knows how much.
    """
    lines = [f"no {name} has finished for {_seconds(silent)}; still running:"]
    for each in sorted(flights, key=lambda each: -each.age)[:TOLD]:
        lines.append(f"  {each.what} in {each.who}, for {_seconds(each.age)}")
        lines += [f"    {line}" for line in each.stack.splitlines()]
    if len(flights) > TOLD:
        lines.append(f"  and {len(flights) - TOLD} more")
    if waiting:
        lines.append(f"  {waiting} more {'is' if waiting == 1 else 'are'} waiting to start")
    lines.append("  (stall_warn sets the seconds until this warning; stall_warn=0 turns it off)")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
