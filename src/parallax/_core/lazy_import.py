"""Modules that are loaded when a name of theirs is first used.

``logging``, ``subprocess`` and the bases of our error classes take as long to import as the rest of
the package, and most programs never need them. Type checkers see the plain import::

    if TYPE_CHECKING:
        import logging
    else:
        logging = lazy_module("logging")

Python 3.15 has this as a statement (PEP 810).
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class lazy_module:  # noqa: N801 - used as a function
    """Stands for a module until one of its names is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # Not kept here: programs set names of modules, as ``logging.raiseExceptions``. And not from
        # sys.modules: __import__ waits until another thread has loaded the module whole.
        return getattr(__import__(self._name, fromlist=[attribute]), attribute)
