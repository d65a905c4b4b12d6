"""Pure Python work: threads cannot help it where there is a GIL, processes can.

The shapes matter to a scheduler: even items forgive large chunks, uneven ones do not, and a rising
or falling cost misleads an extrapolation from the first items.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks.routing.workloads.definition import Workload


def count_primes(start: int) -> int:
    """Primes among the next 4,000 numbers, by trial division: the same cost for nearby windows."""
    found = 0
    for number in range(start, start + 4000):
        divisor = 2
        while divisor * divisor <= number:
            if number % divisor == 0:
                break
            divisor += 1
        else:
            found += 1
    return found


def even() -> tuple[Callable[[int], int], list[int]]:
    return count_primes, [100_000 + 4000 * step for step in range(90)]


def count_queens(size: int, columns: int = 0, rising: int = 0, falling: int = 0) -> int:
    """Ways to place `size` queens on a board without attack."""
    full = (1 << size) - 1
    if columns == full:
        return 1
    ways = 0
    free = full & ~(columns | rising | falling)
    while free:
        place = free & -free
        free ^= place
        ways += count_queens(
            size, columns | place, ((rising | place) << 1) & full, (falling | place) >> 1
        )
    return ways


def uneven() -> tuple[Callable[[int], int], list[int]]:
    sizes = [11] * 5 + [10] * 20 + [9] * 40 + [7] * 60
    random.Random(1).shuffle(sizes)
    return count_queens, sizes


def edit_distance(length: int) -> int:
    """Levenshtein distance of two words of `length` letters: quadratic in it."""
    source = random.Random(length)
    left = source.choices("abcd", k=length)
    right = source.choices("abcd", k=length)
    row = list(range(length + 1))
    for i, letter in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            best = diagonal if letter == other else diagonal + 1
            diagonal = row[j]
            if diagonal + 1 < best:
                best = diagonal + 1
            if row[j - 1] + 1 < best:
                best = row[j - 1] + 1
            row[j] = best
    return row[length]


def ascending() -> tuple[Callable[[int], int], list[int]]:
    return edit_distance, list(range(8, 648, 8))[:60]


def descending() -> tuple[Callable[[int], int], list[int]]:
    return edit_distance, list(range(8, 648, 8))[:60][::-1]


WORKLOADS = (
    Workload("py_even", "pure Python, even", even, "4b3a0520dcff", quick=True),
    Workload("py_uneven", "pure Python, uneven", uneven, "8bae3a89a9f7"),
    Workload("py_ascending", "pure Python, ascending", ascending, "b8613db5a364", checked=20),
    Workload("py_descending", "pure Python, descending", descending, "111f08f731a8"),
)
