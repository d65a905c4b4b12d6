"""The scheduler alone: driven by hypothesis through a small simulator."""

from __future__ import annotations

from collections import deque

from helpers.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._scheduling.events import (
    Arrived,
    Blame,
    Consumed,
    Cut,
    Emit,
    Ended,
    Finished,
    Kill,
    Lost,
    Ready,
    Recall,
    Retire,
    Returned,
    Send,
    Tick,
)
from parallax._scheduling.recall_policy import CHUNK_RECALL_RETRY_S
from parallax._scheduling.scheduler import Scheduler


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
        self.left: dict[int, int] = {}  # what is left of a worker's quota
        self.recallable: set[int] = set()
        self.recalled: dict[int, float] = {}  # chunks, and when they were asked for last

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
            elif isinstance(command, Recall):
                self.on_recall(command.worker)
            else:
                assert isinstance(command, Kill)
                self.killed.add(command.worker)
        self.check()

    def on_recall(self, worker):
        flight = self.workers[worker]
        assert worker in self.recallable
        assert worker not in self.retired
        assert sum(chunk.size for chunk in flight) > 1, "it has nothing to give back"
        for chunk in flight:
            last = self.recalled.get(chunk.id, -CHUNK_RECALL_RETRY_S)
            assert self.now - last > 0.99 * CHUNK_RECALL_RETRY_S, "asked twice"
            self.recalled[chunk.id] = self.now

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
        if send.worker in self.left:
            self.left[send.worker] -= chunk.size
            assert self.left[send.worker] >= 0, "more than its quota"
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
            found += ["finish", "finish", "finish", "return", "cut", "cut"]
        if self.workers:
            found.append("lose")
        if len(able) > 1:
            found.append("retire")
        if self.consumed < len(self.emitted):
            found.append("consume")
        if self.options.get("item_timeout") is not None or self.scheduler.deadline() is not None:
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
            quota = draw(st.none() | st.integers(1, 6))
            if quota is not None:
                self.left[self.names] = quota
            if recall := draw(st.booleans()):
                self.recallable.add(self.names)
            self.handle(Ready(self.names, draw(st.integers(1, 2)), 0.02, quota, recall))
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
            due = self.scheduler.deadline()
            if due is not None and draw(st.booleans()):
                self.now = max(self.now, due)
            else:
                self.now += draw(st.sampled_from([0.0, 0.01, 0.4, 1.5]))
            self.handle(Tick())
            due = self.scheduler.deadline()
            assert due is None or due > self.now, "a deadline that has passed: the loop would spin"
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
            self.give_back(worker, chunk)
            self.handle(Returned(worker, chunk.id, draw(st.booleans())))
            return
        if choice == "cut":
            self.cut(worker, draw)
            return
        self.finish(worker)

    def cut(self, worker, draw):
        """Asked or not: the end of a chunk comes back, or late news of one that it has not."""
        flight = self.workers[worker]
        place = draw(st.integers(0, len(flight) - 1))
        chunk = flight[place]
        keep = draw(st.integers(0, chunk.size))
        if keep == chunk.size:
            self.handle(Cut(worker, chunk.id + draw(st.sampled_from([0, 1000])), keep))
            return
        if keep:
            flight[place] = chunk._replace(size=keep)
        else:
            flight.remove(chunk)
        self.give_back(worker, chunk._replace(start=chunk.start + keep, size=chunk.size - keep))
        self.handle(Cut(worker, chunk.id, keep))

    def give_back(self, worker, chunk):
        self.excuse(chunk)
        if worker in self.left:
            self.left[worker] += chunk.size

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
        rest = chunk._replace(start=chunk.start + ran, size=chunk.size - ran)
        self.give_back(worker, rest)
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


@settings(max_examples=examples(150), deadline=None)
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
