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
from parallax._reporting.unread import log_unread

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallax._backends.contract import Engine


class Maps:
    """The maps of one executor, and the errors of inputs that nobody got.

    An error is held as the name of the callable, the error, and whether it was logged.
    """

    def __init__(self) -> None:
        #: whose iterators exist.
        self.live = WeakTable()
        self._unread: list[tuple[str, BaseException, bool]] = []
        #: the program is inside a ``with`` block, whose end raises such an error.
        self.in_block = False
        #: it leaves the block by an error of its own, which is not to be replaced.
        self.failing = False

    def dropped(self, name: str, error: BaseException, *, begun: bool) -> None:
        """An iterator is gone. Its reader, if there was one, did not get the input's error."""
        log = begun or not self.in_block
        if log:
            log_unread(name, error)
            error = error.with_traceback(None)  # which would keep the program's frames alive
        if not begun:
            self._unread.append((name, error, log))

    def take_unread(self, *, ending: bool = False) -> list[tuple[str, BaseException, bool]]:
        """Those errors, for somebody to be told; with ``ending`` those left to readers, too."""
        unread, self._unread = self._unread, []
        untold = [each.take_untold(ending) for each, _ in self.live.living()]
        return unread + [(*each, False) for each in untold if each]

    def raise_unread(self) -> None:
        """Raise the first of those errors and log the others."""
        unread = self.take_unread()
        try:
            _log(unread if self.failing else unread[1:])
            if unread and not self.failing:
                raise unread[0][1]
        finally:
            del unread  # a traceback refers to this frame


def _log(unread: list[tuple[str, BaseException, bool]]) -> None:
    for name, error, logged in unread:
        if not logged:
            log_unread(name, error)


class Lifetime:
    """The engine of an executor, and the maps that submit calls to the engine."""

    def __init__(self, owner: object, engine: Engine) -> None:
        """Have the engine end with its owner, or with the program.

        Args:
            owner: the executor.
            engine: the engine of the executor; must not refer to the owner.
        """
        self.engine = engine
        self.maps = Maps()
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

    def end_workers(self, end: Callable[[Any], object]) -> None:
        """End the worker processes, each by ``end``, and the maps; the engine goes on."""
        for each, _ in self.maps.live.living():
            each.cut()
        self.engine.end_workers(end)

    def stop(self) -> None:
        """End all calls that can be ended, as after Ctrl-C."""
        _stop(self.engine, self.maps)


def _stop(engine: Engine, maps: Maps) -> None:
    with Shield():
        for each, _ in maps.live.living():
            each.cut()
        engine.stop()


def _shutdown(engine: Engine, maps: Maps, *, wait: bool, cancel: bool) -> None:
    try:
        for each, _ in maps.live.living():
            each.cut() if cancel else each.submit_rest()
    except BaseException:  # Ctrl-C inside an input
        _stop(engine, maps)
        raise
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
        _log(maps.take_unread(ending=True))


def _interrupted() -> bool:
    """Whether the program ends by Ctrl-C, as far as can be seen from here."""
    # In an interactive session it may have been an earlier line that was interrupted.
    return getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")


def _after_fork() -> None:
    for engine, maps in _open_engines.living():
        for each, _ in maps.live.living():
            each.forget()  # the parent submits the rest of them
        maps.live.clear()
        maps.take_unread()
        engine.forget()


# Not atexit: by then the interpreter would wait for ever for threads, and start no new ones.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
