"""Runs callables under the guard, as the run loop does, and callables and items for its tests."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from parallax._guard.effects import Observer, Verdict, judge, scan


@dataclasses.dataclass
class Row:
    """An item of several arguments."""

    args: tuple[Any, ...]


def watch(fn, items, looks=4) -> Verdict:
    """The verdict after the first items ran under observation."""
    rows = [item if isinstance(item, Row) else Row((item,)) for item in items]
    effects = scan(fn, rows[0].args)
    observer = Observer(fn, effects)
    for row in rows[:looks]:
        observer.before(row.args)
        fn(*row.args)
        observer.after()
    return judge(effects, observer.history)


def watch_copies(fn, item, looks=5) -> Verdict:
    """As ``watch``, with equal items that share nothing."""
    return watch(fn, [copy.deepcopy(item) for _ in range(looks)], looks)


def name_of(fn) -> str:
    """The id of a parametrized test."""
    return getattr(fn, "__qualname__", None) or repr(fn)


class Node:
    """An item with state."""

    def __init__(self, value):
        self.value = value
        self.done = False
        self.children = []


class Parser:
    """State of its own, made in the call or outside."""

    def __init__(self, sep=","):
        self.sep = sep
        self.rows = []
        self.state = {"depth": 0}

    def feed(self, text):
        for line in text.split():
            self._line(line)
        self.state["depth"] += 1

    def _line(self, line):
        self.rows.append(line.split(self.sep))
        self.last = line

    @property
    def size(self):
        return len(self.rows)


@dataclasses.dataclass
class Point:
    """A dataclass with a default that is made anew each time."""

    x: int
    y: int = 0
    tags: list = dataclasses.field(default_factory=list)

    def moved(self, dx):
        return dataclasses.replace(self, x=self.x + dx)


def wrapped_by_own(fn):
    """A decorator that a program defines."""
    import functools

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper
