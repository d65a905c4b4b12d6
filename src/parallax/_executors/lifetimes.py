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
    from parallax._backends.contract import Engine
    from parallax._reporting.recording import CallRecording


class Maps:
    """The maps of one executor, which submit calls to its engine, and how both end.

    It does not refer to the engine, which would then live for ever.
    """

    def __init__(self) -> None:
        #: whose iterators exist.
        self.live = WeakTable()
        #: errors of inputs that nobody got: the callable's name, the error, whether it was logged.
        self._unread: list[tuple[str, BaseException, bool]] = []
        #: the program is inside a ``with`` block, whose end raises such an error.
        self.in_block = False
        #: it leaves the block by an error of its own, which is not to be replaced.
        self.failing = False
        #: what workers did, if that is recorded; here because the views of an executor share this.
        self.recording: CallRecording | None = None

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

    def cut(self) -> None:
        """End all maps; their readers get the finished results."""
        for each, _ in self.live.living():
            each.cut()

    def stop(self, engine: Engine) -> None:
        """End all calls that can be ended, as after Ctrl-C."""
        with Shield():
            self.cut()
            engine.stop()

    def shutdown(self, engine: Engine, *, wait: bool, cancel: bool) -> None:
        """Shut the engine down, after the rest of all maps was submitted.

        With ``cancel`` that is dropped, and the calls that have not begun are cancelled.
        """
        try:
            if cancel:
                self.cut()
            else:
                for each, _ in self.live.living():
                    each.submit_rest()
        except BaseException:  # Ctrl-C inside an input
            self.stop(engine)
            raise
        if wait:
            engine.shutdown(wait=True, cancel=cancel)
            return
        with Shield():
            engine.shutdown(wait=False, cancel=cancel)


def _log(unread: list[tuple[str, BaseException, bool]]) -> None:
    for name, error, logged in unread:
        if not logged:
            log_unread(name, error)


def ends_with(owner: object, engine: Engine) -> Maps:
    """Have an engine, which must not refer to its owner, end with that or with the program."""
    maps = Maps()
    _open_engines.add(engine, maps)
    if _exiting:
        engine.shutdown(wait=False, cancel=False)
    weakref.finalize(owner, maps.shutdown, engine, wait=False, cancel=False).atexit = False
    return maps


#: The maps of each engine. Engines live as long as they have something to do.
_open_engines = WeakTable()
_exiting = False


def _finish_all() -> None:
    global _exiting  # noqa: PLW0603 - state of the process
    _exiting = True
    for engine, maps in _open_engines.living():
        if _interrupted():
            maps.stop(engine)
        else:
            maps.shutdown(engine, wait=True, cancel=False)
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
        engine.record(None)
        maps.recording = None  # its lock may be held by a thread that is gone


# Not atexit: by then the interpreter would wait for ever for threads, and start no new ones.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
