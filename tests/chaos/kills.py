"""Workers killed at random moments: how long it takes until everything has ended.

The moments include those at which a worker receives arguments that do not fit its socket at once,
and at which it writes such results.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

import parallax

from .injector import workers_and_zygotes
from .work import Item, ballast_of, fits, work

__all__ = ["WAYS", "Figures", "kill_at_random"]

#: Calls in flight when the kill falls, and the bytes that each has at most: too few to be shared.
CALLS, BYTES = 24, 300_000

#: Seconds within which all has to end.
LIMIT = 2.0


@dataclass
class Figures:
    """What came of a number of kills."""

    kills: int = 0
    items: int = 0
    lost: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether everything ended in time, and as it must."""
        return not self.wrong and self.slowest < LIMIT

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.items} items, {self.lost} of them ended with their worker; "
            f"the last one ended {self.slowest:.3f} s after the kill at most; "
            f"{len(self.wrong)} wrong {self.wrong[:5] or ''}"
        )


def _items(rng: random.Random) -> list[Item]:
    items = []
    for index in range(CALLS):
        weight, size = (rng.choice([0, rng.randrange(BYTES), -rng.randrange(BYTES)]) for _ in "ab")
        seconds = rng.choice([0.0, -0.002, 0.003]) * rng.random()
        items.append(Item(index, "plain", seconds, weight, size, "", ballast_of(index, weight)))
    return items


def _map(items: list[Item]) -> list[Any]:
    return list(
        parallax.parallel_map(work, items, backend="processes", max_workers=2, on_error="return")
    )


def _futures(executor: Any) -> Callable[[list[Item]], list[Any]]:
    def run(items: list[Item]) -> list[Any]:
        futures = [executor.submit(work, item) for item in items]
        wait(futures)
        return [future.exception() or future.result() for future in futures]

    return run


def _in_map(play: Callable[[Callable[[list[Item]], list[Any]]], None]) -> None:
    play(_map)


def _in_pool(play: Callable[[Callable[[list[Item]], list[Any]]], None]) -> None:
    with parallax.ProcessPoolExecutor(2) as executor:
        play(_futures(executor))


def _in_executor(play: Callable[[Callable[[list[Item]], list[Any]]], None]) -> None:
    with parallax.Executor(2, backend="processes") as executor:
        play(_futures(executor))


WAYS = {"map": _in_map, "pool": _in_pool, "executor": _in_executor}


def kill_at_random(count: int, seed: int, ways: tuple[str, ...] = tuple(WAYS)) -> Figures:
    """Kill so many workers at random moments, shared out among the ways to ask for work.

    Args:
        count: kills.
        seed: of the random numbers.
        ways: names of ``WAYS``.
    """
    rng = random.Random(seed)
    figures = Figures()
    for number, way in enumerate(ways):
        share = count // len(ways) + (number < count % len(ways))

        def play(run: Callable[[list[Item]], list[Any]], share: int = share) -> None:
            run(_items(rng))  # all workers are up
            goal, usual = figures.kills + share, 0.02
            while figures.kills < goal:
                usual = _once(run, rng, usual, figures)

        WAYS[way](play)
    return figures


def _once(
    run: Callable[[list[Item]], list[Any]], rng: random.Random, usual: float, figures: Figures
) -> float:
    """Kill one worker; returns how long the work would take without a kill, roughly."""
    items = _items(rng)
    killed: list[tuple[int, float]] = []
    begin = time.monotonic()
    after, which = rng.random() * usual, rng.random()

    def kill() -> None:
        workers, _ = workers_and_zygotes()
        if workers:
            pid = workers[int(which * len(workers))]
            killed.append((pid, time.monotonic()))
            os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(after, kill)
    timer.start()
    values = run(items)
    end = time.monotonic()
    timer.join()
    figures.items += len(items)
    _judge(items, values, {pid for pid, _ in killed}, figures)
    if not killed:
        return usual
    figures.kills += 1
    figures.slowest = max(figures.slowest, end - killed[0][1])
    return 0.8 * usual + 0.2 * min(0.1, end - begin)


def _judge(items: list[Item], values: list[Any], killed: set[int], figures: Figures) -> None:
    for item, value in zip(items, values, strict=True):
        if isinstance(value, parallax.WorkerDiedError) and value.pid in killed:
            figures.lost += 1
            named = value.index in {None, item.index} and value.exitcode == -signal.SIGKILL
            if not named:
                figures.wrong.append(f"item {item.index}: {value!r}")
        elif not fits(item, value):
            figures.wrong.append(f"item {item.index}: {value!r:.200}")
