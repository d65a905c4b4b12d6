"""The shared memory of this process: one store for all that it sends to worker processes.

Few and large: the descriptor of it is given to each worker at its birth, so that nothing has to be
passed later. Made when the first worker is started.
"""

from __future__ import annotations

import os
import threading

from ._lender import Lender
from ._store import Store, make_store

__all__ = ["arena", "arena_store", "forget", "refusal", "release"]

_lock = threading.Lock()
_made: list[Lender] = []
_refused: list[OSError] = []


def arena() -> Lender | None:
    """What lends this process's memory to its workers; None if there is none to be had."""
    with _lock:
        if not _made and not _refused:
            try:
                _made.append(Lender(make_store(), threading.Lock()))
            except OSError as error:
                _refused.append(error)
        return _made[0] if _made else None


def arena_store() -> Store | None:
    """Where that memory is."""
    lender = arena()
    return lender.store if lender is not None else None


def refusal() -> OSError | None:
    """Why there is none, if there is none."""
    return _refused[0] if _refused else None


def release() -> None:
    """Let go of it when no worker is left, unless something is shared by name."""
    with _lock:
        if _made:
            _made[0].trim(0)
            if not _made[0].resources()[0]:
                _made.pop().close()


def forget() -> None:
    """Begin anew: what was made belongs to the process that forked this one, or to a test."""
    global _lock  # noqa: PLW0603 - the parent's lock may be held by a thread that is gone
    _lock = threading.Lock()
    for lender in _made:
        lender.close()
    _made.clear()
    _refused.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
