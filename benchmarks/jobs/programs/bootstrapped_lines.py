"""Regressions on resampled data, with statsmodels."""

from __future__ import annotations

import numpy as np
import statsmodels.api as sm

SOURCE = np.random.default_rng(0)
X = sm.add_constant(SOURCE.random((250, 4)))
Y = X @ np.arange(5.0) + SOURCE.normal(0.0, 0.1, 250)


def work(seed: int) -> list[float]:
    rows = np.random.default_rng(seed).integers(0, 250, 250)
    fitted = sm.OLS(Y[rows], X[rows]).fit()
    return [float(value) for value in np.round(fitted.params, 6)]


def items() -> list[int]:
    return list(range(250))
