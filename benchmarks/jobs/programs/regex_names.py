"""Names found fuzzily in texts, with the regex package."""

from __future__ import annotations

import random

import regex

NAME = regex.compile(r"(?:\b\p{Lu}\p{Ll}+\s+){1,3}(?:von|van|de)\s+\p{Lu}\p{Ll}+")


def work(text: str) -> list[str]:
    return [match.group() for match in NAME.finditer(text)]


def items() -> list[str]:
    source = random.Random(2)
    words = ["Anna", "Berta", "von", "de", "Berg", "said", "and", "went", "home", "Carl", "to"]
    return [" ".join(source.choices(words, k=4000)) for _ in range(150)]
