"""Attributes of values, looked up in the classes and objects of the program.

Properties and special methods of the program's own classes are followed, never called.
"""

from __future__ import annotations

import functools
import types

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.events import REBIND, Recorder
from parallax._guard.lookup import (
    NO_ATTRIBUTE,
    UNKNOWN_OBJECT,
    class_lookup,
    is_a,
    is_decorated,
    is_lru_cache,
    is_own_class,
    is_own_code,
    is_own_function,
    mro_of,
)
from parallax._guard.values import (
    PLAIN_VALUE,
    Arguments,
    Fresh,
    Method,
    Outer,
    Super,
    either,
    exactly,
)

if TYPE_CHECKING:
    from typing import Final

    from parallax._guard.frame import AbstractFrame
    from parallax._guard.values import Origin, Value

METHOD_DESCRIPTORS: Final = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
# Methods of a function under @parallel that call the function with items of their arguments.
SPREADING_METHODS: Final = ("map", "imap", "starmap", "submit")


def _is_cython(raw: object) -> bool:
    """Whether an entry of a class is a method made by Cython, as NumPy's generators have."""
    return type(raw).__name__ == "cython_function_or_method"


def _undecorated(func: Outer) -> Outer:
    """The user's function under `@parallel`, or the function as it is."""
    return func.child("partial") if is_decorated(func.obj) else func


class Attributes(Recorder):
    """Loads and stores of attributes. The calls that these lead to are left to a subclass."""

    def call(self, frame: AbstractFrame, target: Value, args: Arguments) -> Value:
        """Call whatever `target` may be; what the call returns."""
        raise NotImplementedError

    def follow(self, frame: AbstractFrame, node: Outer, args: Arguments) -> Value:
        """Follow a call into an outer function; what the call returns."""
        raise NotImplementedError

    def attribute(self, frame: AbstractFrame, value: Value, name: str) -> Value:
        """`value.name`."""
        found = either(self._attribute_of(frame, origin, name) for origin in value.origins)
        return (found or PLAIN_VALUE).with_deps(value.deps)

    def _attribute_of(self, frame: AbstractFrame, origin: Origin, name: str) -> Value:
        if type(origin) is Outer:
            return self._outer_attribute(frame, origin, name)
        if type(origin) is Fresh:
            origin.read = True
            field = origin.fields.get(("attr", name))
            if field is not None:
                return field
            found = None
            if origin.cls is not None:
                found = self._class_attribute(frame, origin, origin.cls, name)
            return exactly(Method(origin, name, None)) if found is None else found
        if type(origin) is Super:
            return self._super_attribute(origin, name)
        if type(origin) is Method and name in SPREADING_METHODS:
            return exactly(origin)
        return PLAIN_VALUE

    def _outer_attribute(self, frame: AbstractFrame, node: Outer, name: str) -> Value:
        obj = node.obj
        if obj is UNKNOWN_OBJECT:
            if node.cls is not None:
                found = self._class_attribute(frame, node, node.cls, name)
                if found is not None:
                    return found
            child = self._load(frame, node, name, node)
            if child is node:  # too deep to be told apart: data, or a method, of the same holder
                return exactly(node) | exactly(Method(node, name, None))
            return exactly(child)
        if name == "__class__":
            return exactly(node.child("type"))
        if name == "__dict__":
            return exactly(node.child("attr", name))
        if is_a(obj, types.ModuleType):
            child = self._load(frame, node, name)
            space = object.__getattribute__(obj, "__dict__")
            file = space.get("__file__")
            if name in space and type(file) is str and is_own_code(file):
                self.note_global(space, name, child)
            return child.value()
        if is_a(obj, type):
            return self._attribute_of_class(frame, node, name)
        child = node.child("attr", name)
        if child.obj is UNKNOWN_OBJECT or child.obj is class_lookup(type(obj), name):
            found = self._class_attribute(frame, node, type(obj), name)
            if found is not None:
                return found
        if child.obj is UNKNOWN_OBJECT:
            self.special(frame, node, "__getattr__", PLAIN_VALUE)
        return self._load(frame, node, name, node).value()

    def _load(self, frame: AbstractFrame, node: Outer, name: str, *read: Outer) -> Outer:
        """The node of an attribute, which is recorded as read, and others as read with it."""
        child = node.child("attr", name)
        child.loaded = True
        self.read(frame, (child, *read))
        return child

    def _attribute_of_class(self, frame: AbstractFrame, node: Outer, name: str) -> Value:
        raw = class_lookup(node.obj, name)
        if is_a(raw, classmethod):
            func = _undecorated(node.child("attr", name).child("unwrap"))
            return exactly(Method(node, name, func))
        if is_a(raw, staticmethod):
            return node.child("attr", name).child("unwrap").value()
        if raw is NO_ATTRIBUTE and class_lookup(type(node.obj), name) is not NO_ATTRIBUTE:
            func = node.child("type").child("attr", name)
            return exactly(Method(node, name, _function_or_none(func)))
        return self._load(frame, node, name).value()

    def _class_attribute(
        self, frame: AbstractFrame, origin: Outer | Fresh, cls: type, name: str
    ) -> Value | None:
        """What a class gives for an attribute of its instance; None where that is plain data."""
        raw = class_lookup(cls, name)
        if raw is NO_ATTRIBUTE:
            return None
        holder = self._class_node(origin, cls)
        if type(raw) is types.FunctionType or is_lru_cache(raw) or is_decorated(raw):
            return exactly(Method(origin, name, _undecorated(holder.child("attr", name))))
        if is_a(raw, functools.partialmethod) or type(raw) in METHOD_DESCRIPTORS or _is_cython(raw):
            return exactly(Method(origin, name, None))
        if is_a(raw, (staticmethod, classmethod, property, functools.cached_property)):
            func = holder.child("attr", name).child("unwrap")
            if is_a(raw, staticmethod):
                return func.value()
            if is_a(raw, classmethod):
                return exactly(Method(holder, name, _undecorated(func)))
            if is_own_function(func.obj):
                return self.call(frame, func.value(), Arguments((exactly(origin),)))
            return exactly(origin.child("attr", name)) if type(origin) is Outer else PLAIN_VALUE
        if type(origin) is Fresh:
            # A class attribute seen through an instance made in the call.
            return holder.child("attr", name).value() if is_own_class(cls) else None
        return None

    def _class_node(self, origin: Outer | Fresh | None, cls: type) -> Outer:
        if type(origin) is Outer and type(origin.obj) is cls:
            return origin.child("type")
        for node in self.trail:
            if node.obj is cls:
                return node
        node = self.root.child("class", cls)
        node.obj = node.mark = cls
        node.label = cls.__name__
        return node

    def _super_attribute(self, proxy: Super, name: str) -> Value:
        result = PLAIN_VALUE
        for origin in proxy.receiver.origins:
            if not isinstance(origin, (Outer, Fresh)):
                continue
            cls = origin.cls if isinstance(origin, Fresh) else type(origin.obj)
            if isinstance(origin, Outer) and is_a(origin.obj, type):
                cls = origin.obj
            if not is_a(cls, type):
                continue
            order = mro_of(cls)
            after = order[order.index(proxy.after) + 1 :] if proxy.after in order else order[1:]
            for base in after:
                if name in type.__getattribute__(base, "__dict__"):
                    func = self._class_node(None, base).child("attr", name)
                    if is_a(func.obj, (staticmethod, classmethod)):
                        func = func.child("unwrap")
                    func = _undecorated(func)
                    result |= exactly(Method(origin, name, _function_or_none(func)))
                    break
        return result

    def store_attribute(
        self, frame: AbstractFrame, on: Value, name: str, value: Value | None
    ) -> None:
        """`on.name = value`, or `del on.name` where `value` is None."""
        for origin in on.origins:
            if type(origin) is Outer:
                slot = origin.child("attr", name)
                plain = "sets an attribute of" if origin.is_item else "sets"
                how = self.how_rebound(frame, value, "deletes", plain)
                self.note(frame, origin, (REBIND, how), slot, value)
                if value is not None and origin.obj is not UNKNOWN_OBJECT:
                    raw = class_lookup(type(origin.obj), name)
                    if is_a(raw, property) and is_a(raw.fset, types.FunctionType):
                        self.special(frame, origin, "__setattr__", PLAIN_VALUE, value)
            elif type(origin) is Fresh and value is not None:
                frame.store(origin, ("attr", name), value)

    def special(
        self, frame: AbstractFrame, origin: Origin, name: str, *args: Value
    ) -> Value | None:
        """Follow a special method of one of the program's own classes; None if there is none."""
        if not isinstance(origin, (Outer, Fresh)):
            return None
        cls = origin.cls
        if isinstance(origin, Outer) and origin.obj is not UNKNOWN_OBJECT:
            cls = type(origin.obj)
        if not is_a(cls, type) or not is_own_function(class_lookup(cls, name)):
            return None
        func = self._class_node(origin, cls).child("attr", name)
        return self.follow(frame, func, Arguments((exactly(origin), *args)))


def _function_or_none(func: Outer) -> Outer | None:
    return func if type(func.obj) is types.FunctionType else None
