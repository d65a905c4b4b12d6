"""Constants to many digits, with mpmath."""

from __future__ import annotations

import mpmath


def work(argument: int) -> str:
    with mpmath.workdps(60):
        return mpmath.nstr(mpmath.zeta(mpmath.mpf(argument) / 7 + 2), 50)


def items() -> list[int]:
    return list(range(150))
