"""Source code into coloured HTML, with pygments."""

from __future__ import annotations

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer


def work(source: str) -> str:
    return highlight(source, PythonLexer(), HtmlFormatter())


def items() -> list[str]:
    return [
        "\n".join(f"def f{n}(x: int) -> str:\n    return 'a' * {n}  # {number}" for n in range(4))
        for number in range(80)
    ]
