"""A small forest per seed, with scikit-learn."""

from __future__ import annotations

from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

FEATURES, CLASSES = make_classification(150, 8, random_state=0)


def work(seed: int) -> int:
    forest = RandomForestClassifier(2, max_depth=4, random_state=seed).fit(FEATURES, CLASSES)
    return int(forest.predict(FEATURES).sum())


def items() -> list[int]:
    return list(range(40))
