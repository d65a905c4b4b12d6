"""The callables of an executor in encoded form, made once and not once per task.

A plain function is encoded when it is first submitted, with the module globals that it reads, and
again when one of those, a closure variable or a default was bound anew. Changes *inside* a captured
object are not noticed: the workers of the standard library's pools do not see them either. Other
callables (bound methods, partials, instances) carry state, so they are encoded for each task; equal
content still travels once.

Guarantees: a cached callable is kept alive, so that its identity is not reused.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

from parallax._backends.contract import Call
from parallax._backends.processes.parent import call_encoding
from parallax._backends.processes.parent.captured_state import capture_state
from parallax._core.lazy_import import errors
from parallax._guard.effects import scan
from parallax._transport import codec
from parallax._transport.module_state import Key, Packed
from parallax._transport.pickle_diagnosis import find_unpicklable

#: Functions that are kept encoded. More hold memory, fewer are encoded again.
MAX_KEPT_FUNCTIONS = 128

_UNBOUND = object()
_BUILTINS = frozenset(vars(builtins))


class Known(NamedTuple):
    key: int
    encoded: codec.Encoded
    #: finds the installed modules that it needs.
    modules: Callable[[], frozenset[str]]
    #: for messages.
    name: str = "a call"


class _Entry(NamedTuple):
    fn: Any
    known: Known
    #: (namespace, name, value): what must still be bound to the same objects.
    bound: tuple[tuple[dict[str, Any], str, Any], ...]
    cells: tuple[tuple[Any, Any], ...]
    defaults: tuple[Any, Any]
    by_value: frozenset[str]

    def holds(self) -> bool:
        for space, name, value in self.bound:
            if space.get(name, _UNBOUND) is not value:
                return False
        for cell, content in self.cells:
            if _content(cell) is not content:
                return False
        if codec.registered_by_value() != self.by_value:
            return False
        positional, keyword = self.defaults
        return positional is getattr(self.fn, "__defaults__", None) and keyword is getattr(
            self.fn, "__kwdefaults__", None
        )


class Callables:
    """Encodes callables and remembers plain functions. The caller's lock guards it."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        #: the module-level values that were captured last.
        self._packed: dict[Key, tuple[Any, Packed]] = {}

    def known(self, fn: Callable[..., Any]) -> Known:
        """The encoded form of a callable; SerializationError or WorkerStartError without."""
        entry = self._entries.get(id(fn))
        if entry is not None and entry.fn is fn and entry.holds():
            return entry.known
        try:
            known, reads = _encode(fn, self._packed)
        except Exception as error:
            if errors.lacks_descriptors(error):
                raise errors.WorkerStartError("auto", str(error)) from error
            path, reason = find_unpicklable(fn, "callable")
            cause = errors.without_frames(error)  # the future keeps it
            raise errors.SerializationError("callable", None, path, reason) from cause
        if type(fn) in {FunctionType, BuiltinFunctionType, type}:
            if len(self._entries) >= MAX_KEPT_FUNCTIONS:
                self._entries.popitem(last=False)
            self._entries[id(fn)] = _entry(fn, known, reads)
        return known


def _encode(
    fn: Callable[..., Any], packed: dict[Key, tuple[Any, Packed]]
) -> tuple[Known, list[tuple[str, str, Any]]]:
    state, _ = capture_state(scan(fn).reads, packed)
    encoded = call_encoding.encode_call(Call(fn, star=False, stop=False), state, shared=True)
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    reads = [(*each.key, packed[each.key][0]) for each in state if each.key in packed]
    code = getattr(fn, "__code__", None)  # not the callable: calls that have ended keep this
    modules = functools.partial(call_encoding.modules_for, encoded, code)
    return Known(call_encoding.call_key(encoded), encoded, modules, name), reads


def _entry(fn: Any, known: Known, reads: list[tuple[str, str, Any]]) -> _Entry:
    bound = [
        (vars(sys.modules[module]), name, value)
        for module, name, value in reads
        if module in sys.modules
    ]
    space = getattr(fn, "__globals__", None)
    by_value = frozenset(codec.registered_by_value())
    if space is not None and (by_value or space.get("__name__") == "__main__"):
        # It travels by value, or may do so, with what it refers to.
        # Names that are not bound yet, too: they may be by the next call.
        names = set(call_encoding.names_in(fn.__code__))
        bound += [(space, n, space.get(n, _UNBOUND)) for n in names if n not in _BUILTINS]
    cells = tuple((cell, _content(cell)) for cell in getattr(fn, "__closure__", None) or ())
    defaults = getattr(fn, "__defaults__", None), getattr(fn, "__kwdefaults__", None)
    return _Entry(fn, known, tuple(bound), cells, defaults, by_value)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _UNBOUND
