"""Schedulers under observation: validated after every event, with the stories of items at hand.

A conftest that imports ``checked_schedulers`` gets the fixture for all tests of its folder.
"""

from __future__ import annotations

import pytest

from parallax._scheduling.event_log import InconsistencyError
from parallax._scheduling.scheduler import Scheduler

#: Items of a failed test whose stories are printed.
TOLD_ITEMS = 8

#: Unfinished items up to which a scheduler is validated. With more, a simulation of 150 workers
#: would take ten times as long.
CHECKED_ITEMS = 1000


def items_of(scheduler: Scheduler, error: InconsistencyError | None) -> list[int]:
    """The items that an error names, else those that the last events were about."""
    if error is not None and error.items:
        return list(error.items)[:TOLD_ITEMS]
    found: dict[int, None] = {}
    for start, size, _ in list(scheduler._log.entries)[-TOLD_ITEMS:]:
        found.update(dict.fromkeys(range(start, start + size)))
    return list(found)[-TOLD_ITEMS:]


def stories(scheduler: Scheduler, error: InconsistencyError | None = None) -> str:
    """What happened to the items concerned, as text."""
    lines = []
    for item in items_of(scheduler, error):
        lines += [f"item {item}:", *(f"    {line}" for line in scheduler.story(item))]
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def checked_schedulers(monkeypatch):
    """Every scheduler is validated after each event; a failed test prints stories of its last."""
    made: list[Scheduler] = []
    errors: list[InconsistencyError] = []
    make, handle = Scheduler.__init__, Scheduler.handle

    def __init__(self, **options):
        make(self, **options)
        self.keep_log(10_000)
        made[:] = [self]
        errors.clear()

    def checked(self, event, now):
        commands = handle(self, event, now)
        try:
            if (self.left() or 0) <= CHECKED_ITEMS:
                self.validate()
        except InconsistencyError as error:
            errors[:] = [error]
            raise
        return commands

    monkeypatch.setattr(Scheduler, "__init__", __init__)
    monkeypatch.setattr(Scheduler, "handle", checked)
    yield
    for scheduler in made:  # captured, and shown if the test has failed
        print(stories(scheduler, errors[0] if errors else None))
