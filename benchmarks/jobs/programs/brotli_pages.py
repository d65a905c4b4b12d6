"""Pages compressed for the web, with brotli."""

from __future__ import annotations

import brotli


def work(page: bytes) -> int:
    return len(brotli.compress(page, quality=6))


def items() -> list[bytes]:
    return [
        b"".join(b"<p>line %d of page %d: %d</p>" % (n, page, n * page) for n in range(2200))
        for page in range(100)
    ]
