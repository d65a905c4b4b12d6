"""The frames of all threads, without the deadlock of CPython 3.11.

Before 3.11.9 (gh-106883) ``sys._current_frames`` makes frames, so it may collect garbage, with a
lock of the interpreter held that every start and end of a thread takes as well. As soon as a
finalizer or a callback of the collector lets go of the GIL, the program stands still for good.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
from types import FrameType

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


if (3, 11) <= sys.version_info < (3, 11, 9):
    current_frames = _without_collection
    if hasattr(os, "register_at_fork"):  # a child would find the lock taken, the collector off
        os.register_at_fork(
            before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
        )
else:
    current_frames = sys._current_frames
