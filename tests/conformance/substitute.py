"""Puts parallax's executors in the place of the standard library's, for this process."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread

import parallax


def install() -> None:
    """From now on whoever imports the standard library's pools gets parallax's."""
    for name, home in (
        ("ThreadPoolExecutor", concurrent.futures.thread),
        ("ProcessPoolExecutor", concurrent.futures.process),
    ):
        ours = getattr(parallax, name)
        setattr(concurrent.futures, name, ours)
        setattr(home, name, ours)
