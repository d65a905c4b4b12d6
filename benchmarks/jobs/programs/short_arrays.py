"""Many calls on short arrays, with NumPy."""

from __future__ import annotations

import numpy as np


def work(seed: int) -> float:
    source = np.random.default_rng(seed)
    position, speed = source.random(3), source.random(3)
    for _ in range(120):
        force = -position / np.linalg.norm(position) ** 3
        speed = speed + 0.01 * force
        position = position + 0.01 * speed
    return float(np.round(position.sum(), 9))


def items() -> list[int]:
    return list(range(150))
