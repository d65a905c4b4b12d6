"""Stems of words, with nltk."""

from __future__ import annotations

import random

from nltk.stem import PorterStemmer

STEMMER = PorterStemmer()


def work(text: str) -> list[str]:
    return sorted({STEMMER.stem(word) for word in text.split()})


def items() -> list[str]:
    source = random.Random(3)
    stems = ["connect", "relat", "general", "operat", "adjust", "hope", "sens", "activ", "form"]
    ends = ["ing", "ed", "ation", "ational", "izer", "fulness", "iveness", "able", "ality", "s"]
    return [
        " ".join(source.choice(stems) + source.choice(ends) for _ in range(110)) for _ in range(110)
    ]
