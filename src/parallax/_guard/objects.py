"""Attributes, items and operators of values, looked up in the real objects."""

from __future__ import annotations

import functools
import types
from typing import Any, Final

from parallax._guard.frame import Frame
from parallax._guard.lookup import (
    MISSING,
    UNKNOWN,
    class_lookup,
    is_a,
    is_decorated,
    is_known_dict,
    is_own_class,
    is_own_code,
    mro_of,
)
from parallax._guard.mutators import INPLACE, Change
from parallax._guard.names import REBIND, Names
from parallax._guard.values import (
    ELEM,
    EMPTY,
    PLAIN,
    Fresh,
    Method,
    Origin,
    Outer,
    Super,
    Value,
    dependencies,
    elements,
    inner,
    join,
    step_for,
    value_of,
)

__all__ = ["METHOD_DESCRIPTORS", "SPREADING", "Objects", "bare"]

_SCALARS: Final = (str, int, bool, bytes, type(None))
METHOD_DESCRIPTORS: Final = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
_LOCKS: Final = frozenset(
    {"lock", "RLock", "_RLock", "Condition", "Semaphore", "BoundedSemaphore", "Lock"}
)


# Methods of a decorated method that call it with each of their arguments' items.
SPREADING: Final = ("map", "imap", "starmap", "submit")


def bare(func: Outer) -> Outer:
    """The user's function under `@parallel`, or the function as it is."""
    return func.child("partial") if is_decorated(func.obj) else func


class Objects(Names):
    """What operations on values mean. Calls they lead to are left to `Scan`."""

    def call(
        self,
        frame: Frame,
        target: Value,
        args: list[Value],
        names: dict[str, Value],
        star: Value | None,
    ) -> Value:
        """A call of whatever `target` may be."""
        raise NotImplementedError

    def inline_outer(
        self,
        frame: Frame,
        node: Outer,
        args: list[Value],
        names: dict[str, Value],
        star: Value | None,
    ) -> Value:
        """Follow a call into a function that was there before the call."""
        raise NotImplementedError

    def attribute(self, frame: Frame, value: Value, name: str) -> Value:
        """`value.name`."""
        result: Value | None = None
        for origin in value.origins:
            found = self._attribute_of(frame, origin, name)
            result = found if result is None else join(result, found)
        if result is None:
            return Value(EMPTY, value.deps) if value.deps else PLAIN
        if value.deps:
            result = Value(result.origins, result.deps | value.deps, result.const)
        return result

    def _attribute_of(self, frame: Frame, origin: Origin, name: str) -> Value:
        if type(origin) is Outer:
            return self._outer_attribute(frame, origin, name)
        if type(origin) is Fresh:
            origin.read = True
            field = origin.fields.get(("attr", name))
            if field is not None:
                return field
            if origin.cls is not None:
                raw = class_lookup(origin.cls, name)
                found = self._class_attribute(frame, origin, origin.cls, raw, name)
                if found is not None:
                    return found
            return Value(frozenset((Method(origin, name, None),)), EMPTY)
        if type(origin) is Super:
            return self._super_attribute(origin, name)
        if type(origin) is Method and name in SPREADING:
            return Value(frozenset((origin,)), EMPTY)
        return PLAIN

    def _outer_attribute(self, frame: Frame, node: Outer, name: str) -> Value:
        obj = node.obj
        if obj is UNKNOWN:
            if node.cls is not None:
                raw = class_lookup(node.cls, name)
                found = self._class_attribute(frame, node, node.cls, raw, name)
                if found is not None:
                    return found
            child = node.child("attr", name)
            child.loaded = True
            self.read(frame, (node, child))
            if child is node:  # too deep to be told apart: data, or a method, of the same holder
                return Value(frozenset((node, Method(node, name, None))), EMPTY)
            return Value(frozenset((child,)), EMPTY)
        if name == "__class__":
            return Value(frozenset((node.child("type"),)), EMPTY)
        if name == "__dict__":
            return Value(frozenset((node.child("attr", name),)), EMPTY)
        if is_a(obj, types.ModuleType):
            child = node.child("attr", name)
            child.loaded = True
            self.read(frame, (child,))
            space = object.__getattribute__(obj, "__dict__")
            file = space.get("__file__")
            if name in space and type(file) is str and is_own_code(file):
                self._note_global(space, name, child)
            return value_of(child)
        if is_a(obj, type):
            raw = class_lookup(obj, name)
            if is_a(raw, classmethod):
                func = bare(node.child("attr", name).child("unwrap"))
                return Value(frozenset((Method(node, name, func),)), EMPTY)
            if is_a(raw, staticmethod):
                return value_of(node.child("attr", name).child("unwrap"))
            if raw is MISSING:
                meta = class_lookup(type(obj), name)
                if meta is not MISSING:
                    func = node.child("type").child("attr", name)
                    own = func if type(func.obj) is types.FunctionType else None
                    return Value(frozenset((Method(node, name, own),)), EMPTY)
            child = node.child("attr", name)
            child.loaded = True
            self.read(frame, (child,))
            return value_of(child)
        raw = class_lookup(type(obj), name)
        child = node.child("attr", name)
        shadowed = child.obj is not UNKNOWN and child.obj is not raw
        if raw is not MISSING and not shadowed:
            found = self._class_attribute(frame, node, type(obj), raw, name)
            if found is not None:
                return found
        if child.obj is UNKNOWN:
            self.special(frame, node, "__getattr__", [PLAIN])
        child.loaded = True
        self.read(frame, (node, child))
        return value_of(child)

    def _class_attribute(
        self, frame: Frame, origin: Outer | Fresh, cls: type, raw: Any, name: str
    ) -> Value | None:
        """What a class gives for an attribute of its instance, None where that is plain data."""
        if raw is MISSING:
            return None
        holder = self._class_node(origin, cls)
        kind = type(raw)
        if kind is types.FunctionType or kind.__name__ == "_lru_cache_wrapper" or is_decorated(raw):
            func = bare(holder.child("attr", name))
            return Value(frozenset((Method(origin, name, func),)), EMPTY)
        if is_a(raw, functools.partialmethod) or kind in METHOD_DESCRIPTORS:
            return Value(frozenset((Method(origin, name, None),)), EMPTY)
        if is_a(raw, staticmethod):
            return value_of(holder.child("attr", name).child("unwrap"))
        if is_a(raw, classmethod):
            func = bare(holder.child("attr", name).child("unwrap"))
            return Value(frozenset((Method(holder, name, func),)), EMPTY)
        if is_a(raw, (property, functools.cached_property)):
            func = holder.child("attr", name).child("unwrap")
            result = PLAIN
            if type(func.obj) is types.FunctionType and is_own_code(func.obj.__code__.co_filename):
                result = self.call(
                    frame, value_of(func), [Value(frozenset((origin,)), EMPTY)], {}, None
                )
            elif type(origin) is Outer:
                result = Value(frozenset((origin.child("attr", name),)), EMPTY)
            return result
        if type(origin) is Fresh:
            # A class attribute seen through an instance made in the call.
            return value_of(holder.child("attr", name)) if is_own_class(cls) else None
        return None

    def _class_node(self, origin: Outer | Fresh, cls: type) -> Outer:
        if isinstance(origin, Outer) and type(origin.obj) is cls:
            return origin.child("type")
        for node in self.trail:
            if node.obj is cls:
                return node
        node = self.root.child("class", cls)
        node.obj = node.mark = cls
        node.label = cls.__name__
        return node

    def _super_attribute(self, proxy: Super, name: str) -> Value:
        result = PLAIN
        for origin in proxy.receiver.origins:
            if type(origin) not in (Outer, Fresh):
                continue
            assert isinstance(origin, Outer | Fresh)
            cls = origin.cls if isinstance(origin, Fresh) else type(origin.obj)
            if is_a(getattr(origin, "obj", None), type):
                cls = getattr(origin, "obj", None)
            if not is_a(cls, type):
                continue
            order = mro_of(cls)
            after = order[order.index(proxy.after) + 1 :] if proxy.after in order else order[1:]
            for base in after:
                if name in type.__getattribute__(base, "__dict__"):
                    node = self._class_node(Fresh(), base)
                    func = node.child("attr", name)
                    if is_a(func.obj, (staticmethod, classmethod)):
                        func = func.child("unwrap")
                    func = bare(func)
                    known = func if type(func.obj) is types.FunctionType else None
                    result = join(result, Value(frozenset((Method(origin, name, known),)), EMPTY))
                    break
        return result

    def store_attribute(self, frame: Frame, on: Value, name: str, value: Value | None) -> None:
        """`on.name = value`."""
        for origin in on.origins:
            if type(origin) is Outer:
                slot = origin.child("attr", name)
                how = self.how_rebound(frame, value, "deletes", "sets")
                if origin.is_item:
                    how = "sets an attribute of" if how == "sets" else how
                self.note(frame, origin, (REBIND, how), slot, value)
                if value is not None and origin.obj is not UNKNOWN:
                    raw = class_lookup(type(origin.obj), name)
                    if is_a(raw, property) and is_a(raw.fset, types.FunctionType):
                        self.special(frame, origin, "__setattr__", [PLAIN, value])
            elif type(origin) is Fresh and value is not None:
                frame.store(origin, ("attr", name), value)

    def item(self, frame: Frame, value: Value, key: Value) -> Value:
        """`value[key]`."""
        result: Value | None = None
        deps = value.deps | dependencies(key)
        for origin in value.origins:
            found = self._item_of(frame, origin, key)
            deps |= found.deps
            result = found if result is None else join(result, found)
        self.read(frame, deps)
        if result is None:
            return Value(EMPTY, deps) if deps else PLAIN
        return Value(result.origins, deps)

    def _item_of(self, frame: Frame, origin: Origin, key: Value) -> Value:
        if type(origin) is Fresh:
            origin.read = True
            if type(key.const) is slice:
                return frame.fresh("slice", ELEM, inner(Value(frozenset((origin,)), EMPTY)))
            field = origin.fields.get(step_for(key))
            if type(key.const) is int and key.const < 0:
                field = None
            if origin.cls is not None:
                self.special(frame, origin, "__getitem__", [key])
            if field is not None and ELEM not in origin.fields:
                return field
            return inner(Value(frozenset((origin,)), EMPTY))
        if type(origin) is not Outer:
            return PLAIN
        obj = origin.obj
        origin.peeked = True
        own = self.special(frame, origin, "__getitem__", [key])
        if own is not None:
            return own
        if type(key.const) is slice:
            if obj is UNKNOWN or is_a(obj, (list, tuple, bytearray)):
                return frame.fresh("slice", ELEM, elements(origin))
            return Value(frozenset((origin,)), EMPTY)  # a view, as NumPy and memoryview give
        if is_a(obj, types.FunctionType) or is_a(obj, type):
            return PLAIN  # list[int]
        if any(type(each) is Fresh and each.tag != "tuple" for each in key.origins) and not is_a(
            obj, (list, tuple, dict)
        ):
            return frame.fresh("picked", deps=dependencies(key))  # by mask or by list: a copy
        return self.element(frame, origin, key)

    def element(self, frame: Frame, node: Outer, key: Value) -> Value:
        """What an outer container holds under a key."""
        child = self.slot(node, key)
        child.loaded = True
        self.read(frame, (node, child))
        if child.kind == "elem":
            return elements(node)
        found = value_of(child)
        if child.obj is UNKNOWN and child.kind == "item":
            found = join(found, elements(node))
        return found

    @staticmethod
    def slot(node: Outer, key: Value) -> Outer:
        """The part of an outer container that a key selects."""
        kind, const = step_for(key)
        return node.child(kind, const)

    def store_item(self, frame: Frame, on: Value, key: Value, value: Value | None) -> None:
        """`on[key] = value`."""
        for origin in on.origins:
            if type(origin) is Outer:
                if self._is_namespace(origin) and type(key.const) is str:
                    slot = origin.child("name", key.const)
                    self.note(
                        frame, origin, (REBIND, "rebinds"), slot, value, f"global {key.const}"
                    )
                    continue
                slot = self.slot(origin, key)
                if value is None:
                    self.note(frame, origin, Change("take", "deletes an item of"), slot)
                else:
                    how = self.how_rebound(frame, value, "", "assigns an item of")
                    self.note(frame, origin, Change("slot", how), slot, value)
                self.special(frame, origin, "__setitem__", [key, value or PLAIN])
            elif type(origin) is Fresh and value is not None:
                content = inner(value) if type(key.const) is slice else value
                frame.store(origin, step_for(key), content)

    def _is_namespace(self, node: Outer) -> bool:
        return node.kind == "globals"

    def binary(self, frame: Frame, symbol: str, left: Value, right: Value) -> Value:
        """`left + right`, or `left += right`."""
        deps = dependencies(left, right)
        kept: set[Origin] = set()
        method = INPLACE.get(symbol)
        for origin in left.origins:
            if type(origin) is Fresh:
                if method and origin.fields:
                    frame.store(origin, ELEM, inner(right))
                    kept.add(origin)
            elif type(origin) is Outer and method and origin.obj is not UNKNOWN:
                if class_lookup(type(origin.obj), method) is MISSING:
                    continue
                kept.add(origin)
                ordered = is_a(origin.obj, (list, set)) and symbol in ("+=", "|=")
                how = "extends" if ordered else "adds to" if symbol == "+=" else "updates"
                self.note(frame, origin, Change("grow" if ordered else "take", how))
                self.special(frame, origin, method, [right])
        if kept:
            return Value(frozenset(kept), deps)
        made = self._operator_method(frame, symbol.rstrip("="), left, right)
        if made is not None:
            return Value(made.origins, made.deps | deps)
        content = PLAIN
        if symbol[0] in "+*|&-^":
            for value in (left, right):
                for origin in value.origins:
                    if type(origin) is Fresh or is_a(
                        getattr(origin, "obj", None), (list, tuple, dict, set)
                    ):
                        content = join(content, inner(Value(frozenset((origin,)), EMPTY)))
        if content.origins:
            return frame.fresh("sum", ELEM, content, deps)
        if left.origins or right.origins:
            return frame.fresh("sum", deps=deps)
        return Value(EMPTY, deps) if deps else PLAIN

    def _operator_method(
        self, frame: Frame, symbol: str, left: Value, right: Value
    ) -> Value | None:
        """`__add__` and the like of the program's own classes."""
        method = INPLACE.get(symbol + "=", "").replace("__i", "__", 1)
        result: Value | None = None
        for origin in left.origins:
            if isinstance(origin, (Outer, Fresh)):
                found = self.special(frame, origin, method, [right])
                if found is not None:
                    result = found if result is None else join(result, found)
        return result

    def contains(self, frame: Frame, needle: Value, holder: Value) -> Value:
        """`needle in holder`."""
        deps = dependencies(needle, holder)
        for origin in holder.origins:
            if type(origin) is Outer:
                origin.peeked = True
                self.special(frame, origin, "__contains__", [needle])
                if needle.const is not MISSING and type(needle.const) in _SCALARS:
                    deps |= {origin.child("item", needle.const)}
        self.read(frame, deps)
        return Value(EMPTY, deps)

    def iterate(self, frame: Frame, value: Value) -> Value:
        """`iter(value)`."""
        content = PLAIN
        for origin in value.origins:
            one = Value(frozenset((origin,)), EMPTY)
            if type(origin) is Outer:
                origin.scanned = True
                own = self.special(frame, origin, "__iter__", [])
                if own is not None:
                    content = join(content, inner(own))
                    continue
                obj = origin.obj
                if obj is not UNKNOWN and class_lookup(type(obj), "__next__") is not MISSING:
                    self.note(frame, origin, Change("take", "takes from"))
                if is_known_dict(obj):
                    continue
            elif type(origin) is Fresh and origin.cls is not None:
                own = self.special(frame, origin, "__iter__", [])
                if own is not None:
                    content = join(content, inner(own))
                    continue
            content = join(content, inner(one))
        return frame.fresh("iterator", ELEM, content, dependencies(value))

    def enter(self, frame: Frame, value: Value) -> Value:
        """`with value as ...`."""
        result = PLAIN
        for origin in value.origins:
            obj = getattr(origin, "obj", UNKNOWN)
            if obj is not UNKNOWN and type(obj).__name__ in _LOCKS:
                frame.note_lock()
            own = None
            if type(origin) in (Outer, Fresh):
                assert isinstance(origin, Outer | Fresh)
                own = self.special(frame, origin, "__enter__", [])
                self.special(frame, origin, "__exit__", [PLAIN, PLAIN, PLAIN])
            if own is None:
                own = Value(frozenset((origin,)), EMPTY)
                if type(origin) is Fresh:
                    own = join(own, inner(own))  # what a @contextmanager function yields
            result = join(result, own)
        return result

    def special(
        self, frame: Frame, origin: Outer | Fresh, name: str, args: list[Value]
    ) -> Value | None:
        """Follow a special method of the program's own classes; None where there is none."""
        cls = origin.cls
        if isinstance(origin, Outer) and origin.obj is not UNKNOWN:
            cls = type(origin.obj)
        if cls is None or not is_a(cls, type):
            return None
        raw = class_lookup(cls, name)
        if type(raw) is not types.FunctionType or not is_own_code(raw.__code__.co_filename):
            return None
        func = self._class_node(origin, cls).child("attr", name)
        return self.inline_outer(frame, func, [Value(frozenset((origin,)), EMPTY), *args], {}, None)
