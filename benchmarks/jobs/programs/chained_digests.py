"""Chains of digests of short texts, as in a tree of hashes."""

from __future__ import annotations

import hashlib


def work(seed: int) -> str:
    leaves = [hashlib.sha256(b"%d %d" % (seed, leaf)).digest() for leaf in range(1024)]
    while len(leaves) > 1:
        pairs = zip(leaves[::2], leaves[1::2], strict=True)
        leaves = [hashlib.sha256(one + other).digest() for one, other in pairs]
    return leaves[0].hex()


def items() -> list[int]:
    return list(range(110))
