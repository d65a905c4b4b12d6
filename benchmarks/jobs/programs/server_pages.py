"""Pages of a local server, with requests."""

from __future__ import annotations

import hashlib

import requests

from benchmarks.routing.workloads.http_server import serve


def work(address: str) -> str:
    return hashlib.sha256(requests.get(address, timeout=30).content).hexdigest()


def items() -> list[str]:
    port = serve(thinking=0.002)
    return [f"http://127.0.0.1:{port}/{number}" for number in range(60)]
