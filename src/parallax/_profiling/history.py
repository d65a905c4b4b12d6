"""What earlier calls found out about a callable, so that the next call need not.

Purpose: a small table from the code behind a callable to its last measurement.
Guarantees: holds no user data and no instance alive, only code objects and names; bounded.
"""

from __future__ import annotations

import os
import threading

from parallax._core.callables import unwrap_partial
from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Any

    from parallax._core.plans import Measurement
    from parallax._guard.effects import Finding

#: Callables remembered; the least recently used goes. Fewer forget hot ones of a large program.
MAX_REMEMBERED_CALLABLES = 256


class PastRun(NamedTuple):
    """What one callable was like."""

    measurement: Measurement
    #: whether shared state changed, for each item that was watched.
    history: tuple[bool, ...] = ()
    #: whether there was a GIL.
    gil: bool = True
    #: its items were seen to draw from, or change, what all threads share.
    shared: bool = False
    #: the change, seen by what happened, that kept the callable at home.
    kept: Finding | None = None
    #: how fast threads were seen to be if they brought next to nothing, in loops.
    poor_threads: float | None = None


# In both the least recently used entry comes first.
_table: dict[Hashable, PastRun] = {}
_item_seconds: dict[Hashable, float] = {}
_lock = threading.Lock()


def key_of(fn: Callable[..., Any], depth: int = 3) -> Hashable | None:
    """A key for the code behind a callable, the same for all closures and instances of it.

    None if there is nothing that stays the same. Objects that pass calls on are looked through, so
    many levels deep.
    """
    fn = unwrap_partial(fn)
    fn = getattr(fn, "__func__", fn)
    code = getattr(fn, "__code__", None)
    if code is not None:
        return code  # type: ignore[no-any-return]
    name = getattr(fn, "__qualname__", None)
    if isinstance(name, str):
        owner = type(getattr(fn, "__self__", None)).__qualname__
        return (getattr(fn, "__module__", None), owner, name)
    for cls in type(fn).__mro__:
        if "__call__" in vars(cls):
            code = getattr(vars(cls)["__call__"], "__code__", None)
            inner = _called_by(getattr(fn, "__dict__", {}))
            if code is None or inner is None or not depth:
                return code
            return code, key_of(inner, depth - 1)
    return None


def _called_by(held: Mapping[str, Any]) -> Callable[..., Any] | None:
    """What an object calls that only passes calls on, as joblib's batches and wrappers do."""
    found = held.get("func")
    if found is None and type(items := held.get("items")) in {list, tuple} and items:
        found = items[0][0] if type(items[0]) is tuple and items[0] else None
    return found if callable(found) else None


def past_run(key: Hashable | None) -> PastRun | None:
    """The latest measurement of a callable."""
    with _lock:
        found = _table.pop(key, None)
        if found is not None:
            _table[key] = found
        return found


def remember_run(key: Hashable | None, memory: PastRun) -> None:
    """Keep a measurement for the next call."""
    if key is not None:
        _put(_table, key, memory)


def past_item_seconds(key: Hashable | None) -> float | None:
    """Seconds per item in the latest run of a callable, whichever route it took."""
    return _item_seconds.get(key)


def remember_item_seconds(key: Hashable | None, mean: float | None) -> None:
    """Keep the seconds per item of a run, for the first chunks of the next one."""
    if key is not None and mean is not None:
        _put(_item_seconds, key, mean)


def _put(table: dict[Hashable, Any], key: Hashable, value: Any) -> None:
    with _lock:
        table.pop(key, None)
        table[key] = value
        if len(table) > MAX_REMEMBERED_CALLABLES:
            del table[next(iter(table))]


if hasattr(os, "register_at_fork"):
    # The parent's may be held by a thread that is gone.
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
