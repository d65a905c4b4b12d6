"""Differential equations, with scipy."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp


def swing(_: float, state: np.ndarray) -> list[float]:
    return [state[1], -0.1 * state[1] - 9.81 * np.sin(state[0])]


def work(angle: float) -> list[float]:
    solved = solve_ivp(swing, (0.0, 1.2), [angle, 0.0])
    return [float(value) for value in np.round(solved.y[:, -1], 6)]


def items() -> list[float]:
    return [0.1 + 0.02 * n for n in range(160)]
