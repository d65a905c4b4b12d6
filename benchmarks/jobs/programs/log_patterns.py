"""Fields of log lines, with the standard library's re."""

from __future__ import annotations

import re

LINE = re.compile(r'^(\S+) \S+ (\S+) \[([^\]]+)\] "(GET|POST) ([^"\s]+)[^"]*" (\d{3}) (\d+)$', re.M)


def work(log: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for match in LINE.finditer(log):
        path = match[5].split("?")[0]
        sizes[path] = sizes.get(path, 0) + int(match[7])
    return sizes


def items() -> list[str]:
    return [
        "\n".join(
            f'10.0.{n % 9}.{n} - u{n} [10/Oct/2000:13:55:{n % 60}] "GET /p{n % 30}?q={n} HTTP/1.0" '
            f"200 {n * number % 9999}"
            for n in range(900)
        )
        for number in range(150)
    ]
