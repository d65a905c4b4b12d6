"""The columns that SQL statements read, with sqlglot."""

from __future__ import annotations

import sqlglot
from sqlglot import exp


def work(statement: str) -> list[str]:
    tree = sqlglot.parse_one(statement)
    return sorted({column.sql() for column in tree.find_all(exp.Column)})


def items() -> list[str]:
    return [
        "select "
        + ", ".join(f"a.c{n} + coalesce(b.d{n}, {n}) as e{n}" for n in range(6))
        + f" from a join b on a.id = b.id where a.x > {number} group by a.c1 having sum(b.d2) > 3"
        for number in range(110)
    ]
