"""Modules that are loaded when a name of theirs is first used.

``logging``, ``subprocess`` and the bases of our error classes take as long to import as the rest of
the package, and most programs never need them. Those below are imported from here. Of others type
checkers see the plain import::

    if TYPE_CHECKING:
        from parallax._guard import seeding
    else:
        seeding = lazy_module("parallax._guard.seeding")

Python 3.15 has this as a statement (PEP 810).
"""
# ruff: noqa: F401

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING, Any


class lazy_module:  # noqa: N801 - used as a function
    """Stands for a module until one of its names is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # Not kept here: programs set names of modules, as ``logging.raiseExceptions``. And not from
        # sys.modules: __import__ waits until another thread has loaded the module whole.
        return getattr(__import__(self._name, fromlist=[attribute]), attribute)


if TYPE_CHECKING:
    import copy
    import ctypes
    import faulthandler
    import logging
    import pickletools
    import selectors
    import socket
    import subprocess
    import sysconfig
    import threading
    import traceback
    import zlib
    from concurrent import futures

    from parallax._core import errors, memory
else:
    _INSIDE = {
        "errors": "parallax._core.errors",
        "futures": "concurrent.futures",
        "memory": "parallax._core.memory",
    }

    def __getattr__(name: str) -> Any:
        if name.startswith("_"):  # asked for by the import itself
            raise AttributeError(name)
        return lazy_module(_INSIDE.get(name, name))
