"""What is around a call: another thread, a busy neighbour, a slow input, many small results."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.routing.workloads.definition import Workload
from benchmarks.routing.workloads.pure_python import count_primes

_kept: list[Any] = []


def _second_thread() -> None:
    """A thread that waits, as those of loggers and clients do: the program cannot be forked."""
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    _kept.append(thread)


def _neighbour() -> None:
    """A program that keeps one core busy until this one ends."""
    code = (
        "import sys, threading\n"
        "threading.Thread(target=lambda: (sys.stdin.read(), __import__('os')._exit(0))).start()\n"
        "while True: pass\n"
    )
    _kept.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE))
    time.sleep(0.2)  # it has begun


def _counts(items: int) -> list[int]:
    return [90_000 + 3000 * step for step in range(items)]


def threaded_python() -> tuple[Callable[[int], int], list[int]]:
    _second_thread()
    return count_primes, _counts(60)


def hash_long(seed: int) -> str:
    return hashlib.pbkdf2_hmac("sha256", b"%d" % seed, b"salt", 20_000).hex()


def threaded_hashes() -> tuple[Callable[[int], str], list[int]]:
    _second_thread()
    return hash_long, list(range(80))


def neighbour_python() -> tuple[Callable[[int], int], list[int]]:
    _neighbour()
    return count_primes, _counts(60)


def neighbour_hashes() -> tuple[Callable[[int], str], list[int]]:
    _neighbour()
    return hash_long, list(range(80))


def nap(seed: int) -> int:
    time.sleep(0.01)
    return seed


def neighbour_naps() -> tuple[Callable[[int], int], list[int]]:
    _neighbour()
    return nap, list(range(150))


class SlowSource(list[int]):
    """Items that come one by one: each is waited for."""

    def __iter__(self) -> Iterator[int]:
        for item in super().__iter__():
            time.sleep(0.004)
            yield item


def slow_source_python() -> tuple[Callable[[int], int], list[int]]:
    return count_primes, SlowSource(_counts(60))


def slow_source_naps() -> tuple[Callable[[int], int], list[int]]:
    return nap, SlowSource(range(100))


def parse_lines(seed: int) -> list[tuple[int, str]]:
    """Many small objects as a result."""
    source = random.Random(seed)
    return [(source.randrange(1000), f"line {line}") for line in range(6000)]


def many_objects() -> tuple[Callable[[int], list[tuple[int, str]]], list[int]]:
    return parse_lines, list(range(60))


def _lookups() -> Callable[[int], int]:
    table = {number: number * 7 % 1013 for number in range(1_000_000)}

    def follow(start: int) -> int:
        total, number = 0, start
        for _ in range(60_000):
            value = table[number]
            total += value
            number = (number * 31 + value) % 1_000_000
        return total

    return follow


def million_entries() -> tuple[Callable[[int], int], list[int]]:
    return _lookups(), list(range(60))


def threaded_million() -> tuple[Callable[[int], int], list[int]]:
    _second_thread()
    return _lookups(), list(range(60))


WORKLOADS = (
    Workload("threaded_python", "a second thread, pure Python", threaded_python, "b96cd2170029"),
    Workload("threaded_hashes", "a second thread, hashing", threaded_hashes, "bf4e7eeb14d6"),
    Workload("neighbour_python", "a busy neighbour, pure Python", neighbour_python, "b96cd2170029"),
    Workload("neighbour_hashes", "a busy neighbour, hashing", neighbour_hashes, "bf4e7eeb14d6"),
    Workload("neighbour_naps", "a busy neighbour, waiting", neighbour_naps, "aebb63ac908c"),
    Workload("slow_source_python", "a slow input, pure Python", slow_source_python, "b96cd2170029"),
    Workload("slow_source_naps", "a slow input, waiting", slow_source_naps, "aebb63ac908c"),
    Workload("many_objects", "many small objects returned", many_objects, "dd8cb205594d"),
    Workload("million_entries", "a captured dictionary", million_entries, "a1837abd2cf4"),
    Workload(
        "threaded_million", "a captured dictionary, two threads", threaded_million, "a1837abd2cf4"
    ),
)
