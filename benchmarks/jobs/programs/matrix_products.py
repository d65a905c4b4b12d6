"""Powers of matrices of whole numbers, with NumPy and its BLAS."""

from __future__ import annotations

import numpy as np


def work(seed: int) -> int:
    matrix = np.random.default_rng(seed).integers(0, 9, (100, 100)).astype(float)
    product = matrix
    for _ in range(5):
        product = (product @ matrix) % 97
    return int(product.sum())


def items() -> list[int]:
    return list(range(110))
