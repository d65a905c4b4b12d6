"""What the items of a chaos run do, in a module that worker processes import quickly."""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
from typing import Any, NamedTuple

__all__ = [
    "EXIT",
    "MOST_ITEMS",
    "Answer",
    "Item",
    "SourError",
    "Tally",
    "answer",
    "ballast_of",
    "draw",
    "expected_draws",
    "fits",
    "square",
    "work",
    "work2",
    "work_and_draw",
]

#: Items of a call, at most.
MOST_ITEMS = 2000

#: Status of the items that end their worker.
EXIT = 7


class SourError(Exception):
    """What an item raises that is to raise."""

    def __init__(self, index: int, payload: bytes = b"") -> None:
        super().__init__(index, payload)
        self.index = index


class Item(NamedTuple):
    """One item: what it does, and what goes in and out with it."""

    index: int
    #: "plain", "raise", "exit", "kill", "hang", "nested" or "unsendable".
    action: str = "plain"
    #: seconds that it takes; negative ones are spent computing.
    seconds: float = 0.0
    #: bytes that go in and out; negative ones as an array.
    weight: int = 0
    size: int = 0
    #: where each run of it leaves its index and when it began; "" for nowhere.
    trail: str = ""
    ballast: Any = None
    #: the seed of its call, from whose stream it draws; None for a call without one.
    seed: int | None = None


class Answer(NamedTuple):
    """What an item returns."""

    index: int
    received: tuple[int, int, int]
    payload: Any
    #: what it has drawn.
    drawn: tuple[float, ...] = ()


class Tally:
    """The same work by an object that collects what has run: under ``auto`` as the loop would."""

    def __init__(self, fn: Any) -> None:
        self._fn = fn
        self.ran: list[int] = []

    def __call__(self, item: Item) -> Answer:
        self.ran.append(item.index)
        answer: Answer = self._fn(item)
        return answer


def draw(_: Any = None) -> tuple[float, ...]:
    return random.random(), random.gauss(0, 1), *random.sample(range(1000), 3)


@functools.cache
def expected_draws(seed: int) -> list[tuple[float, ...]]:
    """What the items of a call with that seed draw, by a plain loop."""
    from parallax import parallel_map

    return list(parallel_map(draw, range(MOST_ITEMS), backend="serial", seed=seed))


def square(number: int) -> int:
    return number * number


def ballast_of(index: int, size: int) -> Any:
    """So many bytes that are the item's own, or an array of as many if that is negative."""
    if size < 0:
        import numpy

        return numpy.full(max(1, -size // 8), index, dtype=numpy.int64)
    return bytes([index % 251]) * size if size else None


def seen(ballast: Any) -> tuple[int, int, int]:
    """Length, the first and the sum of that: wrong if a byte of it is."""
    if ballast is None:
        return 0, 0, 0
    if isinstance(ballast, bytes):
        return len(ballast), ballast[0], len(ballast) - ballast.count(ballast[:1])
    return ballast.nbytes, int(ballast[0]), int(ballast.sum())


def _leave(trail: str, index: int) -> None:
    try:
        fd = os.open(trail, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return  # in a thread, which cannot be ended when its call is
    os.write(fd, b"%d %.6f\n" % (index, time.monotonic()))
    os.close(fd)


def work(item: Item) -> Answer:
    """Do what the item says."""
    if item.trail:
        _leave(item.trail, item.index)
    if item.seconds > 0:
        time.sleep(item.seconds)
    elif item.seconds < 0:
        end = time.perf_counter() - item.seconds
        while time.perf_counter() < end:
            pass
    if item.action == "raise":
        raise SourError(item.index, bytes(abs(item.size)))
    if item.action == "exit":
        os._exit(EXIT)
    if item.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.action == "hang":
        time.sleep(10_000)
    if item.action == "nested":
        from parallax import parallel_map

        found = parallel_map(square, range(item.index, item.index + 20))
        assert found == [square(n) for n in range(item.index, item.index + 20)], found
    if item.action == "unsendable":
        return Answer(item.index, seen(item.ballast), threading.Lock())
    return Answer(item.index, seen(item.ballast), ballast_of(item.index, item.size))


def work_and_draw(item: Item) -> Answer:
    """The same with random numbers, of a call with a seed."""
    drawn = draw()
    return work(item)._replace(drawn=drawn)


def work2(item: Item, other: int) -> Answer:
    """The same with two arguments."""
    assert other == item.index
    return work(item)


def answer(item: Item) -> Answer:
    """What ``work`` has to return."""
    ballast = ballast_of(item.index, item.weight)
    return Answer(item.index, seen(ballast), ballast_of(item.index, item.size))


def fits(item: Item, value: Any) -> bool:
    """Whether that is what ``work`` returns for the item."""
    if item.action in {"raise", "exit", "kill", "hang"} or type(value) is not Answer:
        return False
    right = answer(item)
    if item.seed is not None and value.drawn != expected_draws(item.seed)[item.index]:
        return False
    if (value.index, value.received) != (right.index, right.received):
        return False
    if item.action == "unsendable":
        return not isinstance(value.payload, bytes)
    return type(value.payload) is type(right.payload) and seen(value.payload) == seen(right.payload)
