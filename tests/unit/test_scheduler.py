"""The scheduler alone: driven by hypothesis through a small simulator, then rule by rule."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._scheduler import (
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
    Scheduler,
    Send,
    Tick,
)


class Simulator:
    """Workers, an input and a reader, moved by whatever hypothesis draws."""

    def __init__(self, data, *, items, fails, deadly, **options):
        self.data = data
        self.items = items
        self.fails = fails  # item -> how often it fails
        self.deadly = deadly  # items that end their worker, each time
        self.options = options
        self.scheduler = Scheduler(**options)
        self.now = 0.0
        self.arrived = 0
        self.consumed = 0
        self.ended = False
        self.workers: dict[int, deque] = {}
        self.gone: set[int] = set()
        self.retired: set[int] = set()
        self.names = 0
        self.runs: dict[int, int] = {}
        self.excuses: dict[int, int] = {}  # reasons that an item has to be run again
        self.emitted: list[int] = []
        self.blamed: set[int] = set()
        self.killed: set[int] = set()

    def handle(self, event):
        self.now += 0.001
        for command in self.scheduler.handle(event, self.now):
            if isinstance(command, Send):
                self.on_send(command)
            elif isinstance(command, Emit):
                self.emitted.extend(range(command.start, command.start + command.size))
            elif isinstance(command, Blame):
                assert command.item not in self.blamed
                self.blamed.add(command.item)
            else:
                self.killed.add(command.worker)
        self.check()

    def on_send(self, send):
        flight, chunk = self.workers[send.worker], send.chunk
        assert send.worker not in self.retired, "a retired worker got a chunk"
        assert len(flight) < 2
        assert chunk.size >= 1
        size = self.options.get("chunksize")
        if self.options.get("item_timeout") is not None:
            size = 1
        if size is not None:
            assert chunk.size <= size
        flight.append(chunk)
        for item in range(chunk.start, chunk.start + chunk.size):
            assert item < self.arrived
            held = sum(c.start <= item < c.start + c.size for f in self.workers.values() for c in f)
            assert held == 1, "an item is with two workers"
            self.runs[item] = self.runs.get(item, 0) + 1
            assert self.runs[item] <= 1 + self.excuses.get(item, 0), "run again without cause"
            assert item not in self.emitted

    def check(self):
        window = self.options.get("window")
        if window is not None:
            for item in self.runs:
                assert item < self.consumed + window, "beyond the window"
            assert len(self.emitted) <= self.consumed + window
        assert len(self.emitted) == len(set(self.emitted)), "emitted twice"
        if self.options["ordered"]:
            assert self.emitted == list(range(len(self.emitted)))
        assert self.scheduler.in_flight == sum(c.size for f in self.workers.values() for c in f)
        assert self.scheduler.wanted() >= 0
        assert self.scheduler.unsent >= 0

    # -- what can happen now ---------------------------------------------------------------------

    def choices(self):
        able = [w for w in self.workers if w not in self.retired]
        busy = [w for w, flight in self.workers.items() if flight]
        found = []
        if self.arrived < self.items:
            found.append("arrive")
        elif not self.ended:
            found.append("end")
        if len(able) < 3:
            found.append("ready")
        if busy:
            found += ["finish", "finish", "finish", "return"]
        if self.workers:
            found.append("lose")
        if len(able) > 1:
            found.append("retire")
        if self.consumed < len(self.emitted):
            found.append("consume")
        if self.options.get("item_timeout") is not None:
            found.append("tick")
        return found

    def step(self, choice):
        draw = self.data.draw
        if choice == "arrive":
            count = draw(st.integers(1, self.items - self.arrived))
            self.arrived += count
            self.handle(Arrived(count))
        elif choice == "end":
            self.ended = True
            self.handle(Ended())
        elif choice == "ready":
            self.names += 1
            self.workers[self.names] = deque()
            self.handle(Ready(self.names, draw(st.integers(1, 2)), 0.02))
        elif choice == "retire":
            able = [w for w in self.workers if w not in self.retired]
            worker = draw(st.sampled_from(able))
            self.retired.add(worker)
            self.handle(Retire(worker))
        elif choice == "consume":
            count = draw(st.integers(1, len(self.emitted) - self.consumed))
            self.consumed += count
            self.handle(Consumed(count))
        elif choice == "tick":
            self.now += draw(st.sampled_from([0.0, 0.4, 1.5]))
            self.handle(Tick())
        else:
            self.step_worker(choice, draw)

    def step_worker(self, choice, draw):
        busy = [w for w, flight in self.workers.items() if flight]
        if choice == "lose":
            worker = draw(st.sampled_from(sorted(self.workers)))
            self.lose(worker, began=draw(st.booleans()))
            return
        worker = draw(st.sampled_from(busy))
        if choice == "return":
            chunk = draw(st.sampled_from(list(self.workers[worker])))
            self.workers[worker].remove(chunk)
            self.excuse(chunk)
            self.handle(Returned(worker, chunk.id, draw(st.booleans())))
            return
        self.finish(worker)

    def excuse(self, chunk):
        for item in range(chunk.start, chunk.start + chunk.size):
            self.excuses[item] = self.excuses.get(item, 0) + 1

    def lose(self, worker, *, began):
        for chunk in self.workers.pop(worker):
            self.excuse(chunk)
        self.handle(Lost(worker, began))

    def finish(self, worker):
        chunk = self.workers[worker][0]
        numbers = range(chunk.start, chunk.start + chunk.size)
        if worker in self.killed or any(n in self.deadly for n in numbers):
            self.lose(worker, began=True)
            return
        self.workers[worker].popleft()
        failed, ran = [], chunk.size
        for offset, item in enumerate(numbers):
            if self.fails.get(item, 0) > 0:
                self.fails[item] -= 1
                self.excuses[item] = self.excuses.get(item, 0) + 1
                failed.append(offset)
                if self.options["stop_on_error"]:
                    ran = offset + 1
                    break
        for item in numbers[ran:]:
            self.excuses[item] = self.excuses.get(item, 0) + 1
        self.handle(Finished(worker, chunk.id, ran, tuple(failed), 0.001 * ran))

    # -- to the end ------------------------------------------------------------------------------

    def drain(self):
        """From any state: the input ends, workers do their work, the reader reads."""
        for _ in range(2000):
            if self.scheduler.finished:
                return
            if self.arrived < self.items:
                count, self.arrived = self.items - self.arrived, self.items
                self.handle(Arrived(count))
            elif not self.ended:
                self.ended = True
                self.handle(Ended())
            elif self.consumed < len(self.emitted):
                count, self.consumed = len(self.emitted) - self.consumed, len(self.emitted)
                self.handle(Consumed(count))
            elif busy := [w for w, flight in self.workers.items() if flight]:
                self.finish(busy[0])
            else:
                self.names += 1
                self.workers[self.names] = deque()
                self.handle(Ready(self.names, 2, 0.02))
        raise AssertionError("the run does not end")


OPTIONS = st.fixed_dictionaries(
    {
        "chunksize": st.none() | st.integers(1, 5),
        "window": st.none() | st.integers(1, 8),
        "ordered": st.booleans(),
        "retries": st.integers(0, 2),
        "item_timeout": st.none() | st.just(1.0),
        "stop_on_error": st.booleans(),
    }
)


@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    items=st.integers(0, 30),
    known=st.sampled_from(["exact", "unknown", "wrong"]),
    fails=st.dictionaries(st.integers(0, 29), st.integers(1, 4), max_size=4),
    deadly=st.sets(st.integers(0, 29), max_size=2),
    options=OPTIONS,
    steps=st.integers(0, 40),
)
def test_any_course_of_events(data, items, known, fails, deadly, options, steps):
    """Whatever happens: each item once, in order, inside the window, and an end."""
    fails = {k: v for k, v in fails.items() if k < items}
    deadly = {k for k in deadly if k < items}
    total = {"exact": items, "unknown": None, "wrong": items + 5}[known]
    run = Simulator(data, items=items, fails=dict(fails), deadly=deadly, total=total, **options)
    for _ in range(steps):
        if run.scheduler.finished:
            break
        run.step(data.draw(st.sampled_from(run.choices())))
    run.drain()
    scheduler = run.scheduler
    if scheduler.failed is None:
        assert sorted(run.emitted) == list(range(items))
        assert scheduler.left() == 0
        assert scheduler.unsent == 0
        assert scheduler.in_flight == 0
    else:
        assert options["stop_on_error"]
        assert scheduler.failed not in run.emitted
        if options["ordered"]:
            assert run.emitted == list(range(scheduler.failed)), "all before it, nothing after"
    assert deadly <= run.blamed or scheduler.failed is not None


# -- rule by rule ----------------------------------------------------------------------------------


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
        queue.extend(c for c in done(scheduler, send, wall=1e-6) if isinstance(c, Send))
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
    scheduler = Scheduler(total=3)
    scheduler.mean = 0.001
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
    scheduler, (send,) = begin(6, chunksize=3)
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
    """What was queued behind it goes to others as it is."""
    scheduler = Scheduler(total=20, chunksize=2)
    scheduler.mean = 0.0001
    scheduler.handle(Arrived(20), 0.0)
    assert sends(scheduler.handle(Ready(1, 2, 0.02), 0.0)) == [(1, 0, 2), (1, 2, 2)]
    scheduler.handle(Lost(1), 0.0)
    assert sends(scheduler.handle(Ready(2, 2, 0.02), 0.0)) == [(2, 0, 1), (2, 1, 1)]


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
    scheduler = Scheduler(total=4, chunksize=1, stop_on_error=False)
    scheduler.mean = 0.0001
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
