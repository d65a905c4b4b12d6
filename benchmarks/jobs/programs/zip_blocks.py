"""Blocks compressed and restored, with the standard library's zlib."""

from __future__ import annotations

import random
import zlib


def work(block: bytes) -> int:
    packed = zlib.compress(block, 6)
    return len(packed) + zlib.crc32(zlib.decompress(packed))


def items() -> list[bytes]:
    source = random.Random(6)
    words = [source.randbytes(5).hex().encode() for _ in range(600)]
    return [b" ".join(source.choices(words, k=4500)) for _ in range(90)]
