"""Descriptors that a worker is given for what its initializer gets: pipes, queues, shared values.

Guarantees: what is rebuilt has descriptors of its own; those that came are closed when all is
rebuilt.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

__all__ = ["InheritedFd", "inherited_fds"]

_given: list[int] = []


class InheritedFd:
    """Stands for a descriptor in a pickle, as ``multiprocessing.reduction.DupFd`` does."""

    def __init__(self, number: int) -> None:
        """Refer to one.

        Args:
            number: which of those that the worker is given.
        """
        self.number = number

    def detach(self) -> int:
        """The descriptor, which belongs to the caller."""
        return os.dup(_given[self.number])


@contextlib.contextmanager
def inherited_fds(fds: Sequence[int]) -> Iterator[None]:
    """Have them there for as long as it takes to rebuild what refers to them; close them."""
    _given[:] = fds
    try:
        yield
    finally:
        for fd in _given:
            os.close(fd)
        _given.clear()
