"""How many examples hypothesis draws: a third by default, all in `make test-full`.

Each run draws others, so what a third of them misses today is found on another day.
"""

from __future__ import annotations

import os

__all__ = ["examples"]


def examples(count: int) -> int:
    """What to give as ``max_examples``."""
    return count if os.environ.get("TEST_EXAMPLES") == "all" else max(count // 3, 5)
