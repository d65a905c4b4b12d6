"""Tells what other threads of the program change meanwhile from what items change.

State that all threads share does not say who has changed it. What goes on changing while the
thread of the items does nothing, for as long as an item took, is another thread's.
"""

from __future__ import annotations

import time
from _thread import get_ident

from parallax._core.current_frames import current_frames
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.own_code import is_own

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: Seconds without an item, at least and at most. Less misses threads that change things now and
#: then, more keeps the items waiting.
LEAST_WAIT_S: Final = 0.02
MOST_WAIT_S: Final = 0.05
REPEAT_S: Final = 0.001


def goes_on(look: Callable[[], Any], seconds: float) -> bool:
    """Whether what is looked at changes while this thread waits for so long, about.

    Nothing is waited for where the program has no other thread.
    """
    if not _others():
        return False
    before, end = look(), time.perf_counter() + min(max(seconds, LEAST_WAIT_S), MOST_WAIT_S)
    while time.perf_counter() < end:
        time.sleep(REPEAT_S)
        if look() != before:
            return True
    return False


def _others() -> bool:
    """Whether there are threads besides this one and those that run code of parallax only."""
    me = get_ident()
    for ident, frame in current_frames().items():
        outermost = frame
        while (caller := outermost.f_back) is not None:  # without a GIL it may return meanwhile
            outermost = caller
        if ident != me and not is_own(outermost.f_code.co_filename):
            return True
    return False
