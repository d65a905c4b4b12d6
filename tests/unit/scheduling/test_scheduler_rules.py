"""The scheduler alone, rule by rule."""

from __future__ import annotations

from collections import deque

import pytest

from parallax._scheduling.events import (
    Arrived,
    Blame,
    Consumed,
    Emit,
    Ended,
    Finished,
    Kill,
    Lost,
    Ready,
    Retire,
    Returned,
    Send,
    Tick,
)
from parallax._scheduling.scheduler import Scheduler


def sends(commands):
    return [(c.worker, c.chunk.start, c.chunk.size) for c in commands if isinstance(c, Send)]


def begin(items, workers=1, depth=1, **options):
    """A scheduler with items and workers; its first Sends."""
    scheduler = Scheduler(total=items, **options)
    scheduler.handle(Arrived(items), 0.0)
    scheduler.handle(Ended(), 0.0)
    commands = []
    for worker in range(1, workers + 1):
        commands += scheduler.handle(Ready(worker, depth, 0.02), 0.0)
    return scheduler, [c for c in commands if isinstance(c, Send)]


def done(scheduler, send, now=0.0, failed=(), ran=None, wall=0.01):
    ran = send.chunk.size if ran is None else ran
    return scheduler.handle(Finished(send.worker, send.chunk.id, ran, failed, wall), now)


def test_first_chunks_are_single_items():
    """While nothing is known of the items each worker gets one."""
    _, sent = begin(1000, workers=3)
    assert sends(sent) == [(1, 0, 1), (2, 1, 1), (3, 2, 1)]


def test_chunks_aim_at_the_target_time():
    """With items of 1 ms and a target of 20 ms a chunk has 20 items."""
    scheduler, (send,) = begin(1000)
    assert sends(done(scheduler, send, wall=0.001)) == [(1, 1, 20)]


def test_chunks_shrink_towards_the_end():
    """No chunk is larger than a quarter of an even share of what is left."""
    scheduler, sent = begin(100, workers=2)
    queue = deque(sent)
    while queue:
        send = queue.popleft()
        left = 100 - send.chunk.start
        assert send.chunk.size <= max(1, left // 8)
        wall = 0.001 * send.chunk.size
        queue.extend(c for c in done(scheduler, send, wall=wall) if isinstance(c, Send))
    assert scheduler.finished


def test_fixed_chunk_size_is_kept():
    """The caller's chunk size is the size of all chunks but the last."""
    scheduler, sent = begin(10, chunksize=4)
    sizes = []
    while sent:
        sizes.append(sent[0].chunk.size)
        sent = [c for c in done(scheduler, sent[0]) if isinstance(c, Send)]
    assert sizes == [4, 4, 2]


def test_second_chunk_only_for_short_items():
    """A second chunk goes ahead to a busy worker only if items are short."""
    for wall, expected in ((0.001, 2), (0.5, 1)):
        scheduler, (send,) = begin(1000, depth=2)
        assert len(sends(done(scheduler, send, wall=wall))) == expected


def test_idle_workers_come_before_second_chunks():
    """Each idle worker gets a chunk before any gets a second one."""
    scheduler = Scheduler(total=3, mean=0.001)
    scheduler.handle(Ready(1, 2, 0.02), 0.0)
    scheduler.handle(Ready(2, 2, 0.02), 0.0)
    commands = scheduler.handle(Arrived(3), 0.0)
    assert [c.worker for c in commands if isinstance(c, Send)] == [1, 2, 1]


def test_window():
    """Nothing is sent beyond the window until results were consumed."""
    scheduler, sent = begin(10, workers=2, window=2)
    assert sends(sent) == [(1, 0, 1), (2, 1, 1)]
    assert sends(done(scheduler, sent[0])) == []
    assert sends(scheduler.handle(Consumed(1), 0.0)) == [(1, 2, 1)]


def test_order():
    """Results wait for earlier ones, unless the caller does not mind."""
    for ordered in (True, False):
        scheduler, sent = begin(2, workers=2, ordered=ordered)
        second = [c for c in done(scheduler, sent[1]) if isinstance(c, Emit)]
        first = [c for c in done(scheduler, sent[0]) if isinstance(c, Emit)]
        if ordered:
            assert (second, first) == ([], [Emit(0, 2)])
        else:
            assert (second, first) == ([Emit(1, 1)], [Emit(0, 1)])


def test_lost_chunk_is_run_again_item_by_item():
    """Which item of a chunk ended its worker is found out by running each alone."""
    scheduler, _ = begin(6, chunksize=3)
    scheduler.handle(Lost(1), 0.0)
    commands = scheduler.handle(Ready(2, 1, 0.02), 0.0)
    seen = []
    while found := [c for c in commands if isinstance(c, Send)]:
        seen.append((found[0].chunk.start, found[0].chunk.size))
        commands = done(scheduler, found[0])
    assert seen == [(0, 1), (1, 1), (2, 1), (3, 3)]


def test_blame_for_a_single_item():
    """An item that was alone when its worker ended is to blame, and takes no worker again."""
    scheduler, _ = begin(2, stop_on_error=False)
    commands = scheduler.handle(Lost(1), 0.0)
    assert commands == [Blame(0, 1, 1), Emit(0, 1)]
    assert sends(scheduler.handle(Ready(2), 0.0)) == [(2, 1, 1)]


def test_no_blame_if_it_cannot_have_begun():
    """A worker that ended before it took anything up blames nobody."""
    scheduler, _ = begin(2, chunksize=2)
    assert scheduler.handle(Lost(1, began=False), 0.0) == []
    assert sends(scheduler.handle(Ready(2), 0.0)) == [(2, 0, 2)]


def test_only_the_oldest_chunk_is_suspect():
    """What was queued behind it goes to others as it is, and nothing behind a suspect."""
    scheduler = Scheduler(total=20, chunksize=2, mean=0.0001)
    scheduler.handle(Arrived(20), 0.0)
    assert sends(scheduler.handle(Ready(1, 2, 0.02), 0.0)) == [(1, 0, 2), (1, 2, 2)]
    scheduler.handle(Lost(1), 0.0)
    assert sends(scheduler.handle(Ready(2, 2, 0.02), 0.0)) == [(2, 0, 1)]
    assert sends(scheduler.handle(Ready(3, 2, 0.02), 0.0)) == [(3, 1, 1)]
    assert sends(scheduler.handle(Ready(4, 2, 0.02), 0.0))[0] == (4, 2, 2)


def test_retries():
    """A failed item is run again alone as often as is owed."""
    scheduler, (send,) = begin(1, retries=2, stop_on_error=False)
    for attempt in (1, 2):
        commands = done(scheduler, send, failed=(0,))
        (send,) = [c for c in commands if isinstance(c, Send)]
        assert send.chunk.attempt == attempt
    assert done(scheduler, send, failed=(0,)) == [Emit(0, 1)]
    assert scheduler.finished


def test_stop_at_the_first_error():
    """After an item failed for good only what may fail before it goes on."""
    scheduler, sent = begin(10, workers=2)
    commands = done(scheduler, sent[1], failed=(0,))
    assert commands == []
    assert scheduler.failed == 1
    assert not scheduler.finished, "item 0 may fail too"
    assert done(scheduler, sent[0]) == [Emit(0, 1)]
    assert scheduler.finished


def test_earlier_error_wins():
    """The lowest failing item is the run's error."""
    scheduler, sent = begin(10, workers=2)
    done(scheduler, sent[1], failed=(0,))
    done(scheduler, sent[0], failed=(0,))
    assert scheduler.failed == 0


def test_worker_that_stopped_at_a_failure():
    """Items of a chunk that were not run after a failure that is retried are run later."""
    scheduler, (send,) = begin(4, chunksize=4, retries=1)
    commands = done(scheduler, send, failed=(1,), ran=2)
    assert commands[0] == Emit(0, 1)
    assert sends(commands) == [(1, 1, 1)]


def test_item_timeout():
    """An item that overruns gets its worker killed once, is blamed, and is not retried."""
    scheduler, _ = begin(2, item_timeout=1.0, retries=5, stop_on_error=False)
    assert scheduler.deadline() == 1.0
    assert scheduler.handle(Tick(), 0.9) == []
    assert scheduler.handle(Tick(), 1.0) == [Kill(1, 0)]
    assert scheduler.handle(Tick(), 1.1) == []
    assert scheduler.deadline() is None
    assert scheduler.handle(Lost(1), 1.2) == [Blame(0, 1, 1), Emit(0, 1)]


def test_item_timeout_starts_anew_with_each_item():
    """The time of an item begins when the one before it on its worker ended."""
    scheduler, (send,) = begin(5, item_timeout=1.0)
    done(scheduler, send, now=0.8)
    assert scheduler.handle(Tick(), 1.5) == []
    assert scheduler.deadline() == pytest.approx(1.8)


def test_retired_worker_finishes_what_it_has():
    """It gets nothing more, its result still counts, and it may be taken back."""
    scheduler, (send,) = begin(3)
    scheduler.handle(Retire(1), 0.0)
    assert done(scheduler, send) == [Emit(0, 1)]
    assert sends(scheduler.handle(Ready(1), 0.0)) == [(1, 1, 1)]


def test_returned_chunk():
    """A chunk that was given back goes to the next worker, in pieces if asked."""
    for split, expected in ((False, [(2, 0, 3)]), (True, [(2, 0, 1)])):
        scheduler, (send,) = begin(3, chunksize=3)
        scheduler.handle(Retire(1), 0.0)
        scheduler.handle(Returned(1, send.chunk.id, split), 0.0)
        assert sends(scheduler.handle(Ready(2), 0.0)) == expected


def test_refused_chunk_behind_a_running_one():
    """A chunk that could not be sent is settled before the one that its worker runs."""
    scheduler = Scheduler(total=4, chunksize=1, stop_on_error=False, mean=0.0001)
    scheduler.handle(Arrived(2), 0.0)
    scheduler.handle(Ended(), 0.0)
    first, second = scheduler.handle(Ready(1, 2, 0.02), 0.0)
    assert done(scheduler, second, failed=(0,), wall=0.0) == []
    assert done(scheduler, first) == [Emit(0, 2)]
    assert scheduler.finished


def test_unknown_chunk_is_an_error():
    """A chunk that its worker does not have is a mistake of ours, said aloud."""
    scheduler, _ = begin(3)
    with pytest.raises(RuntimeError, match="does not have chunk 99"):
        scheduler.handle(Finished(1, 99, 1), 0.0)


def test_late_news_of_an_unknown_worker():
    """A worker that is gone already may be lost again, or give back what it no longer has."""
    scheduler, (send,) = begin(3)
    scheduler.handle(Lost(1, began=False), 0.0)
    assert scheduler.handle(Lost(1), 0.0) == []
    assert scheduler.handle(Returned(1, send.chunk.id), 0.0) == []


def test_wanted():
    """How many items the input is asked for: what idle workers could take, in the window."""
    scheduler = Scheduler(window=5)
    assert scheduler.wanted() == 0
    scheduler.handle(Ready(1), 0.0)
    scheduler.handle(Ready(2), 0.0)
    assert scheduler.wanted() == 2
    scheduler.handle(Arrived(2), 0.0)
    assert scheduler.wanted() == 0
    scheduler.handle(Ended(), 0.0)
    assert scheduler.wanted() == 0


def test_left():
    """Items left are known with the input's length, or at its end."""
    scheduler = Scheduler()
    scheduler.handle(Arrived(3), 0.0)
    assert scheduler.left() is None
    scheduler.handle(Ended(), 0.0)
    assert scheduler.left() == 3
    assert Scheduler(total=7, first=2).left() == 5


def test_nothing_at_all():
    """An empty input is finished at its end."""
    scheduler = Scheduler(total=0)
    assert not scheduler.finished
    scheduler.handle(Ended(), 0.0)
    assert scheduler.finished


def quota(*numbers, items=20, chunksize=4, depth=1):
    """A scheduler with one worker per number, which is its quota; its first Sends."""
    scheduler = Scheduler(total=items, chunksize=chunksize, mean=0.0001)
    scheduler.handle(Arrived(items), 0.0)
    scheduler.handle(Ended(), 0.0)
    commands = []
    for worker, number in enumerate(numbers, 1):
        commands += scheduler.handle(Ready(worker, depth, 0.02, number), 0.0)
    return scheduler, [c for c in commands if isinstance(c, Send)]


def test_quota_bounds_all_that_a_worker_gets():
    """Chunks are cut to what is left of the quota, and at none the worker gets nothing more."""
    scheduler, (send,) = quota(6)
    assert sends([send]) == [(1, 0, 4)]
    (send,) = (c for c in done(scheduler, send) if isinstance(c, Send))
    assert sends([send]) == [(1, 4, 2)]
    assert sends(done(scheduler, send)) == []
    assert sends(scheduler.handle(Ready(2), 0.0)) == [(2, 6, 4)]


def test_quota_counts_what_is_sent_ahead():
    """A second chunk comes out of the same quota, at once."""
    _, sent = quota(5, depth=2)
    assert sends(sent) == [(1, 0, 4), (1, 4, 1)]


def test_quota_splits_a_chunk_that_is_sent_again():
    """A returned chunk that is longer than what a worker may take goes out in pieces."""
    scheduler, sent = quota(8, 3)
    scheduler.handle(Retire(1), 0.0)
    done(scheduler, sent[1])
    scheduler.handle(Returned(1, sent[0].chunk.id), 0.0)
    assert sends(scheduler.handle(Ready(3, 1, 0.02, 3), 0.0)) == [(3, 0, 3)]
    assert sends(scheduler.handle(Ready(4), 0.0)) == [(4, 3, 1)]


def test_quota_counts_items_that_were_run():
    """What a worker gives back unrun it may be given again."""
    scheduler, (send,) = quota(4)
    commands = scheduler.handle(Returned(1, send.chunk.id), 0.0)
    assert sends(commands) == [(1, 0, 4)]
    (send,) = (c for c in commands if isinstance(c, Send))
    assert sends(done(scheduler, send, ran=1)) == [(1, 1, 3)]


def test_quota_is_not_renewed_by_a_second_ready():
    """A worker that is retired and taken back is as old as before."""
    scheduler, (send,) = quota(5)
    scheduler.handle(Retire(1), 0.0)
    done(scheduler, send)
    assert sends(scheduler.handle(Ready(1, 1, 0.02, 5), 0.0)) == [(1, 4, 1)]


def test_quota_bounds_what_is_wanted():
    """The input is not asked for items that nobody may be given."""
    scheduler = Scheduler(chunksize=10)
    scheduler.handle(Ready(1, 1, 0.02, 3), 0.0)
    assert scheduler.wanted() == 3
    scheduler.handle(Ready(1, 1, 0.02, 0), 0.0)
    assert scheduler.wanted() == 0


def test_large_items_make_small_chunks():
    scheduler = Scheduler(total=1000, mean=1e-4)
    scheduler.expect_workers(2)
    scheduler.limit_chunks(3)
    scheduler.handle(Arrived(1000), 0.0)
    (sent,) = scheduler.handle(Ready(1, 1, 0.02), 0.0)
    assert sent.chunk.size == 3
