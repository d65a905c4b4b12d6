"""Questions to an analytical database in memory, with duckdb."""

from __future__ import annotations

import duckdb


def work(seed: int) -> list[tuple[object, ...]]:
    with duckdb.connect(config={"threads": 1}) as database:
        return database.execute(
            f"select n % 7 as k, sum(n * {seed}) from range(3000) t(n) group by k order by k"
        ).fetchall()


def items() -> list[int]:
    return list(range(8))
