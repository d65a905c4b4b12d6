"""How executors end with the program that made them, and in forked copies of it.

Guarantees: calls that were submitted are finished before the interpreter exits, as the standard
library's pools do it; after that nothing more can be submitted; a forked copy of the program never
touches the workers of its parent.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol

__all__ = ["Engine", "exiting", "keep"]


class Engine(Protocol):
    """What runs an executor's calls."""

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; end when all are done."""

    def forget(self) -> None:
        """Drop everything without ending it: this process is a forked copy of the owner's."""


_engines: weakref.WeakSet[Any] = weakref.WeakSet()
_exiting = False


def keep(engine: Engine) -> None:
    """Have an engine finish its work at the interpreter's exit."""
    _engines.add(engine)


def exiting() -> bool:
    """Whether the interpreter is on its way out: nothing can be submitted any more."""
    return _exiting


def _finish_all() -> None:
    global _exiting  # noqa: PLW0603 - a fact about the process
    _exiting = True
    for engine in list(_engines):
        engine.shutdown(wait=True, cancel=False)


def _after_fork() -> None:
    for engine in list(_engines):
        engine.forget()
    _engines.clear()


# Not atexit: by then the interpreter would wait for ever for threads, and start no new ones.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
