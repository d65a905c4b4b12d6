"""Group sums of data frames, with pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd

SALES = pd.DataFrame(
    {
        "shop": np.arange(20_000) % 50,
        "item": np.arange(20_000) % 700,
        "price": np.arange(20_000) % 9.5,
    }
)


def work(shop: int) -> list[float]:
    part = SALES[SALES["shop"] % 25 == shop % 25]
    best = part.groupby("item")["price"].agg(["sum", "mean"]).sort_values("sum").tail(3)
    return [float(value) for value in best.to_numpy().ravel()]


def items() -> list[int]:
    return list(range(120))
