"""How executors end with the program that created them, and in forked copies of that program.

Guarantees: submitted calls are finished before the interpreter exits, as with the standard
library's pools, except that an exit by Ctrl-C ends them; afterwards no call can be submitted; a
forked copy of the program never touches the workers of its parent.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref

from parallax._core.deferred_signals import Shield
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.weak_table import WeakTable

if TYPE_CHECKING:
    from parallax._backends.contract import Engine


class Lifetime:
    """The engine of an executor, and the maps that submit calls to the engine."""

    def __init__(self, owner: object, engine: Engine) -> None:
        """Have the engine end with its owner, or with the program.

        Args:
            owner: the executor.
            engine: the engine of the executor; must not refer to the owner.
        """
        self.engine = engine
        #: maps whose input is not completely submitted yet.
        self.maps = WeakTable()
        # Not this object: it refers to the engine, which would then live for ever.
        _open_engines.add(engine, self.maps)
        if _exiting:
            engine.shutdown(wait=False, cancel=False)
        weakref.finalize(owner, self.shutdown, wait=False, cancel=False).atexit = False

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Shut the engine down, after the rest of all maps was submitted, or was dropped.

        Args:
            wait: return only when all calls are done.
            cancel: drop the rest of all maps, and cancel the calls that have not begun.
        """
        _shutdown(self.engine, self.maps, wait=wait, cancel=cancel)

    def stop(self) -> None:
        """End all calls that can be ended, as after Ctrl-C."""
        _stop(self.engine, self.maps)


def _stop(engine: Engine, maps: WeakTable) -> None:
    with Shield():
        for each, _ in maps.living():
            each.close()
        engine.stop()


def _shutdown(engine: Engine, maps: WeakTable, *, wait: bool, cancel: bool) -> None:
    for each, _ in maps.living():
        if cancel:
            each.close()
        else:
            each.submit_rest()
    if wait:
        engine.shutdown(wait=True, cancel=cancel)
        return
    with Shield():
        engine.shutdown(wait=False, cancel=cancel)


#: The maps of each engine. Engines live as long as they have something to do.
_open_engines = WeakTable()
_exiting = False


def _finish_all() -> None:
    global _exiting  # noqa: PLW0603 - state of the process
    _exiting = True
    for engine, maps in _open_engines.living():
        if _interrupted():
            _stop(engine, maps)
        else:
            _shutdown(engine, maps, wait=True, cancel=False)


def _interrupted() -> bool:
    """Whether the program ends by Ctrl-C, as far as can be seen from here."""
    # In an interactive session it may have been an earlier line that was interrupted.
    return getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")


def _after_fork() -> None:
    for engine, maps in _open_engines.living():
        for each, _ in maps.living():
            each.forget()  # the parent submits the rest of them
        maps.clear()
        engine.forget()


# Not atexit: by then the interpreter would wait for ever for threads, and start no new ones.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
