"""The ways in which contract tests run, and what is known of each."""

from __future__ import annotations

WAYS = ("serial", "threads", "processes", "auto", "spawn", "executor")

#: Items run in the caller's own process.
INSIDE = ("serial", "threads", "executor")

#: Items always run in other processes.
OUTSIDE = ("processes", "spawn")


def notes_of(error):
    """The notes of an exception, on 3.10 too."""
    return getattr(error, "__notes__", [])
