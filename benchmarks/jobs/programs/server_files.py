"""Pages of a local server, with the standard library's urllib."""

from __future__ import annotations

import urllib.request

from benchmarks.routing.workloads.http_server import serve


def work(address: str) -> int:
    with urllib.request.urlopen(address, timeout=30) as reply:
        return sum(reply.read()) % 1009


def items() -> list[str]:
    port = serve(thinking=0.001)
    return [f"http://127.0.0.1:{port}/{number}" for number in range(100)]
