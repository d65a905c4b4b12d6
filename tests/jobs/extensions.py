"""Callables that need extension modules which do not load in interpreters beside the main one."""

from __future__ import annotations

import os

try:
    import faulthandler  # a part of the standard library that does not load there
except ImportError:
    faulthandler = None


def note(path, what):
    """One line per call, in whatever worker."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{what}\n".encode())
    os.close(fd)


def with_or_without(path, x):
    """Would answer otherwise without the module."""
    note(path, x)
    return x, faulthandler is not None


def in_its_body(path, x):
    note(path, x)
    import numpy as np

    return int(np.int64(x))


def after_some(path, x):
    """Meets the module at a late item, in code that it calls."""
    if x >= 7:
        _late()
    note(path, x)
    return x


def _late():
    import faulthandler

    return faulthandler


def not_always(path, x):
    if x % 3 == 0:
        raise ValueError(x)
    return after_some(path, x)


class Loaded:
    """An item whose unpickling needs the module."""

    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        return _load, (self.x,)


def _load(x):
    import faulthandler

    assert faulthandler
    return Loaded(x)


def number_of(path, item):
    note(path, item.x)
    return item.x


def prepare(path):
    note(path, "prepared")
    _late()
