"""Rows out of the tables of HTML pages."""

from __future__ import annotations

import random

from lxml import html


def work(page: str) -> list[tuple[str, int]]:
    tree = html.fromstring(page)
    rows = []
    for row in tree.xpath("//table[@class='prices']//tr[td]"):
        cells = [cell.text_content().strip() for cell in row.xpath("./td")]
        rows.append((cells[0], sum(int(cell) for cell in cells[1:])))
    return rows


def items() -> list[str]:
    source = random.Random(1)
    pages = []
    for number in range(160):
        rows = "".join(
            f"<tr><td>item {number}-{row}</td>"
            + "".join(f"<td><b>{source.randrange(1000)}</b></td>" for _ in range(6))
            + "</tr>"
            for row in range(20)
        )
        pages.append(f"<html><body><table class='prices'>{rows}</table></body></html>")
    return pages
