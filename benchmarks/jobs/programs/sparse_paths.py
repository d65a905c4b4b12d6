"""Distances in sparse matrices, with scipy."""

from __future__ import annotations

import numpy as np
from scipy.sparse import random as random_matrix
from scipy.sparse.csgraph import dijkstra


def work(seed: int) -> float:
    matrix = random_matrix(400, 400, 0.02, "csr", random_state=np.random.default_rng(seed))
    distances = dijkstra(matrix, indices=range(8))
    return float(distances[np.isfinite(distances)].max().round(9))


def items() -> list[int]:
    return list(range(150))
