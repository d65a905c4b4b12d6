"""How many items go into one chunk: pure rules over measured times.

A chunk is bounded from above twice: by a time to aim at, so that a worker is heard of, and by a
part of an even share of what is left, so that chunks shrink and all workers end together. The
second is the guided schedule (Polychronopoulos and Kuck 1987) with the smaller shares of factoring
(Flynn Hummel, Schonberg and Flynn 1992). From below it is bounded by what handing out a chunk
costs: one thread serves all workers, and with many of them, or with very short items, chunks that
are too small would keep the workers waiting for it.
"""

from __future__ import annotations

__all__ = ["AHEAD", "COST", "chunk_size", "learn", "piece_size"]

#: A chunk is at most this part of an even share of what is left. Larger parts leave stragglers at
#: the end, smaller ones pay more dispatches.
SHARE = 4

#: Seconds per item above which nothing is sent ahead to a busy worker. Below it a round trip
#: shows in the total; above it an item queued behind a long one could run elsewhere.
AHEAD = 0.01

#: Seconds that sending a chunk and taking its results cost the thread that does it. Smaller lets
#: it saturate with many workers, larger makes a rougher end.
COST = 100e-6

#: How often that thread could serve each worker in the time of a chunk. Smaller makes workers wait
#: for it when they happen to ask at the same time, larger makes chunks longer than they need be.
ROOM = 4

#: Seconds per item below which a mean says nothing but that the clock did not see it.
RESOLUTION = 1e-9

#: Weight of the newest chunk in the running mean of item times.
NEWEST = 0.4


def learn(mean: float | None, newest: float) -> float:
    """The running mean of seconds per item, with the mean of one more chunk."""
    return newest if mean is None else mean + NEWEST * (newest - mean)


def chunk_size(
    mean: float, target: float, crew: int, left: int | None, done: int, idle: int = 0
) -> int:
    """Items for the next chunk.

    Args:
        mean: recent seconds per item.
        target: seconds of work to aim at.
        crew: how many workers there are.
        left: items that no worker has been given; None if the input's length is not known.
        done: items that were finished.
        idle: how many of the workers have nothing; 0 if all have something.
    """
    if left is None:
        # The length is not known: expect as much again as has been done.
        even = share = done // crew
    else:
        # What would be everybody's part if nobody came back for more.
        even, share = -(-left // (idle or crew)), left // (SHARE * crew)
    if mean < RESOLUTION:
        return max(1, share)
    most = int(max(target, ROOM * COST * crew) / mean)
    size = max(1, min(most, max(share, min(even, _least(mean, crew)))))
    # Half of what a chunk costs is too little work for one, even if others would idle.
    return size if left is None else max(size, min(left, int(COST / 2 / mean)))


def piece_size(mean: float, idle: int, unsent: int) -> int:
    """Items for an idle worker out of ``unsent`` ones that another one gave back.

    Half of an even share: whoever gave them back, and those that end soon, want some too.
    """
    return max(1, unsent // (2 * max(1, idle)), _least(mean, idle))


def _least(mean: float, crew: int) -> int:
    """Items that are worth the cost of a chunk while ``crew`` workers want one each."""
    return 1 if mean < RESOLUTION else int(COST * max(ROOM, crew) / mean)
