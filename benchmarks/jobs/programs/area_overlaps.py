"""Common areas of polygons, with shapely."""

from __future__ import annotations

import math

from shapely.geometry import Polygon


def work(number: int) -> list[float]:
    found = []
    for turn in range(2):
        star = make_star(0.0, turn / 4)
        found.append(round(star.intersection(make_star(number / 50, 0.0)).area, 9))
    return found


def make_star(x: float, turn: float) -> Polygon:
    points = []
    for n in range(60):
        radius, angle = 1.0 + 0.4 * (n % 2), turn + 2 * math.pi * n / 60
        points.append((x + radius * math.cos(angle), radius * math.sin(angle)))
    return Polygon(points)


def items() -> list[int]:
    return list(range(110))
