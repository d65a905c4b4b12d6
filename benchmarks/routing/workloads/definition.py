"""What a workload is, and how two lists of results are compared.

A workload is deterministic: the same items give the same results on every way of running it.
Results are compared by digest, for results of hundreds of megabytes cannot travel between cells.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Setup = Callable[[], tuple[Callable[[Any], Any], list[Any]]]


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


@dataclass(frozen=True)
class Workload:
    """One callable with its items; `setup` builds both and is never timed."""

    name: str
    family: str
    setup: Setup
    expected: str | None = None
    """Digest of the results of the first `checked` items; None where it depends on a library."""
    checked: int = 2
    quick: bool = False
    """Part of the smoke run."""

    @property
    def module(self) -> str:
        return self.setup.__module__


def digest(results: Sequence[Any]) -> str:
    """Digest of a list of results: equal exactly when types and values are."""
    state = hashlib.blake2b(digest_size=6)
    for result in results:
        _feed(state, result)
    state.update(b"|%d" % len(results))
    return state.hexdigest()


def _feed(state: _Hash, value: Any) -> None:
    kind = type(value)
    state.update(kind.__name__.encode())
    if value is None or kind in (bool, int, float, str):
        state.update(repr(value).encode("utf-8", "surrogatepass"))
    elif kind in (bytes, bytearray):
        state.update(value)
    elif kind in (list, tuple):
        state.update(b"%d" % len(value))
        for part in value:
            _feed(state, part)
    elif kind is dict:
        _feed(state, list(value.items()))
    elif hasattr(value, "__array_interface__"):
        _feed_array(state, value)
    elif hasattr(value, "to_numpy"):  # pandas
        _feed(state, [str(label) for label in getattr(value, "columns", [])])
        _feed_array(state, value.index.to_numpy())
        _feed_array(state, value.to_numpy())
    else:
        state.update(pickle.dumps(value))


def _feed_array(state: _Hash, value: Any) -> None:
    import numpy as np

    array = np.ascontiguousarray(value)  # a read-only or mapped result is as good as a fresh one
    state.update(f"{array.dtype.str}{np.shape(value)}".encode())
    if array.dtype.hasobject:
        _feed(state, array.tolist())
    else:
        state.update(array.reshape(-1).view(np.uint8))
