"""Derivatives and simplifications, with sympy."""

from __future__ import annotations

import sympy

X = sympy.Symbol("x")


def work(power: int) -> str:
    expression = sympy.sin(X) ** 2 * X**power + sympy.exp(X * power) / (X + power)
    return str(sympy.expand(expression.diff(X)))


def items() -> list[int]:
    return list(range(2, 18))
