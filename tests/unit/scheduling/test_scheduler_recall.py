"""Taking back what a worker has not begun, rule by rule."""

from __future__ import annotations

import pytest

from parallax._scheduling.events import (
    Arrived,
    Cut,
    Emit,
    Ended,
    Finished,
    Ready,
    Recall,
    Send,
    Tick,
)
from parallax._scheduling.scheduler import Scheduler

#: Later than any worker can still be on time.
LATE = 100.0


def begin(items, workers, *, chunksize=None, depth=1, mean=0.001, recall=True, quota=None):
    """A scheduler with items of a known time; the chunks that were sent, by worker."""
    scheduler = Scheduler(total=items, chunksize=chunksize, mean=mean)
    scheduler.handle(Arrived(items), 0.0)
    scheduler.handle(Ended(), 0.0)
    chunks = {}
    for worker in range(1, workers + 1):
        event = Ready(worker, depth, 0.02, quota, recall)
        for command in scheduler.handle(event, 0.0):
            assert isinstance(command, Send)
            chunks.setdefault(command.worker, []).append(command.chunk)
    return scheduler, chunks


def finish(scheduler, worker, chunk, now):
    event = Finished(worker, chunk.id, chunk.size, (), 0.001 * chunk.size)
    return scheduler.handle(event, now)


def recalls(commands):
    return [c.worker for c in commands if isinstance(c, Recall)]


def sends(commands):
    return [(c.worker, c.chunk.start, c.chunk.size) for c in commands if isinstance(c, Send)]


def test_who_has_most_is_asked_when_another_idles():
    """Of those that have more than a chunk is worth, the one with most left, and only it."""
    scheduler, chunks = begin(90, 3, chunksize=30)
    commands = finish(scheduler, 1, chunks[1][0], 0.005)
    assert len(recalls(commands)) == 1
    scheduler, chunks = begin(80, 3, chunksize=30)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == [2], "3 has 20 only"


def test_what_comes_back_goes_to_the_idle_worker():
    """The end of the chunk runs elsewhere, its beginning where it was; each item once."""
    scheduler, chunks = begin(60, 2, chunksize=30)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == [2]
    (send,) = scheduler.handle(Cut(2, chunks[2][0].id, 6), 0.006)
    assert sends([send]) == [(1, 36, 12)], "half of it: the other will be free soon"
    commands = finish(scheduler, 2, chunks[2][0]._replace(size=6), 0.007)
    assert commands[0] == Emit(30, 6)
    assert sends(commands) == [(2, 48, 12)]
    assert Emit(36, 12) in finish(scheduler, 1, send.chunk, 0.02)
    assert Emit(48, 12) in finish(scheduler, 2, commands[1].chunk, 0.02)
    assert scheduler.finished


def test_what_comes_back_is_shared_out():
    """Several idle workers each get a part, and some is left for those that end soon."""
    scheduler = Scheduler(total=1000, mean=0.001)
    scheduler.handle(Arrived(20), 0.0)
    (send,) = scheduler.handle(Ready(1, 1, 0.02, None, True), 0.0)
    assert send.chunk.size == 20
    scheduler.handle(Ended(), 0.0)
    assert recalls(scheduler.handle(Ready(2), 0.001)) == [1]
    scheduler.handle(Ready(3), 0.002)
    commands = scheduler.handle(Cut(1, send.chunk.id, 4), 0.003)
    assert sends(commands) == [(2, 4, 4), (3, 8, 6)]
    assert scheduler.unsent == 6


def test_a_queued_chunk_comes_back_whole():
    """With nothing of it begun a chunk leaves its worker."""
    scheduler, chunks = begin(40, 2, chunksize=10, depth=2)
    first, second = chunks[1]
    finish(scheduler, 1, first, 0.001)
    assert recalls(finish(scheduler, 1, second, 0.002)) == [2]
    running, queued = chunks[2]
    commands = scheduler.handle(Cut(2, queued.id, 0), 0.003)
    assert sends(commands) == [(1, queued.start, 5), (1, queued.start + 5, 5)]
    assert sends(finish(scheduler, 2, running, 0.01)) == [], "what it ran counts, once"
    assert 2 not in [worker for worker, *_ in scheduler.flights()]


def test_each_chunk_is_asked_for_once():
    """A worker that gave back what it could is left alone until it has something new."""
    scheduler, chunks = begin(60, 2, chunksize=30)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == [2]
    scheduler.handle(Cut(2, chunks[2][0].id, 6), 0.006)
    assert recalls(scheduler.handle(Tick(), LATE)) == [1], "it has what came back"


def test_a_question_that_was_lost_is_asked_again():
    """Ever more rarely, also while nobody idles."""
    scheduler, chunks = begin(60, 2, chunksize=30)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == [2]
    asked = []
    while len(asked) < 5:
        due = scheduler.deadline()
        if recalls(scheduler.handle(Tick(), due)) == [2]:
            asked.append(due)
    assert asked == [pytest.approx(t) for t in (0.105, 0.21, 0.42, 0.84, 1.68)]


def test_nobody_is_asked_who_cannot_give_back():
    """Without recall there is nothing to wait for either."""
    scheduler, chunks = begin(60, 2, chunksize=30, recall=False)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == []
    assert scheduler.deadline() is None
    assert recalls(scheduler.handle(Tick(), LATE)) == []


def test_nobody_is_asked_for_a_single_item():
    """An item that runs cannot be given back."""
    scheduler, chunks = begin(2, 2, chunksize=1)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == []
    assert scheduler.deadline() is None


def test_a_worker_that_is_nearly_done_is_asked_only_when_late():
    """Its last items are not worth a signal, unless it turns out that they take long."""
    scheduler, chunks = begin(4, 2, chunksize=2)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.0019)) == []
    due = scheduler.deadline()
    assert due is not None
    assert recalls(scheduler.handle(Tick(), due)) == [2]


def test_nothing_is_taken_back_while_there_is_something_to_send():
    """An idle worker that has used up its quota is no reason to ask."""
    scheduler, chunks = begin(90, 2, chunksize=30, quota=30)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == []


def test_nothing_waits_behind_an_item_that_takes_very_long():
    """Even if all are busy, but only at a Tick: until then its results may be on their way."""
    scheduler, chunks = begin(1000, 2, depth=2)
    running, queued = chunks[1][:2]
    due = scheduler.deadline()
    assert due is not None
    other = chunks[2]
    now = due + 1.0
    commands = finish(scheduler, 2, other[0], now)
    assert recalls(commands) == []
    assert recalls(scheduler.handle(Tick(), now)) == [1]
    scheduler.handle(Cut(1, running.id, 1), now)
    assert sends(scheduler.handle(Cut(1, queued.id, 0), now)) == []
    commands = finish(scheduler, 2, other[1], now + 0.001)
    assert sends(commands)[0][:2] == (2, running.start + 1), "oldest items first"


def test_a_worker_that_does_not_answer_is_not_waited_for():
    """Another one is asked in its place."""
    scheduler, chunks = begin(90, 3, chunksize=30)
    (asked,) = recalls(finish(scheduler, 1, chunks[1][0], 0.005))
    assert recalls(scheduler.handle(Tick(), 0.006)) == []
    due = scheduler.deadline()
    assert due == pytest.approx(0.010)
    assert recalls(scheduler.handle(Tick(), due)) == [5 - asked]


def test_late_answers_are_no_news():
    """The chunk has come back, or all of it was begun, or its worker is not known."""
    scheduler, chunks = begin(60, 2, chunksize=30)
    first, second = chunks[1][0], chunks[2][0]
    finish(scheduler, 1, first, 0.005)
    assert scheduler.handle(Cut(2, second.id, 30), 0.006) == []
    assert scheduler.handle(Cut(3, second.id, 3), 0.006) == []
    assert finish(scheduler, 2, second, 0.03) == [Emit(30, 30)]
    assert scheduler.handle(Cut(2, second.id, 6), 0.04) == []
    assert scheduler.finished


def test_an_answer_without_a_cut():
    """A worker may also just end its chunk early; the rest is run elsewhere."""
    scheduler, chunks = begin(60, 2, chunksize=30)
    finish(scheduler, 1, chunks[1][0], 0.005)
    commands = scheduler.handle(Finished(2, chunks[2][0].id, 6, (), 0.006), 0.007)
    assert commands[0] == Emit(30, 6)
    assert sends(commands) == [(1, 36, 24)]


def test_items_given_back_do_not_count():
    """A quota is of items that were run."""
    scheduler, chunks = begin(60, 2, chunksize=30, quota=30)
    assert chunks[2][0].size == 30
    scheduler.handle(Cut(2, chunks[2][0].id, 10), 0.001)
    commands = finish(scheduler, 2, chunks[2][0]._replace(size=10), 0.002)
    assert sends(commands) == [(2, 40, 10)]


def test_an_answer_with_nothing_in_it_lets_another_be_asked():
    """At once, not after the time that a missing answer is waited for."""
    scheduler, chunks = begin(90, 3, chunksize=30)
    (asked,) = recalls(finish(scheduler, 1, chunks[1][0], 0.005))
    commands = scheduler.handle(Cut(asked, chunks[asked][0].id, 30), 0.006)
    assert recalls(commands) == [5 - asked]


def test_a_worker_is_asked_again_for_a_new_chunk():
    """Having been asked once says nothing about what it is given later."""
    scheduler, chunks = begin(60, 2, chunksize=30)
    assert recalls(finish(scheduler, 1, chunks[1][0], 0.005)) == [2]
    kept = chunks[2][0]._replace(size=6)
    (send,) = scheduler.handle(Cut(2, kept.id, 6), 0.006)
    assert sends(finish(scheduler, 2, kept, 0.007)) == [(2, 48, 12)]
    assert recalls(finish(scheduler, 1, send.chunk, 0.010)) == [2]


def test_what_was_sent_just_now_is_not_asked_for():
    """It may not have arrived, and would go in circles between two idle workers."""
    scheduler, _ = begin(30, 1, chunksize=30)
    assert recalls(scheduler.handle(Ready(2, 1, 0.02, None, True), 0.0005)) == []
    due = scheduler.deadline()
    assert due == pytest.approx(0.001)
    assert recalls(scheduler.handle(Tick(), due)) == [1]
