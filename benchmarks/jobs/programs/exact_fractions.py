"""Sums of exact fractions, with the standard library."""

from __future__ import annotations

from fractions import Fraction


def work(length: int) -> str:
    return str(sum((Fraction(n % 17 + 1, n * n) for n in range(1, length)), Fraction(0)))


def items() -> list[int]:
    return [270 + n % 40 for n in range(130)]
