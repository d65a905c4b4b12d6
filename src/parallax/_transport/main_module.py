"""The caller's ``__main__`` in a worker: one namespace for all its functions that come by value."""

from __future__ import annotations

import sys
from _thread import allocate_lock

from parallax._core.light_stdlib import Any

#: The names of the main script: in the program, and in children of ``multiprocessing``.
MAIN_NAMES = ("__main__", "__mp_main__")

_worker_main: dict[str, Any] = {"__name__": "__main__"}


def worker_main() -> dict[str, Any]:
    """The namespace of ``__main__`` here, the same for an initializer and all functions."""
    return _worker_main


class WorkerMain:
    """Pickled as a reference to that namespace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return worker_main, ()


#: Classes of ``__main__`` that forks have, to be numbered when cloudpickle is loaded.
_untracked: dict[type, None] = {}


def track_main_classes() -> None:
    """Let forks of this process recognize its classes of ``__main__`` that come by value."""
    main = list(vars(sys.modules["__main__"]).values())
    for each in main:
        if isinstance(each, type) and each.__module__ in MAIN_NAMES:
            try:
                _untracked[each] = None
            except TypeError:  # the class is not hashable
                continue
    tracking: Any = sys.modules.get("cloudpickle.cloudpickle")
    if "parallax._transport.by_value" in sys.modules:
        for each in _untracked:
            tracking._get_or_create_tracker_id(each)
        _untracked.clear()


def number_main_classes(tracking: Any) -> None:
    """Have cloudpickle, now that it is loaded, know the classes by the same numbers as forks do."""
    for number, each in enumerate(_untracked):
        name = f"parallax.{number}"
        tracking._DYNAMIC_CLASS_TRACKER_BY_CLASS[each] = name
        tracking._DYNAMIC_CLASS_TRACKER_BY_ID[name] = each
    _untracked.clear()


def use_real_main() -> None:
    """Use the real ``__main__`` as that namespace: this worker was forked from the caller."""
    global _worker_main  # noqa: PLW0603 - a fact about the process
    _worker_main = vars(sys.modules["__main__"])
    tracking: Any = sys.modules.get("cloudpickle.cloudpickle")
    if tracking is not None:
        # A thread that does not exist here may hold the lock.
        tracking._DYNAMIC_CLASS_TRACKER_LOCK = allocate_lock()
