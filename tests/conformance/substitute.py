"""Puts parallax's executors in the place of the standard library's, for this process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys

import parallax

with contextlib.suppress(ImportError):
    # It extends the standard library's ThreadPoolExecutor, and must find that one.
    import concurrent.futures.interpreter


def ours() -> tuple[type, ...]:
    """The classes that take the standard library's places."""
    return parallax.ThreadPoolExecutor, parallax.ProcessPoolExecutor


def standard_class(kind: type) -> type:
    """The class of the standard library that ``kind`` takes the place of."""
    return next(each for each in kind.__mro__[1:] if each.__name__ == kind.__name__)


def install() -> None:
    """From now on whoever imports the standard library's pools gets parallax's."""
    for kind in ours():
        home = sys.modules[standard_class(kind).__module__]
        setattr(concurrent.futures, kind.__name__, kind)
        setattr(home, kind.__name__, kind)
