"""Branches per function of source files, with the standard library's ast."""

from __future__ import annotations

import ast

BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.BoolOp)


def work(source: str) -> dict[str, int]:
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    return {f.name: sum(isinstance(n, BRANCHES) for n in ast.walk(f)) for f in functions}


def items() -> list[str]:
    return [
        "\n".join(
            f"def f{n}(a, b):\n    if a and b > {number}:\n"
            "        for c in b:\n            a += c\n"
            "    return [x * 2 for x in a if x]\n"
            for n in range(14)
        )
        for number in range(150)
    ]
