"""Differences between versions of texts, with the standard library's difflib."""

from __future__ import annotations

import difflib


def work(versions: tuple[list[str], list[str]]) -> list[str]:
    return list(difflib.unified_diff(*versions, lineterm=""))


def items() -> list[tuple[list[str], list[str]]]:
    made = []
    for number in range(120):
        old = [f"line {n * number % 97} of {n}" for n in range(220)]
        new = [line for n, line in enumerate(old) if n % 11] + ["the end"]
        made.append((old, new))
    return made
