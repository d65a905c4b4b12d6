"""Objects of which no copy can be made in another place."""

from __future__ import annotations


class Stuck:
    def __reduce__(self):
        raise ValueError("no copies")


class Unreadable:
    def __reduce__(self):
        return int, ("one",)
