"""The frames of all threads, without the deadlock of CPython 3.11 and the crash of 3.13.

Before 3.11.9 (gh-106883) ``sys._current_frames`` makes frames, so it may collect garbage, with a
lock of the interpreter held that every start and end of a thread takes as well. As soon as a
finalizer or a callback of the collector lets go of the GIL, the program stands still for good.
For the crash without a GIL see ``dumped_frames``.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
from collections.abc import Callable, Collection
from types import FrameType

from parallax._core.cores import free_threaded_build

# Re-entrant, because a signal handler may fork in the middle.
_lock = _thread.RLock()


def _without_collection() -> dict[int, FrameType]:
    with _lock:  # two at a time: the second would take it for the program's wish
        if not gc.isenabled():
            return sys._current_frames()
        try:
            gc.disable()
            return sys._current_frames()
        finally:
            gc.enable()


#: The identifiers of all threads, and their innermost frames by them.
thread_idents: Callable[[], Collection[int]] = sys._current_frames
current_frames: Callable[[], dict[int, FrameType]] = sys._current_frames

if (3, 11) <= sys.version_info < (3, 11, 9):
    thread_idents = current_frames = _without_collection
    if hasattr(os, "register_at_fork"):  # a child would find the lock taken, the collector off
        os.register_at_fork(
            before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
        )
elif sys.version_info[:2] == (3, 13) and free_threaded_build():
    from parallax._core import dumped_frames

    current_frames = dumped_frames.dumped_frames
