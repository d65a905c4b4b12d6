"""The backends, and start methods, that contract tests run on."""

from __future__ import annotations

import sys

#: Interpreters of this process, where there are any.
INTERPRETERS = ("interpreters",) if sys.version_info >= (3, 14) else ()

VARIANTS = ("serial", "threads", "processes", "auto", "spawn", "executor", *INTERPRETERS)

#: Items run in the caller's own process.
INSIDE = ("serial", "threads", "executor")

#: Items always run in other processes.
OUTSIDE = ("processes", "spawn")


def notes_of(error):
    """The notes of an exception, on 3.10 too."""
    return getattr(error, "__notes__", [])
