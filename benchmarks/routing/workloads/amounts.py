"""Unusual numbers of items, and a first item unlike the rest: the start-up costs decide."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.routing.workloads.definition import Workload
from benchmarks.routing.workloads.pure_python import count_primes


def scramble(number: int) -> int:
    return (number * 37 + 11) % 1009


def trivial() -> tuple[Callable[[int], int], list[int]]:
    return scramble, list(range(100_000))


def digit_sum(number: int) -> int:
    return sum(map(int, str(3**number)))


def few_short() -> tuple[Callable[[int], int], list[int]]:
    return digit_sum, list(range(3000, 3020))


def count_many_primes(start: int) -> int:
    return sum(count_primes(start + 4000 * step) for step in range(40))


def one_item() -> tuple[Callable[[int], int], list[int]]:
    return count_many_primes, [100_000]


_SMALLEST_FACTOR: list[int] = []


def _smallest_factors() -> list[int]:
    """A table that the first call builds and later ones read."""
    if not _SMALLEST_FACTOR:
        table = list(range(2_400_000))
        for number in range(2, 1550):
            if table[number] == number:
                for multiple in range(number * number, len(table), number):
                    if table[multiple] == multiple:
                        table[multiple] = number
        _SMALLEST_FACTOR.extend(table)
    return _SMALLEST_FACTOR


def total_factors(start: int) -> int:
    """Prime factors, with repeats, of the next 30,000 numbers."""
    table = _smallest_factors()
    total = 0
    for number in range(start, start + 30_000):
        while number > 1:
            number //= table[number]
            total += 1
    return total


def dear_first() -> tuple[Callable[[int], int], list[int]]:
    return total_factors, list(range(2, 1_800_000, 30_000))


WORKLOADS = (
    Workload(
        "trivial_100k", "trivial, many items", trivial, "a5e3913f73e6", checked=1000, quick=True
    ),
    Workload("few_short", "few short items", few_short, "be52782d5532", checked=20, quick=True),
    Workload("one_item", "one item", one_item, "f474b2617b99", checked=1),
    Workload("dear_first", "dear first item", dear_first, "f259e7d589c3"),
)
