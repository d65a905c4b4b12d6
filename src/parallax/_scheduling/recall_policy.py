"""Which workers are asked to give items back, and when: pure rules over measured times.

While others have nothing to do, a worker is asked if it holds items that it cannot have begun, by
the mean item time, for longer than moving them takes. A late worker is asked as well: an item of
its chunk takes longer than most, and what waits behind it is not known to be little. A worker that
is long overdue is asked even if the others are busy: nothing should wait behind an item that may
take as long as all the rest together. A request may get lost, so an unanswered one is repeated,
ever more rarely.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

from parallax._scheduling.chunk_size import DISPATCH_COST_S
from parallax._scheduling.worker_table import WorkerEntry

#: Seconds of unbegun work that are worth a recall. Less does not pay for the signal, the answer
#: and the new chunks; more leaves a longer end.
MIN_RECALLED_WORK_S = 0.001

#: Seconds that a chunk may be late, besides half of its expected time, before its worker is asked.
#: Smaller interrupts workers whose items merely vary, larger lets others idle.
LATE_MARGIN_S = 0.002

#: Seconds that a chunk may be late, besides its expected time once more, before what waits behind
#: is taken to workers that are busy. Smaller moves items without need, larger starts them late.
OVERDUE_MARGIN_S = 0.02

#: Seconds after which an asked worker is no longer waited for: its item may not be interruptible,
#: and another worker may have something to give.
RECALL_ANSWER_S = 0.005

#: Seconds after which an unanswered request is first repeated: a worker that is starting, or is
#: between two items, does not answer.
CHUNK_RECALL_RETRY_S = 0.1


class RecallPolicy:
    """When the workers of one run are looked at, and which of them are asked then."""

    def __init__(self) -> None:
        #: when the workers must be looked at next; None if nothing is expected.
        self.due: float | None = None
        self._looked = -math.inf
        #: when to look while no worker idles.
        self._overdue_at: float | None = None

    def sent(self, worker: WorkerEntry, now: float) -> None:
        if self._overdue_at is None and worker.held > 1:
            self._overdue_at = now + OVERDUE_MARGIN_S

    def choose(
        self,
        workers: Mapping[int, WorkerEntry],
        idle: int,
        mean: float,
        now: float,
        *,
        ticked: bool,
    ) -> list[int]:
        """The workers to ask now, of all that take chunks.

        ``idle`` of them have nothing to do and could be given something. ``mean``: recent seconds
        per item, 0 if not known. ``ticked``: every result that has come is known. Unless a worker
        idles this is required: a worker whose results have not been read yet is not overdue.
        """
        # One look costs time for each worker, and looking must not become the work.
        pause = DISPATCH_COST_S * len(workers) / 4
        self.due = self._looked + pause if idle else self._overdue_at
        if self.due is None or now < self.due or not (idle or ticked):
            return []
        self._looked = now
        names, self._overdue_at = _victims(workers, idle, mean, now)
        for name in names:
            again = _retry_at(workers[name].since, now)
            self._overdue_at = again if self._overdue_at is None else min(self._overdue_at, again)
        self.due = self._overdue_at
        return names


def _retry_at(since: float, asked: float) -> float:
    """When to ask again after ``asked``: the pause since the chunk's begin doubles."""
    return asked + max(CHUNK_RECALL_RETRY_S, asked - since)


def _victims(
    workers: Mapping[int, WorkerEntry], idle: int, mean: float, now: float
) -> tuple[list[int], float | None]:
    """Which workers to ask now, and when to look again at the latest."""
    overdue: list[int] = []
    found: list[tuple[float, int]] = []
    later: float | None = None
    for name, worker in workers.items():
        if not worker.recallable or not worker.chunks:
            continue
        due: float | None = None
        if worker.recalled_at is not None:
            if worker.answered or worker.held < 2:
                continue
            again = _retry_at(worker.since, worker.recalled_at)
            if now >= again:
                overdue.append(name)
            elif idle and now < worker.recalled_at + RECALL_ANSWER_S:
                idle -= 1
                due = worker.recalled_at + RECALL_ANSWER_S
            else:
                due = again
        elif (held := worker.held) > 1:
            first = worker.chunks[0].size
            due = worker.since + 2 * first * mean + OVERDUE_MARGIN_S
            # A chunk sent just now is on its way: recalled at once it would only go in circles.
            begun = worker.since + MIN_RECALLED_WORK_S
            late = worker.since + 1.5 * held * mean + LATE_MARGIN_S
            rest = max(0.0, worker.since + first * mean - now) + (held - first) * mean
            if now >= due:
                overdue.append(name)
                due = None
            elif idle and (now >= begun if rest > mean + MIN_RECALLED_WORK_S else now >= late):
                found.append((rest, name))
            elif idle:
                due = min(due, begun if rest > mean + MIN_RECALLED_WORK_S else late)
        if due is not None and (later is None or due < later):
            later = due
    most = max(0, idle - len(overdue))
    return overdue + [name for _, name in heapq.nlargest(most, found)], later
