"""Curves fitted to measurements, with scipy."""

from __future__ import annotations

import numpy as np
from scipy.optimize import curve_fit

TIMES = np.linspace(0.0, 4.0, 60)


def decay(times: np.ndarray, height: float, rate: float, floor: float) -> np.ndarray:
    return height * np.exp(-rate * times) + floor


def work(seed: int) -> list[float]:
    noise = np.random.default_rng(seed).normal(0.0, 0.05, TIMES.size)
    found, _ = curve_fit(decay, TIMES, decay(TIMES, 2.5, 1.3, 0.5) + noise)
    return [float(value) for value in np.round(found, 4)]


def items() -> list[int]:
    return list(range(180))
