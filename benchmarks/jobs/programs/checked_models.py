"""Records checked and converted, with pydantic."""

from __future__ import annotations

import json
from datetime import date

from pydantic import BaseModel


class Line(BaseModel):
    sku: str
    amount: int
    price: float


class Order(BaseModel):
    number: int
    day: date
    lines: list[Line]


def work(document: str) -> float:
    orders = [Order.model_validate(each) for each in json.loads(document)]
    return sum(line.amount * line.price for order in orders for line in order.lines)


def items() -> list[str]:
    lines = [{"sku": f"s{n}", "amount": str(n), "price": 0.25 * n} for n in range(12)]
    return [
        json.dumps(
            [{"number": n, "day": f"2024-01-{n % 28 + 1:02}", "lines": lines} for n in range(30)]
        )
        for _ in range(120)
    ]
