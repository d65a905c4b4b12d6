"""Formulas evaluated by a grammar, with lark."""

from __future__ import annotations

import lark

GRAMMAR = r"""
?sum: product (("+" | "-") product)*
?product: atom (("*" | "/") atom)*
?atom: NUMBER | "(" sum ")"
NUMBER: /\d+/
%ignore " "
"""
PARSER = lark.Lark(GRAMMAR, start="sum", parser="lalr")


def work(formula: str) -> int:
    tokens = PARSER.parse(formula).scan_values(lambda v: isinstance(v, lark.Token))
    return sum(int(token) for token in tokens)


def items() -> list[str]:
    return [" + ".join(f"({n} * {number} - {n})" for n in range(12)) for number in range(110)]
