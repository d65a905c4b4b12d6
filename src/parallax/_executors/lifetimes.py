"""How executors end with the program that made them, and in forked copies of it.

Guarantees: calls that were submitted are finished before the interpreter exits, as the standard
library's pools do it, but for an exit by Ctrl-C, which ends them; after that nothing more can be
submitted; a forked copy of the program never
touches the workers of its parent.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any, Protocol

from parallax._core.deferred_signals import Shield

__all__ = ["Life"]


class Engine(Protocol):
    """What runs an executor's calls."""

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; end when all are done."""

    def stop(self) -> None:
        """End all calls that can be ended, and the engine; waits for no call."""

    def forget(self) -> None:
        """Drop everything without ending it: this process is a forked copy of the owner's."""


class Life:
    """The engine of an executor, and the maps that feed it."""

    def __init__(self, owner: object, engine: Engine) -> None:
        """Have the engine end with its owner, or with the program.

        Args:
            owner: the executor.
            engine: what runs its calls; must not refer to the owner.
        """
        self.engine = engine
        #: maps whose input is not all submitted yet.
        self.feeds: weakref.WeakSet[Any] = weakref.WeakSet()
        # Not this object: it refers to the engine, which would so live for ever.
        _lives[engine] = self.feeds
        if _exiting:
            engine.shutdown(wait=False, cancel=False)
        weakref.finalize(owner, self.end, wait=False, cancel=False).atexit = False

    def end(self, *, wait: bool, cancel: bool) -> None:
        """Shut the engine down; what maps have left is worked through first, or dropped."""
        _end(self.engine, self.feeds, wait=wait, cancel=cancel)

    def leave(self, kind: type[BaseException] | None) -> None:
        """A ``with`` block is over; after Ctrl-C its calls are ended, not waited for.

        Args:
            kind: the type of the exception that ended it, if one did.
        """
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            _stop(self.engine, self.feeds)


def _stop(engine: Engine, feeds: weakref.WeakSet[Any]) -> None:
    with Shield():
        for feed in list(feeds):
            feed.close()
        engine.stop()


def _end(engine: Engine, feeds: weakref.WeakSet[Any], *, wait: bool, cancel: bool) -> None:
    for feed in list(feeds):
        if cancel:
            feed.close()
        else:
            feed.submit_rest()
    if wait:
        engine.shutdown(wait=True, cancel=cancel)
        return
    with Shield():
        engine.shutdown(wait=False, cancel=cancel)


#: Engines live as long as they have something to do, and the maps that feed each one.
_lives: weakref.WeakKeyDictionary[Any, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()
_exiting = False


def _finish_all() -> None:
    global _exiting  # noqa: PLW0603 - a fact about the process
    _exiting = True
    for engine, feeds in list(_lives.items()):
        if _interrupted():
            _stop(engine, feeds)
        else:
            _end(engine, feeds, wait=True, cancel=False)


def _interrupted() -> bool:
    """Whether the program ends by Ctrl-C, as far as can be seen from here."""
    # Where somebody types, it may have been an earlier line that was interrupted.
    return getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")


def _after_fork() -> None:
    for engine, feeds in list(_lives.items()):
        # The parent submits what they have left.
        for feed in list(feeds):
            feed.forget()
        feeds.clear()
        engine.forget()


# Not atexit: by then the interpreter would wait for ever for threads, and start no new ones.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
