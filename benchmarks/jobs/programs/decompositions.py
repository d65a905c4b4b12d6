"""Singular values of matrices, with NumPy and its BLAS."""

from __future__ import annotations

import numpy as np


def work(seed: int) -> list[float]:
    matrix = np.random.default_rng(seed).random((60, 40))
    return [float(value) for value in np.round(np.linalg.svd(matrix)[1][:3], 6)]


def items() -> list[int]:
    return list(range(110))
