"""Schedulers under observation: checked after every event, with the stories of items at hand.

A conftest that imports ``checked_schedulers`` gets the fixture for all tests of its folder.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest

from parallax._core.chunks import Chunk
from parallax._run.chunk_flow import ChunkFlow
from parallax._scheduling import events
from parallax._scheduling.scheduler import Scheduler
from parallax._scheduling.worker_table import WorkerTable

#: Items of a failed test whose stories are printed.
TOLD_ITEMS = 8

#: Unfinished items up to which a scheduler is checked. With more, a simulation of 150 workers
#: would take ten times as long.
CHECKED_ITEMS = 300


class InconsistencyError(AssertionError):
    """The state of a scheduler or of a run's flow contradicts itself."""

    def __init__(self, text: str, items: tuple[int, ...] = ()) -> None:
        super().__init__(text, items)
        self.items = items


def check(condition: object, text: str, *items: int) -> None:
    """Raise ``InconsistencyError`` unless the condition holds."""
    if not condition:
        raise InconsistencyError(text, items)


class EventLog:
    """The last events and commands of one run, each with the items concerned."""

    def __init__(self, limit: int) -> None:
        #: first item, number of items, and what happened to them.
        self.entries: deque[tuple[int, int, str]] = deque(maxlen=limit)
        self._sent: dict[tuple[int, int], Chunk] = {}  # by worker and chunk

    def record(self, now: float, event: events.Event, commands: list[events.Command]) -> None:
        """Log an event and the commands that followed from it."""
        number, worker = getattr(event, "chunk", None), getattr(event, "worker", None)
        lost = isinstance(event, events.Lost)
        for key in [key for key in self._sent if key[0] == worker] if lost else [(worker, number)]:
            if (chunk := self._sent.get(key)) is None:
                continue
            self.entries.append((chunk.start, chunk.size, f"{now:.6f} {event}"))
            keep = event.keep if isinstance(event, events.Cut) else 0
            self._sent[key] = chunk._replace(size=min(keep, chunk.size))
            if not keep:
                del self._sent[key]
        for command in commands:
            if isinstance(command, events.Send):
                chunk = command.chunk
                self._sent[command.worker, chunk.id] = chunk
                concerned = [(chunk.start, chunk.size)]
            elif isinstance(command, events.Emit):
                concerned = [(command.start, command.size)]
            elif isinstance(command, events.Recall):
                held = [chunk for key, chunk in self._sent.items() if key[0] == command.worker]
                concerned = [(chunk.start, chunk.size) for chunk in held]
            else:
                concerned = [(command.item, 1)]
            text = f"{now:.6f} {type(event).__name__} -> {command}"
            self.entries.extend((start, size, text) for start, size in concerned)

    def story(self, item: int) -> list[str]:
        """What happened to one item, oldest first."""
        return [text for start, size, text in self.entries if start <= item < start + size]


def check_table(table: WorkerTable) -> None:
    """Check that the indices agree with what the workers hold."""
    check(not table.active.keys() & table.retired.keys(), "a worker is both active and retired")
    check(all(w.chunks for w in table.retired.values()), "a retired worker holds nothing")
    check(all(left >= 0 for left in table.quota.values()), "a quota was exceeded")
    for name, worker in table.active.items():
        full = worker.killed or table.quota.get(name) == 0
        idle = not worker.chunks and worker.depth > 0 and not full
        half = len(worker.chunks) == 1 < worker.depth and not full
        half = half and worker.recalled_at is None
        check((name in table.idle) == idle, f"worker {name} is indexed as idle wrongly")
        check((name in table.half_full) == half, f"worker {name} is indexed as half full wrongly")
    known = table.idle.keys() | table.half_full.keys()
    check(known <= table.active.keys(), "a worker with room is not active")


def check_scheduler(scheduler: Scheduler) -> None:
    """Check that each item is in exactly one place, and that all counts agree."""
    check_table(scheduler._table)
    order, sent, failed = scheduler._order, scheduler._next, scheduler.failed
    emitted = order.emitted
    check(scheduler._consumed <= emitted, "more was consumed than emitted")
    check(emitted <= sent <= scheduler._arrived, "sent before it arrived, or never sent")
    check(sent <= scheduler._sendable, "sent beyond the window", sent - 1)
    retries = scheduler._attempts.values()
    check(all(n <= scheduler._retries for n in retries), "too many retries")
    spans = [(c.start, c.start + c.size, "waits again") for _, c in scheduler._resend]
    for name, worker in scheduler._table.all():
        spans += [(c.start, c.start + c.size, f"at worker {name}") for c in worker.chunks]
    spans += [(start, start + size, "finished") for start, size in order.waiting.items()]
    if order.ordered and emitted:
        spans.append((0, emitted, "emitted"))
    spans.sort()
    for (start, end, place), (other, _, other_place) in pairwise(spans):
        check(start < end, "an empty chunk", start)
        check(end <= other, f"in two places: {place} and {other_place}", other)
    check(not spans or spans[-1][1] <= sent, "known, but never sent", sent)
    # Of items after one that failed for good nothing is asked, and of those that were emitted
    # out of order only the number is kept.
    end = sent if failed is None else failed
    placed = sum(min(stop, end) - start for start, stop, _ in spans if start < end)
    if order.ordered:
        if placed != end:
            known = {i for start, stop, _ in spans for i in range(start, stop)}
            lost = tuple(i for i in range(end) if i not in known)
            raise InconsistencyError("items are in no place", lost)
    elif failed is None:
        check(placed + emitted == end, f"{end} were sent, {placed} and {emitted} are known")


def check_flow(flow: ChunkFlow) -> None:
    """Check that the scheduler and the items of a run agree."""
    scheduler, items = flow.scheduler, flow.in_flight
    if scheduler is None:
        return
    check_scheduler(scheduler)
    if scheduler.failed is None:
        kept = sum(part.left for part in items._parts)
        check(
            kept == scheduler.in_flight + scheduler.unsent,
            "other items are kept than are open",
        )


def stories(log: EventLog, error: InconsistencyError | None) -> str:
    """What happened to the items that an error names, else to those of the last events."""
    items: dict[int, None] = {}
    if error is not None and error.items:
        items = dict.fromkeys(error.items[:TOLD_ITEMS])
    else:
        for start, size, _ in list(log.entries)[-TOLD_ITEMS:]:
            items.update(dict.fromkeys(range(start, start + size)))
    lines = []
    for item in list(items)[-TOLD_ITEMS:]:
        lines += [f"item {item}:", *(f"    {line}" for line in log.story(item))]
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def checked_schedulers(monkeypatch):
    """Every scheduler is checked after each event; a failed test prints stories of its last."""
    logs: list[EventLog] = []
    errors: list[InconsistencyError] = []
    make, handle = Scheduler.__init__, Scheduler.handle

    def __init__(self, **options):
        make(self, **options)
        self.log = EventLog(10_000)
        logs[:] = [self.log]
        errors.clear()

    def checked(self, event, now):
        commands = handle(self, event, now)
        self.log.record(now, event, commands)
        try:
            if (self.left() or 0) <= CHECKED_ITEMS:
                check_scheduler(self)
        except InconsistencyError as error:
            errors[:] = [error]
            raise
        return commands

    monkeypatch.setattr(Scheduler, "__init__", __init__)
    monkeypatch.setattr(Scheduler, "handle", checked)
    yield
    for log in logs:  # captured, and shown if the test has failed
        print(stories(log, errors[0] if errors else None))
