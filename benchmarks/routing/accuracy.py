"""How near parallax's predictions are to what happened, of all workloads of a run.

The order of the routes is the truth where each was forced once (`--forced`); two that took nearly
as long may be told either way round.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.routing.table import Row
from benchmarks.routing.ways import FORCED, LOOP, PARALLAX

#: Routes whose times differ by less than this part are no order: single samples differ as much.
SAME = 0.1


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """The error of what the last choice promised, and the workloads whose routes were misjudged."""
    errors = [
        abs(facts["predicted"] / facts["first"] - 1)
        for row in rows
        for facts in _facts(row)
        if facts.get("predicted")
    ]
    orders = {
        row.workload.name: right for row in rows if (right := order_is_right(row)) is not None
    }
    return {
        "predicted": len(errors),
        "median_error": statistics.median(errors) if errors else None,
        "ordered": len(orders),
        "order_right": sum(orders.values()) / len(orders) if orders else None,
        "misjudged": [name for name, right in orders.items() if not right],
    }


def order_is_right(row: Row) -> bool | None:
    """Whether the estimates of the routes have the order of their times; None if unknown."""
    actual = {way.removeprefix(f"{PARALLAX}-"): row.median(way, "first") for way in (LOOP, *FORCED)}
    pairs = [
        (facts["costs"][a] < facts["costs"][b], actual[a], actual[b])
        for facts in _facts(row)
        for a, b in itertools.combinations(facts.get("costs", ()), 2)
    ]
    known = [(said, one, two) for said, one, two in pairs if one and two]
    apart = [
        said == (one < two) for said, one, two in known if abs(one - two) > SAME * min(one, two)
    ]
    return all(apart) if known else None


def lines(found: dict[str, Any]) -> list[str]:
    """What was found, for people."""
    told = []
    if found["predicted"]:
        told.append(
            f"time predicted by the last choice: median error {found['median_error']:.0%} "
            f"({found['predicted']} calls)"
        )
    if found["ordered"]:
        wrong = ", ".join(found["misjudged"]) or "none"
        told.append(
            f"order of the routes right in {found['order_right']:.0%} of {found['ordered']} "
            f"workloads; wrong: {wrong}"
        )
    return told


def _facts(row: Row) -> list[dict[str, Any]]:
    return [s.facts for s in row.samples if s.side == PARALLAX and row.is_right(s)]
