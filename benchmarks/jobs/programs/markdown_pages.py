"""Pages of a manual into HTML, with markdown."""

from __future__ import annotations

import markdown


def work(text: str) -> str:
    return markdown.markdown(text, extensions=["tables", "fenced_code"])


def items() -> list[str]:
    return [
        f"# Page {number}\n\n"
        + "\n\n".join(f"* point *{n}* with `code` and [link](/p{n})" for n in range(7))
        for number in range(110)
    ]
