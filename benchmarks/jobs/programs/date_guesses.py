"""Dates in many formats, with dateutil."""

from __future__ import annotations

from dateutil import parser

FORMATS = ("{d} Mar 20{y:02} 10:0{h}", "20{y:02}-03-{d:02}T0{h}:00:00Z", "March {d}, 20{y:02}")


def work(texts: list[str]) -> list[str]:
    return [parser.parse(text).isoformat() for text in texts]


def items() -> list[list[str]]:
    return [
        [FORMATS[n % 3].format(d=n % 28 + 1, y=row % 30, h=n % 10) for n in range(24)]
        for row in range(110)
    ]
