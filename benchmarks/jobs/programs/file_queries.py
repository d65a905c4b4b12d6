"""Questions to a database file, each with a connection of its own."""

from __future__ import annotations

import atexit
import sqlite3
import tempfile
from pathlib import Path

FOLDER = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
FILE = Path(FOLDER.name) / "sales.db"


def work(shop: int) -> list[tuple[int, int]]:
    database = sqlite3.connect(FILE)
    try:
        return database.execute(
            "select day, sum(price) from sale where shop = ? group by day order by 2 desc limit 5",
            (shop % 40,),
        ).fetchall()
    finally:
        database.close()


def items() -> list[int]:
    database = sqlite3.connect(FILE)
    database.execute("create table sale (shop integer, day integer, price integer)")
    database.executemany(
        "insert into sale values (?, ?, ?)",
        [(n % 40, n % 365, n % 97) for n in range(16_000)],
    )
    database.commit()
    database.close()
    atexit.register(FOLDER.cleanup)
    return list(range(110))
