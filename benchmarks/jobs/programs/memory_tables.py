"""Tables filled and asked in memory, with the standard library's sqlite3."""

from __future__ import annotations

import sqlite3


def work(seed: int) -> list[tuple[int, int]]:
    database = sqlite3.connect(":memory:")
    database.execute("create table sale (shop integer, price integer)")
    rows = [(n % 20, n * seed % 1000) for n in range(900)]
    database.executemany("insert into sale values (?, ?)", rows)
    found = database.execute(
        "select shop, sum(price) from sale group by shop order by 2"
    ).fetchall()
    database.close()
    return found


def items() -> list[int]:
    return list(range(110))
