"""Objects that are remembered as long as they live, for any thread to add to and to look at.

``weakref.WeakSet`` and its kin raise a RuntimeError in a thread that reads them while another one
adds an entry or drops an object.
"""

from __future__ import annotations

from _weakref import ref  # without weakref, which takes 0.7 ms to load

from parallax._core.light_stdlib import Any


class WeakTable:
    def __init__(self) -> None:
        #: by the identity of the weak reference, which reports the end of its object.
        self._entries: dict[int, tuple[ref[Any], Any]] = {}

    def add(self, obj: Any, value: Any = None) -> None:
        alive = ref(obj, self._drop)
        self._entries[id(alive)] = alive, value

    def living(self) -> list[tuple[Any, Any]]:
        """The objects that live now, oldest first, and their values."""
        # Of values: a list of pairs would be made one by one, and the collector could come between.
        found = [(alive(), value) for alive, value in list(self._entries.values())]
        return [(obj, value) for obj, value in found if obj is not None]

    def clear(self) -> None:
        self._entries.clear()

    def _drop(self, alive: ref[Any]) -> None:
        self._entries.pop(id(alive), None)
