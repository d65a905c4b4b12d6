"""C code that holds the GIL: to a profiler it looks like C, to threads it is as bad as Python."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.routing.workloads.definition import Workload


def _records(seed: int, count: int) -> list[dict[str, Any]]:
    source = random.Random(seed)
    return [
        {
            "id": source.randrange(10**9),
            "name": f"user {source.randrange(10**6)}",
            "scores": [source.randrange(1000) for _ in range(6)],
            "active": source.random() < 0.5,
            "address": {"street": f"{source.randrange(999)} Long Road", "zip": None},
        }
        for _ in range(count)
    ]


def _repeat(texts: list[str], count: int) -> list[str]:
    """Distinct objects, for pickle would send an object once that comes twice in a chunk."""
    return [texts[index % len(texts)] + "\n" for index in range(count)]


def parse_total(document: str) -> int:
    """Parse a JSON document of records and add up one field: about a quarter of a megabyte."""
    return sum(record["scores"][0] for record in json.loads(document))


def json_loads() -> tuple[Callable[[str], int], list[str]]:
    documents = [json.dumps(_records(seed, 2500)) for seed in range(8)]
    return parse_total, _repeat(documents, 200)


def dump_size(records: list[dict[str, Any]]) -> int:
    """Length of the records as JSON with sorted keys."""
    return len(json.dumps(records, sort_keys=True))


def json_dumps() -> tuple[Callable[[list[dict[str, Any]]], int], list[list[dict[str, Any]]]]:
    documents = _repeat([json.dumps(_records(seed, 900)) for seed in range(8)], 300)
    return dump_size, [json.loads(document) for document in documents]


def middle_words(text: str) -> list[str]:
    """Sort the words of a text, and return every thousandth."""
    return sorted(text.split())[::1000]


def sort_words() -> tuple[Callable[[str], list[str]], list[str]]:
    source = random.Random(3)
    texts = [" ".join(format(source.getrandbits(32), "x") for _ in range(24_000)) for _ in range(8)]
    return middle_words, _repeat(texts, 140)


_LOG_LINE = re.compile(r"(\d+-\d+-\d+)T(\S+) \[(\w+)\] .*?status=(5\d\d|4\d\d) .*?path=(/\S*)")


def count_failures(log: str) -> int:
    """Failed requests in a server's log."""
    return len(_LOG_LINE.findall(log))


def scan_logs() -> tuple[Callable[[str], int], list[str]]:
    source = random.Random(4)
    logs = [
        "\n".join(
            f"2024-05-{day:02d}T10:{source.randrange(60):02d}:00 [worker] request "
            f"id={source.getrandbits(40):x} status={source.choice((200, 200, 200, 404, 500))} "
            f"bytes={source.randrange(10**5)} path=/item/{source.randrange(1000)}"
            for _ in range(2500)
        )
        for day in range(1, 9)
    ]
    return count_failures, _repeat(logs, 80)


_NESTED = re.compile(r"(a+)+$")


def backtrack(text: str) -> bool:
    """One call of `re` that backtracks for over a second: nothing else gets a turn meanwhile."""
    return _NESTED.match(text) is not None


def one_long_call() -> tuple[Callable[[str], bool], list[str]]:
    return backtrack, ["a" * 25 + mark for mark in "!?.;"]


def relax(seed: int) -> float:
    """Many NumPy operations on short arrays: the GIL is held for nearly all of them."""
    position = np.random.default_rng(seed).integers(0, 1000, 64).astype(np.float64)
    for _ in range(1200):
        position = np.rint((np.roll(position, 1) + np.roll(position, -1)) * 0.5 + position % 3)
    return float(position.sum())


def numpy_small() -> tuple[Callable[[int], float], list[int]]:
    return relax, list(range(48))


WORKLOADS = (
    Workload("json_loads", "C that holds the GIL", json_loads, "c118c68bee2b", quick=True),
    Workload("json_dumps", "C that holds the GIL", json_dumps, "87818f42df07"),
    Workload("sorted_words", "C that holds the GIL", sort_words, "93e9cfd2ddfe"),
    Workload("re_scan", "C that holds the GIL", scan_logs, "5894a88e7aab"),
    Workload(
        "re_one_long_call",
        "C that holds the GIL, over 1 s a call",
        one_long_call,
        "c8d19f245c3a",
        checked=1,
    ),
    Workload("numpy_small", "C that holds the GIL, in small steps", numpy_small, "3f15da5c0a5a"),
)
