"""Digests of blocks, with the standard library's hashlib."""

from __future__ import annotations

import hashlib
import random


def work(block: bytes) -> str:
    return hashlib.sha256(block).hexdigest() + hashlib.blake2b(block).hexdigest()


def items() -> list[bytes]:
    source = random.Random(7)
    return [source.randbytes(700_000) for _ in range(90)]
