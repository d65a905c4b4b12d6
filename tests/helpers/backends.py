"""The backends, and start methods, that contract tests run on."""

from __future__ import annotations

VARIANTS = ("serial", "threads", "processes", "auto", "spawn", "executor")

#: Items run in the caller's own process.
INSIDE = ("serial", "threads", "executor")

#: Items always run in other processes.
OUTSIDE = ("processes", "spawn")


def notes_of(error):
    """The notes of an exception, on 3.10 too."""
    return getattr(error, "__notes__", [])
