"""Rounds of a chaos run as values: what is called, on what, and what is injected from outside.

A round follows from its seed and nothing else, so that it can be run again. What happens in it does
not: that depends on the machine's timing, so a failure may need several replays.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from .work import MOST_ITEMS, Item

__all__ = ["ASYNC", "Call", "Injection", "Round", "plan"]

#: How work is asked for.
MAPS = ("map", "starmap", "imap", "imap_unordered")
POOLS = ("submit", "executor_map")
ASYNC = ("arun", "amap", "amap_unordered")

#: Bytes that the items and results of a call have in all, and seconds that its items take.
MOST_BYTES, MOST_SECONDS = 60e6, 1.0


@dataclass
class Call:
    """One call with many items."""

    api: str
    #: "parallel", "Executor", "ThreadPoolExecutor" or "ProcessPoolExecutor".
    face: str
    backend: str
    start_method: str
    items: list[Item]
    options: dict[str, Any] = field(default_factory=dict)
    #: "list", "generator", or "broken": a generator that raises after half of the items.
    source: str = "list"
    #: results after which the reader leaves.
    leave: int | None = None
    #: the reader does not close what it leaves, it drops it.
    drop: bool = False
    #: futures that are cancelled.
    cancel: frozenset[int] = frozenset()
    #: seconds between two submits, and threads that share them.
    pause: float = 0.0
    callers: int = 1
    #: whether each item leaves its index where it ran.
    trailed: bool = False
    #: the callable collects what has run, which is to be as by the loop.
    stateful: bool = False

    @property
    def processes(self) -> bool:
        """Whether the items run in worker processes, all of them."""
        return self.backend in {"processes", "fork", "spawn"}


@dataclass
class Injection:
    """What is done to a process from outside."""

    #: seconds after the one before.
    after: float
    #: "kill", "stop", "kill zygote" or "stop zygote".
    what: str
    #: which of them, as a part of 1.
    which: float
    #: seconds that it is stopped.
    length: float = 0.0


@dataclass
class Round:
    """Calls of several threads, and the faults that are injected meanwhile."""

    seed: int
    threads: list[list[Call]]
    injections: list[Injection]
    #: seconds that a thread may keep the GIL for; short ones bring races to light.
    switch: float = 0.005

    def __str__(self) -> str:
        calls = [c for calls in self.threads for c in calls]
        words = ", ".join(f"{c.face}.{c.api}/{c.backend}/{c.start_method}" for c in calls)
        injections = ", ".join(b.what for b in self.injections) or "no injections"
        return f"{len(self.threads)} threads: {words}; {injections}"


def plan(seed: int) -> Round:
    """The round that follows from a seed."""
    rng = random.Random(seed)
    injections = _injections(rng)
    threads = rng.choice([1, 1, 2, 2, 3, 4])
    calls = [[_call(rng, threads) for _ in range(rng.randint(1, 3))] for _ in range(threads)]
    return Round(seed, calls, injections, rng.choice([0.005, 0.005, 1e-4, 1e-5]))


def _injections(rng: random.Random) -> list[Injection]:
    if rng.random() < 0.4:
        return []
    injections = []
    if rng.random() < 0.1:
        return [Injection(rng.random() * 0.02, "kill", rng.random()) for _ in range(40)]
    for _ in range(rng.choice([1, 3, 6, 12])):
        after = rng.choice([0.0, 0.001, 0.01, 0.05, 0.2]) * rng.random() * 2
        what = rng.choice(["kill"] * 5 + ["stop"] * 3 + ["kill zygote", "stop zygote"])
        length = rng.choice([0.001, 0.01, 0.05, 0.1, 0.5, 6.0]) if "stop" in what else 0.0
        injections.append(Injection(after, what, rng.random(), length))
    return injections


def _call(rng: random.Random, threads: int) -> Call:
    kinds = {"parallel": 5, "Executor": 3, "pool": 4, "async": 2, "thread": 1}
    face = rng.choices(list(kinds), list(kinds.values()))[0]
    method = rng.choice(["auto", "auto", "auto", "spawn"])
    backend = rng.choice(["processes"] * 6 + ["auto"] * 3 + ["threads", "threads", "serial"])
    if face == "parallel":
        api = rng.choice(MAPS)
    elif face == "async":
        api, face = rng.choice(ASYNC), "parallel"
    else:
        api = rng.choice(POOLS)
    if face == "pool":
        # A program with threads of its own had better not fork.
        backend = rng.choice(["processes", "processes", "spawn", *(["fork"] * (threads == 1))])
        face = "ProcessPoolExecutor"
    elif face == "thread":
        backend, face = "threads", "ThreadPoolExecutor"
    call = Call(api, face, backend, method, [])
    _choose_options(rng, call)
    call.items = _items(rng, call)
    return call


def _choose_options(rng: random.Random, call: Call) -> None:
    """Options, and what the reader does."""
    options = call.options
    if rng.random() < 0.5:
        options["max_workers"] = rng.randint(1, 6)
    if call.api in MAPS:
        if rng.random() < 0.5:
            options["on_error"] = "return"
        if rng.random() < 0.2:
            options["retries"] = rng.randint(1, 3)
        if rng.random() < 0.15:
            options["timeout"] = rng.choice([0.05, 0.3, 20.0])
        if call.backend == "processes" and rng.random() < 0.3:
            options["item_timeout"] = 2.5
        elif rng.random() < 0.3:
            options["chunksize"] = rng.choice([1, 2, 7, 100])
        call.source = rng.choice(["list", "generator", "generator", "broken"])
        call.stateful = call.backend == "auto" and call.api != "starmap" and rng.random() < 0.5
    if call.api in {*MAPS, "executor_map"} and rng.random() < 0.3:
        options["seed"] = rng.randrange(3)
    if call.api in {"imap", "imap_unordered"}:
        if rng.random() < 0.3:
            options["buffersize"] = rng.choice([1, 3, 50])
        options["ordered"] = call.api == "imap"
    if call.backend == "processes" and call.api not in ASYNC and rng.random() < 0.1:
        options["max_tasks_per_child"] = rng.choice([1, 3, 20])
    if call.api not in {"map", "starmap", "arun"} and rng.random() < 0.3:
        call.leave = rng.choice([0, 1, 5, 50])
    if call.api == "submit":
        call.pause = rng.choice([0.0, 0.0, 0.0005, 0.005])
        call.callers = rng.choice([1, 1, 3])
    call.drop = rng.random() < 0.5


def _items(rng: random.Random, call: Call) -> list[Item]:
    count = int(MOST_ITEMS ** rng.random())
    if call.options.get("max_tasks_per_child") == 1 or call.start_method == "spawn":
        count = min(count, 60)
    if call.api in {"arun", "submit"} and rng.random() < 0.4:
        call.cancel = frozenset(n for n in range(count) if rng.random() < 0.3)
    seconds = min(0.1, MOST_SECONDS / count) * rng.choice([0.0, 0.01, 0.3, 1.0])
    heavy = rng.choice([0.0, 0.0, 0.02, 0.3, 1.0])
    limit = MOST_BYTES / max(1.0, count * heavy)
    bad = _actions(rng, call)
    seed = None if call.api == "starmap" else call.options.get("seed")
    rate = rng.choice([0.01, 0.2, 1.0]) if bad else 0.0
    left = 4 if rng.random() < 0.8 else 10
    call.trailed = rng.random() < 0.5
    items = []
    for index in range(count):
        action = "plain"
        if left and rng.random() < rate:
            action = rng.choice(bad)
            left -= action != "raise"
        spent = seconds * rng.expovariate(1.0) * rng.choice([-1, 1])
        weight = size = 0
        if rng.random() < heavy:
            weight, size = (_size(rng, limit) for _ in range(2))
        items.append(Item(index, action, spent, weight, size, seed=seed))
    return items


def _actions(rng: random.Random, call: Call) -> list[str]:
    """What items of this call may do besides working."""
    if rng.random() < 0.5:
        return []
    actions = ["raise", "nested"]
    if call.processes:
        actions += ["exit", "kill", "unsendable"]
        if "item_timeout" in call.options:
            actions += ["hang"]
    return rng.sample(actions, rng.randint(1, len(actions)))


def _size(rng: random.Random, limit: float) -> int:
    kind = rng.random()
    if kind < 0.3:
        return 0
    size = int(min(limit, rng.choice([1e2, 4e4, 6e5, 3e6, 2e7])) * rng.random())
    return size if kind < 0.65 else -size
