"""Programs that import much at their top: a worker that starts anew would import it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.routing.workloads.definition import Workload
from benchmarks.routing.workloads.pure_python import count_primes


def heavy_python() -> tuple[Callable[[int], int], list[int]]:
    return count_primes, [90_000 + 3000 * step for step in range(60)]


def encode_rows(seed: int) -> int:
    """C code that holds the GIL."""
    rows = [
        {"name": f"row {row}", "value": row * seed % 97, "tags": ["a", "b"]} for row in range(1500)
    ]
    return len(json.dumps(rows))


def heavy_json() -> tuple[Callable[[int], int], list[int]]:
    return encode_rows, list(range(80))


def summarize(seed: int) -> float:
    """A small table: many short calls into pandas, most of which is Python."""
    values = np.arange(600) * seed % 101
    frame = pd.DataFrame({"group": values % 7, "value": values})
    means = frame.groupby("group")["value"].mean()
    return float(means.sort_values().iloc[-1] + frame["value"].rolling(5).sum().max())


def heavy_tables() -> tuple[Callable[[int], float], list[int]]:
    return summarize, list(range(1, 161))


def pick(table: Any, seed: int) -> int:
    return int(table["value"].to_numpy()[seed::97].sum()) + count_primes(60_000 + seed)


class Picker:
    """A bound method whose object holds a table of 40 MB."""

    def __init__(self, rows: int) -> None:
        self.table = pd.DataFrame({"key": np.arange(rows), "value": np.arange(rows) % 1009})

    def __call__(self, seed: int) -> int:
        return pick(self.table, seed)


def heavy_method() -> tuple[Callable[[int], int], list[int]]:
    return Picker(2_500_000), list(range(60))


WORKLOADS = (
    Workload("heavy_python", "pandas imported, pure Python", heavy_python),
    Workload("heavy_json", "pandas imported, C with the GIL", heavy_json),
    Workload("heavy_tables", "pandas imported, small tables", heavy_tables),
    Workload("heavy_method", "pandas imported, 40 MB in the object", heavy_method),
)
