"""The types whose values unpickle without running anybody's code."""

from __future__ import annotations

PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})
