"""Small records compressed one by one, with zstandard."""

from __future__ import annotations

import json

import zstandard


def work(records: list[dict[str, int]]) -> int:
    packer = zstandard.ZstdCompressor(level=3)
    return sum(len(packer.compress(json.dumps(record).encode())) for record in records)


def items() -> list[list[dict[str, int]]]:
    return [[{"id": n, "value": n * k, "k": k} for n in range(250)] for k in range(150)]
