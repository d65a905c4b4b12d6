"""Whom to ask for items back: a pure rule.

While others have nothing to do, worth asking is a worker that holds items which it cannot have
begun, by the mean item time, for longer than giving them to somebody else takes. One that is late
is asked as well: an item of its chunk takes longer than most, and what waits behind it is not known
to be little. One that is long overdue is asked even if the others are busy: nothing should wait
behind an item that may take as long as all the rest together. A question may get lost, so one that
was not answered is asked again, ever more rarely.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from parallax._scheduling.chunk_size import COST
from parallax._scheduling.worker_table import WorkerEntry

__all__ = ["ask_again", "pause", "victims"]

#: Seconds of work that must be there to be taken. Less is not worth the signal, the answer and the
#: new chunks; more leaves a longer end.
WORTH = 0.001

#: Seconds that a chunk may be late, besides half of its expected time, before its worker is asked.
#: Smaller interrupts workers whose items merely vary, larger lets others idle.
LATE = 0.002

#: Seconds that a chunk may be late, besides its expected time once more, before what waits behind
#: is taken to workers that are busy. Smaller moves items without need, larger starts them late.
STUCK = 0.02

#: Seconds after which a worker that was asked is no longer waited for: what it runs may not be
#: interruptible, and another one may have something to give.
ANSWER = 0.005

#: Seconds after which a worker that was asked in vain is asked again, at first: one that is coming
#: up, or is between two items, does not answer.
AGAIN = 0.1


def pause(crew: int) -> float:
    """Seconds from one look at all workers to the next: looking must not become the work."""
    return COST * crew / 4


def ask_again(since: float, asked: float) -> float:
    """When a worker is asked again that does not answer; each time it takes twice as long.

    Args:
        since: when its chunk can have begun.
        asked: when it was asked.
    """
    return asked + max(AGAIN, asked - since)


def victims(
    workers: Mapping[int, WorkerEntry], idle: int, mean: float, now: float
) -> tuple[list[int], float | None]:
    """Which workers to ask now, and when to look again at the latest.

    Args:
        workers: all that take chunks.
        idle: how many of them have nothing to do, and would have if they were given it.
        mean: recent seconds per item, 0 if not known.
        now: the time.
    """
    stuck: list[int] = []
    found: list[tuple[float, int]] = []
    later: float | None = None
    for name, worker in workers.items():
        if not worker.recall or not worker.flight:
            continue
        due: float | None = None
        if worker.asked is not None:
            if worker.answered or worker.held < 2:
                continue
            again = ask_again(worker.since, worker.asked)
            if now >= again:
                stuck.append(name)
            elif idle and now < worker.asked + ANSWER:
                idle -= 1
                due = worker.asked + ANSWER
            else:
                due = again
        elif (held := worker.held) > 1:
            first = worker.flight[0].size
            due = worker.since + 2 * first * mean + STUCK
            # What was sent just now is on its way: asked for at once it would only go in circles.
            begun = worker.since + WORTH
            late = worker.since + 1.5 * held * mean + LATE
            rest = max(0.0, worker.since + first * mean - now) + (held - first) * mean
            if now >= due:
                stuck.append(name)
                due = None
            elif idle and (now >= begun if rest > mean + WORTH else now >= late):
                found.append((rest, name))
            elif idle:
                due = min(due, begun if rest > mean + WORTH else late)
        if due is not None and (later is None or due < later):
            later = due
    most = max(0, idle - len(stuck))
    return stuck + [name for _, name in heapq.nlargest(most, found)], later
