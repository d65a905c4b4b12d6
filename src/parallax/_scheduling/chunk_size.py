"""How many items go into one chunk: pure rules over measured times.

A chunk is bounded from above twice: by a target time, so that each worker reports regularly, and
by a part of an even share of what is left, so that chunks shrink and all workers end together. The
second is the guided schedule (Polychronopoulos and Kuck 1987) with the smaller shares of factoring
(Flynn Hummel, Schonberg and Flynn 1992). From below it is bounded by the cost of a dispatch: one
thread serves all workers, and with many of them, or with very short items, chunks that are too
small would keep the workers waiting for that thread.
"""

from __future__ import annotations

import sys

#: A chunk is at most this part of an even share of what is left. A smaller divisor leaves
#: stragglers at the end, a larger one pays more dispatches.
SHARE_DIVISOR = 4

#: Mean seconds per item above which nothing is sent ahead to a busy worker. Below it a round trip
#: shows in the total; above it an item queued behind a long one could run elsewhere.
SEND_AHEAD_MAX_S = 0.01

#: Seconds that sending a chunk and taking its results cost the thread that does it. Smaller lets
#: that thread saturate with many workers, larger makes a rougher end.
DISPATCH_COST_S = 100e-6

#: How often that thread could serve each worker in the time of a chunk. Smaller makes workers wait
#: for the thread when several ask at the same time, larger makes chunks longer than needed.
SERVICE_SLACK = 4

#: Seconds per item below which a mean only says that the clock is too coarse.
CLOCK_RESOLUTION_S = 1e-9

#: Weight of the newest chunk in the running mean of item times.
NEWEST_CHUNK_WEIGHT = 0.4

#: Items in a chunk while the time per item is only a guess. More could be many times too long.
MAX_GUESSED_ITEMS = 8


class ChunkSizer:
    """The chunk sizes of one run, from the item times seen so far."""

    def __init__(self, fixed: int | None, mean: float | None, guess: float | None) -> None:
        #: the size of every chunk; None to choose by measured times.
        self.fixed = fixed
        #: running mean of seconds per item.
        self.mean = mean
        #: seconds per item in an earlier run: good for first chunks of a few items.
        self._guess = guess
        #: how many workers there will be: the first one that is up must not get all there is.
        self.workers = 1
        #: items of a chunk at most, because of the memory that they take on their way.
        self.max_items = sys.maxsize

    @property
    def sends_ahead(self) -> bool:
        """Whether items are short enough to be queued at busy workers."""
        return self.mean is not None and self.mean <= SEND_AHEAD_MAX_S

    def learn(self, wall: float, items: int) -> None:
        """Take the time of one more chunk into the mean."""
        if items:
            self.mean = learn(self.mean, wall / items)

    def size(self, target: float, left: int | None, done: int, active: int, idle: int) -> int:
        """Items for the next chunk; ``idle`` of the ``active`` workers hold nothing."""
        if self.fixed is not None:
            return self.fixed
        mean = self.mean if self.mean is not None else self._guess
        if mean is None:
            return 1
        crew = max(self.workers, active)
        size = chunk_size(mean, target, crew, left, done, idle + crew - active)
        size = min(size, self.max_items)
        return size if self.mean is not None else min(size, MAX_GUESSED_ITEMS)


def learn(mean: float | None, newest: float) -> float:
    """The running mean of seconds per item, with the mean of one more chunk."""
    return newest if mean is None else mean + NEWEST_CHUNK_WEIGHT * (newest - mean)


def chunk_size(
    mean: float, target: float, crew: int, left: int | None, done: int, idle: int = 0
) -> int:
    """Items for the next chunk, of about ``target`` seconds.

    ``mean``: recent seconds per item. ``left``: items that no worker has been given; None if the
    input's length is not known. Of the ``crew``, the workers, ``idle`` ones have no chunk.
    """
    if left is None:
        # The length is not known: expect as much again as has been done.
        even = share = done // crew
    else:
        # The part of each worker if none came back for more.
        even, share = -(-left // (idle or crew)), left // (SHARE_DIVISOR * crew)
    if mean < CLOCK_RESOLUTION_S:
        return max(1, share)
    most = int(max(target, SERVICE_SLACK * DISPATCH_COST_S * crew) / mean)
    size = max(1, min(most, max(share, min(even, _least(mean, crew)))))
    # Work of half a dispatch's cost is too little for a chunk, even if others would idle.
    return size if left is None else max(size, min(left, int(DISPATCH_COST_S / 2 / mean)))


def piece_size(mean: float, idle: int, unsent: int) -> int:
    """Items for an idle worker out of ``unsent`` ones that another one gave back.

    Half of an even share: the worker that gave them back, and those that end soon, need some too.
    """
    return max(1, unsent // (2 * max(1, idle)), _least(mean, idle))


def _least(mean: float, crew: int) -> int:
    """Items that are worth the cost of a chunk while ``crew`` workers want one each."""
    if mean < CLOCK_RESOLUTION_S:
        return 1
    return int(DISPATCH_COST_S * max(SERVICE_SLACK, crew) / mean)
