"""Which files are parallax's own: tracebacks and stacks leave them out."""

from __future__ import annotations

import os

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_INSIDE = FOLDER + os.sep


def is_own(filename: str) -> bool:
    """Whether a code object's file belongs to this package."""
    return filename.startswith(_INSIDE)
