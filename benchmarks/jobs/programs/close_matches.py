"""The closest of many names, with rapidfuzz."""

from __future__ import annotations

import random

from rapidfuzz import fuzz, process

SOURCE = random.Random(4)
NAMES = ["".join(SOURCE.choices("abcdefgh ", k=24)) for _ in range(1500)]


def work(name: str) -> list[str]:
    return [found for found, _, _ in process.extract(name, NAMES, scorer=fuzz.WRatio, limit=3)]


def items() -> list[str]:
    return ["".join(SOURCE.choices("abcdefgh ", k=22)) for _ in range(90)]
