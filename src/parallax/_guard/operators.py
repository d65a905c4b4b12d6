"""Items, operators, iteration and `with`: what operations on values read and change."""

from __future__ import annotations

import types
from collections import Counter, OrderedDict, defaultdict

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.attributes import Attributes
from parallax._guard.events import REBIND
from parallax._guard.lookup import NO_ATTRIBUTE, UNKNOWN_OBJECT, class_lookup, is_a
from parallax._guard.mutators import INPLACE_METHODS
from parallax._guard.values import (
    ANY_ELEMENT,
    FOLDED,
    NONDETERMINISTIC,
    PLAIN_VALUE,
    Fresh,
    Outer,
    Value,
    dependencies,
    either,
    exactly,
)

if TYPE_CHECKING:
    from typing import Final

    from parallax._guard.frame import AbstractFrame
    from parallax._guard.values import Origin

# Operators that give different items the same value.
_FOLDING: Final = frozenset({"%", "//", "&", ">>", "/"})
_LOCK_TYPES: Final = frozenset(
    {"lock", "RLock", "_RLock", "Condition", "Semaphore", "BoundedSemaphore", "Lock"}
)


class Operators(Attributes):
    """What operations on values do. The calls that these lead to are left to a subclass."""

    def item(self, frame: AbstractFrame, value: Value, key: Value) -> Value:
        """`value[key]`."""
        deps = value.deps | dependencies(key)
        result = PLAIN_VALUE
        for origin in value.origins:
            found = self._item_of(frame, origin, key)
            deps |= found.deps
            result |= found
        self.read(frame, deps)
        return Value(result.origins, deps)

    def _item_of(self, frame: AbstractFrame, origin: Origin, key: Value) -> Value:
        if type(origin) is Fresh:
            origin.read = True
            if type(key.const) is slice:
                return frame.fresh("slice", ANY_ELEMENT, exactly(origin).element())
            self.special(frame, origin, "__getitem__", key)
            field = origin.fields.get(key.step())
            from_end = type(key.const) is int and key.const < 0
            if field is not None and not from_end and ANY_ELEMENT not in origin.fields:
                return field
            return exactly(origin).element()
        if type(origin) is not Outer:
            return PLAIN_VALUE
        obj = origin.obj
        origin.peeked = True
        own = self.special(frame, origin, "__getitem__", key)
        if own is not None:
            return own
        if type(key.const) is slice:
            if obj is UNKNOWN_OBJECT or is_a(obj, (list, tuple, bytearray)):
                return frame.fresh("slice", ANY_ELEMENT, origin.element())
            return exactly(origin)  # a view, as of NumPy arrays and memoryviews
        if is_a(obj, types.FunctionType) or is_a(obj, type):
            return PLAIN_VALUE  # list[int]
        if any(type(each) is Fresh and each.tag != "tuple" for each in key.origins) and not is_a(
            obj, (list, tuple, dict)
        ):
            return frame.fresh("picked", deps=dependencies(key))  # a mask or list selects a copy
        return self.element(frame, origin, key)

    def element(self, frame: AbstractFrame, node: Outer, key: Value) -> Value:
        """What an outer container holds under a key."""
        child = self.slot(node, key)
        child.loaded = True
        self.read(frame, (node, child))
        if child.kind == "elem":
            return node.element()
        found = child.value()
        if child.obj is UNKNOWN_OBJECT and child.kind == "item":
            found |= node.element()
        return found

    @staticmethod
    def slot(node: Outer, key: Value) -> Outer:
        """The part of an outer container that a key selects."""
        kind, const = key.step()
        return node.child(kind, const)

    def store_item(self, frame: AbstractFrame, on: Value, key: Value, value: Value | None) -> None:
        """`on[key] = value`, or `del on[key]` where `value` is None."""
        for origin in on.origins:
            if type(origin) is Fresh and value is not None:
                content = value.element() if type(key.const) is slice else value
                frame.store(origin, key.step(), content)
            if type(origin) is not Outer:
                continue
            if origin.kind == "globals" and type(key.const) is str:
                slot = origin.child("name", key.const)
                self.note(frame, origin, (REBIND, "rebinds"), slot, value, f"global {key.const}")
                continue
            shape = "take" if value is None else "slot"
            how = self.how_rebound(frame, value, "deletes an item of", "assigns an item of")
            own = FOLDED not in key.deps and NONDETERMINISTIC not in key.deps
            self.note(frame, origin, (shape, how), self.slot(origin, key), value, own=own)
            self.special(frame, origin, "__setitem__", key, value or PLAIN_VALUE)

    def binary(self, frame: AbstractFrame, symbol: str, left: Value, right: Value) -> Value:
        """`left + right`, or `left += right` where the symbol ends in `=`."""
        deps = dependencies(left, right)
        if symbol.rstrip("=") in _FOLDING:
            deps |= {FOLDED}
        kept: set[Origin] = set()
        method = INPLACE_METHODS.get(symbol)
        for origin in left.origins:
            if type(origin) is Fresh:
                if method and origin.fields:
                    frame.store(origin, ANY_ELEMENT, right.element())
                    kept.add(origin)
            elif type(origin) is Outer and method and origin.obj is not UNKNOWN_OBJECT:
                if class_lookup(type(origin.obj), method) is NO_ATTRIBUTE:
                    continue
                kept.add(origin)
                ordered = is_a(origin.obj, (list, set)) and symbol in ("+=", "|=")
                how = "extends" if ordered else "adds to" if symbol == "+=" else "updates"
                self.note(frame, origin, ("grow" if ordered else "take", how))
                self.special(frame, origin, method, right)
        if kept:
            return Value(frozenset(kept), deps)
        made = self._operator_method(frame, symbol.rstrip("="), left, right)
        if made is not None:
            return Value(made.origins, made.deps | deps)
        if symbol[0] in "+*|&-^":
            content = PLAIN_VALUE
            for origin in (*left.origins, *right.origins):
                if type(origin) is Fresh or is_a(
                    getattr(origin, "obj", None), (list, tuple, dict, set)
                ):
                    content |= exactly(origin).element()
            if content.origins:
                return frame.fresh("sum", ANY_ELEMENT, content, deps)
        if left.origins or right.origins:
            return frame.fresh("sum", deps=deps)
        return Value(deps=deps)

    def _operator_method(
        self, frame: AbstractFrame, symbol: str, left: Value, right: Value
    ) -> Value | None:
        """Follow `__add__` and the like of the program's own classes; None if there is none."""
        method = INPLACE_METHODS.get(symbol + "=", "").replace("__i", "__", 1)
        return either(self.special(frame, origin, method, right) for origin in left.origins)

    def contains(self, frame: AbstractFrame, needle: Value, holder: Value) -> Value:
        """`needle in holder`."""
        deps = dependencies(needle, holder)
        for origin in holder.origins:
            if type(origin) is Outer:
                origin.peeked = True
                self.special(frame, origin, "__contains__", needle)
                step = needle.step()
                if step != ANY_ELEMENT:
                    deps |= {origin.child(*step)}
        self.read(frame, deps)
        return Value(deps=deps)

    def iterate(self, frame: AbstractFrame, value: Value) -> Value:
        """`iter(value)`."""
        content = PLAIN_VALUE
        for origin in value.origins:
            if type(origin) is Outer:
                origin.scanned = True
            own = self.special(frame, origin, "__iter__")
            if own is not None:
                content |= own.element()
                continue
            if type(origin) is Outer:
                if class_lookup(type(origin.obj), "__next__") is not NO_ATTRIBUTE:
                    self.note(frame, origin, ("take", "takes from"))
                if type(origin.obj) in (dict, defaultdict, OrderedDict, Counter):
                    continue  # iterating gives the keys, which cannot be changed
            content |= exactly(origin).element()
        return frame.fresh("iterator", ANY_ELEMENT, content, dependencies(value))

    def enter(self, frame: AbstractFrame, value: Value) -> Value:
        """The value that `with value as ...` binds."""
        result = PLAIN_VALUE
        for origin in value.origins:
            if type(getattr(origin, "obj", None)).__name__ in _LOCK_TYPES:
                frame.note_lock()
            own = self.special(frame, origin, "__enter__")
            self.special(frame, origin, "__exit__", PLAIN_VALUE, PLAIN_VALUE, PLAIN_VALUE)
            if own is None:
                own = exactly(origin)
                if type(origin) is Fresh:
                    own |= own.element()  # what a @contextmanager function yields
            result |= own
        return result
