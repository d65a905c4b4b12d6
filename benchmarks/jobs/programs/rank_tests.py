"""Rank tests of samples, with scipy."""

from __future__ import annotations

import numpy as np
from scipy import stats


def work(seed: int) -> list[float]:
    source = np.random.default_rng(seed)
    one, other = source.normal(0.0, 1.0, 300), source.normal(0.1, 1.2, 300)
    values = [
        stats.mannwhitneyu(one, other).pvalue,
        stats.ks_2samp(one, other).pvalue,
        stats.spearmanr(one, other).statistic,
    ]
    return [float(value) for value in np.round(values, 8)]


def items() -> list[int]:
    return list(range(100))
