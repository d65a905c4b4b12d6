"""Quantiles and medians, with the standard library."""

from __future__ import annotations

import random
import statistics


def work(seed: int) -> list[float]:
    source = random.Random(seed)
    values = [source.gauss(0.0, 1.0) for _ in range(1500)]
    return [statistics.median(values), statistics.pstdev(values), *statistics.quantiles(values)]


def items() -> list[int]:
    return list(range(100))
