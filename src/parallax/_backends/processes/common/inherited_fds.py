"""Descriptors that a worker inherits for the pipes, queues and shared values of its initializer.

Guarantees: objects that are rebuilt have duplicates of their own; the inherited descriptors are
closed when all objects are rebuilt.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

_inherited: list[int] = []


class InheritedFd:
    """Stands for a descriptor in a pickle, as ``multiprocessing.reduction.DupFd`` does."""

    def __init__(self, number: int) -> None:
        self.number = number

    def detach(self) -> int:
        """A duplicate of the descriptor, which belongs to the caller."""
        return os.dup(_inherited[self.number])


@contextlib.contextmanager
def inherited_fds(fds: Sequence[int]) -> Iterator[None]:
    """Objects that refer to these descriptors can be rebuilt; they are closed afterwards."""
    _inherited[:] = fds
    try:
        yield
    finally:
        for fd in _inherited:
            os.close(fd)
        _inherited.clear()
