"""What the operations and calls of the analysed code do to objects from outside the call.

`Scan` is the semantics behind `_bytecode.Frame`: it looks names and attributes up in the real
objects (without running anything of theirs), follows calls into the program's own functions, reads
the tables of `_mutators` for installed ones, and notes an `Event` wherever something outer changes.

Guarantees: never calls the program's code; stops at a fixed budget by raising `TooBig`.
Assumes: one thread per `Scan`; the objects are not changed meanwhile (if they are, look-ups fail
softly and the guard's marks notice at the next scan).
"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from parallax._bytecode import Frame, step_for
from parallax._mutators import (
    ALIASES,
    ARGUMENT_CHANGES,
    CONTAINER_CALLS,
    GETTERS,
    INPLACE,
    METHODS,
    PACKAGES,
    PROCESS_CALLS,
    PURE_CALLS,
    TYPED_METHODS,
    Change,
)
from parallax._provenance import (
    CHANCE,
    CLASS_VALUE,
    ELEM,
    EMPTY,
    MISSING,
    PLAIN,
    UNKNOWN,
    Cell,
    Fresh,
    Func,
    Method,
    Origin,
    Outer,
    Super,
    Value,
    class_lookup,
    dependencies,
    inner,
    is_a,
    is_code_like,
    is_frozen,
    is_known_dict,
    is_own_class,
    is_own_code,
    join,
    mro_of,
    top_module,
    value_of,
)

__all__ = ["Event", "Scan", "TooBig"]

# Smaller: programs of a few hundred functions count as too big to look through; larger: the first
# scan of such a program takes longer than it could save. About 3 us each.
_BUDGET: Final = 40_000
_MAX_CALLS: Final = 40
# Below this depth of calls, lists made on the way are no longer told apart, or each combination of
# arguments would be analysed anew.
_EXACT_DEPTH: Final = 3

_REBIND: Final = "rebind"
_SCALARS: Final = (str, int, bool, bytes, type(None))
_METHOD_DESCRIPTORS: Final = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
# Functions that do not look at the content of what they are given.
_NO_LOOK: Final = frozenset(
    {"hasattr", "getattr", "vars", "isinstance", "id", "type", "callable", "setattr", "iter"}
)
_LOCKS: Final = frozenset(
    {"lock", "RLock", "_RLock", "Condition", "Semaphore", "BoundedSemaphore", "Lock"}
)


class TooBig(Exception):  # noqa: N818 - a signal, not an error anyone sees
    """The program's own code that the callable reaches is too big to be looked through."""


class Event:
    """Something outer is changed by one instruction."""

    __slots__ = ("at", "frame", "how", "node", "same", "shape", "slot", "target")

    def __init__(
        self, frame: Frame, node: Outer | None, slot: Outer | None, shape: str, how: str,
        target: str, same: bool,
    ) -> None:  # fmt: skip
        self.frame = frame
        self.at = frame.at
        self.node = node  # the container or object that changes
        self.slot = slot  # the part of it that is assigned, if there is one
        self.shape = shape
        self.how = how
        self.target = target
        self.same = same  # the new content was computed from the old one


def _driver(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return fn(*args)


class Scan:
    """One analysis of one callable."""

    def __init__(self, fn: Callable[..., Any], sample: tuple[Any, ...]) -> None:
        self.trail: list[Outer] = []
        self.events: list[Event] = []
        self.globals_read: dict[tuple[str, str], None] = {}
        self.stale = 0
        self._seen: dict[tuple[Any, ...], Event] = {}
        self._left = _BUDGET
        self._frames: dict[tuple[Any, ...], tuple[Frame, Value | None]] = {}
        self._spaces: dict[int, Outer] = {}
        name = getattr(type(fn), "__name__", "") if not is_code_like(fn) else ""
        self.root = Outer(self.trail, None, "fn", None, fn, "self" if name else "")
        if not name:
            self.root.label = str(getattr(fn, "__name__", "the callable"))
        self.items = [
            Outer(self.trail, None, "arg", k, value, "the item") for k, value in enumerate(sample)
        ]

    def run(self) -> Value:
        """Analyse a call of the callable with the sample as arguments; what it returns."""
        space = Outer([], None, "import", "builtins", {}, "")
        args = Fresh()
        for k, node in enumerate(self.items):
            args.fields["item", k] = self._item_value(node)
        names = {"fn": value_of(self.root), "args": Value(frozenset((args,)), EMPTY)}
        self.driver = Frame(self, _driver.__code__, space, names, {}, None, "")
        return self.driver.run()

    @staticmethod
    def _item_value(node: Outer) -> Value:
        value = value_of(node)
        # Whatever is computed from the item depends on it, even when it is a plain number.
        return Value(value.origins, frozenset((node,)))

    def spend(self, frame: Frame) -> None:
        """Charge one instruction."""
        self._left -= 1
        if self._left < 0:
            raise TooBig

    # -------------------------------------------------------- noting changes

    def note(
        self, frame: Frame, node: Outer | None, change: Change | tuple[str, str],
        slot: Outer | None = None, value: Value | None = None, target: str | None = None,
    ) -> None:  # fmt: skip
        """Something outer changes at the frame's current instruction."""
        shape, how = change
        if node is not None and self._exempt(node):
            return
        same = False
        if value is not None and node is not None:
            goals = {slot, node.child("elem")} if shape == "slot" else {slot}
            if slot is not None and value.origins == {slot}:
                return  # `x.items += [...]` puts the same list back; the list has its own event
            same = not goals.isdisjoint(dependencies(value))
        if slot is not None and value is not None and shape in (_REBIND, "slot"):
            self._expect(slot, value)
        if target is None:
            target = (slot if slot is not None and shape == _REBIND else node or self.root).label
        key = (id(frame.code), frame.at, id(node), id(slot), how)
        known = self._seen.get(key)
        if known is not None:
            known.same = known.same or same
            return
        event = Event(frame, node, slot, shape, how, target, same)
        self._seen[key] = event
        self.events.append(event)

    def _expect(self, slot: Outer, value: Value) -> None:
        """A slot that is empty now will hold what the callable puts there, for the next item."""
        if slot.obj is None:
            slot.obj = UNKNOWN
            self.stale += 1
        if slot.obj is UNKNOWN and slot.cls is None:
            for origin in value.origins:
                if type(origin) is Fresh and origin.cls is not None:
                    slot.cls = origin.cls
                    self.stale += 1

    @staticmethod
    def _exempt(node: Outer) -> bool:
        """State that belongs to each thread or to the terminal."""
        walk: Outer | None = node
        while walk is not None:
            obj = walk.obj
            if obj is not UNKNOWN and (
                is_a(obj, threading.local)
                or obj is sys.stdout
                or obj is sys.stderr
                or type(obj).__module__ == "multiprocessing.managers"
            ):
                return True
            walk = walk.parent
        return False

    def _read(self, frame: Frame, deps: Iterable[Any]) -> None:
        reads: dict[int, frozenset[Any]] = frame.reads
        reads[frame.at] = reads.get(frame.at, EMPTY) | frozenset(deps)

    # -------------------------------------------------------- names

    def load_global(self, frame: Frame, name: str) -> Value:
        """A global or builtin name."""
        space = frame.ns
        node = space.child("name", name)
        node.loaded = True
        self._read(frame, (node,))
        if space.obj is not UNKNOWN and name in space.obj and not name.startswith("__"):
            self._note_global(space.obj, name, node)
        return value_of(node)

    def _note_global(self, space: dict[str, Any], name: str, node: Outer) -> None:
        module = space.get("__name__")
        if type(module) is str and module != "__main__" and node.obj is not UNKNOWN and not is_code_like(node.obj):
            known = sys.modules.get(module)
            if known is not None and getattr(known, "__dict__", None) is space:
                self.globals_read[module, name] = None

    def store_global(self, frame: Frame, name: str, value: Value | None) -> None:
        """`global name; name = ...`."""
        node = frame.ns.child("name", name)
        how = self._how_rebound(frame, value, "deletes")
        self.note(frame, frame.ns, (_REBIND, how), node, value, f"global {name}")

    def load_outer(self, node: Outer) -> Value:
        """A variable of an enclosing function that is outside the call."""
        node.loaded = True
        return value_of(node)

    def store_cell(self, frame: Frame, name: str, cell: Cell, value: Value | None) -> None:
        """`nonlocal name; name = ...`."""
        node = cell.outer
        if node is not None:
            how = self._how_rebound(frame, value, "deletes")
            self.note(frame, node.parent, (_REBIND, how), node, value, f"nonlocal {name}")

    @staticmethod
    def _how_rebound(frame: Frame, value: Value | None, deleted: str, plain: str = "rebinds") -> str:
        if value is None:
            return deleted
        # The operator just before the store, if there is one, names the change best.
        for back in range(frame.at - 1, max(frame.at - 4, -1), -1):
            ins = frame.decoded.instructions[back]
            if ins.op.startswith("INPLACE_"):
                return "adds to" if ins.op == "INPLACE_ADD" else "updates"
            if ins.text.endswith("="):
                return "adds to" if ins.text == "+=" else "updates"
        return plain

    def import_name(self, frame: Frame, name: str) -> Value:
        """`import name`, which is looked up among the modules that are already there."""
        node = self.root.child("import", name)
        return Value(frozenset((node,)), EMPTY)

    # -------------------------------------------------------- attributes

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
            self._read(frame, (node, child))
            return Value(frozenset((child,)), EMPTY)
        if name == "__class__":
            return Value(frozenset((node.child("type"),)), EMPTY)
        if name == "__dict__":
            return Value(frozenset((node,)), EMPTY)
        if is_a(obj, types.ModuleType):
            child = node.child("attr", name)
            child.loaded = True
            self._read(frame, (child,))
            space = object.__getattribute__(obj, "__dict__")
            file = space.get("__file__")
            if name in space and type(file) is str and is_own_code(file):
                self._note_global(space, name, child)
            return value_of(child)
        if is_a(obj, type):
            raw = class_lookup(obj, name)
            if is_a(raw, classmethod):
                func = node.child("attr", name).child("unwrap")
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
            self._read(frame, (child,))
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
        self._read(frame, (node, child))
        return value_of(child)

    def _class_attribute(
        self, frame: Frame, origin: Outer | Fresh, cls: type, raw: Any, name: str
    ) -> Value | None:
        """What a class gives for an attribute of its instance, None where that is plain data."""
        if raw is MISSING:
            return None
        holder = self._class_node(origin, cls)
        kind = type(raw)
        if kind is types.FunctionType or kind.__name__ == "_lru_cache_wrapper":
            func = holder.child("attr", name)
            return Value(frozenset((Method(origin, name, func),)), EMPTY)
        if is_a(raw, functools.partialmethod) or kind in _METHOD_DESCRIPTORS:
            return Value(frozenset((Method(origin, name, None),)), EMPTY)
        if is_a(raw, staticmethod):
            return value_of(holder.child("attr", name).child("unwrap"))
        if is_a(raw, classmethod):
            func = holder.child("attr", name).child("unwrap")
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
        result = PLAIN
        for origin in proxy.receiver.origins:
            if type(origin) not in (Outer, Fresh):
                continue
            assert isinstance(origin, Outer | Fresh)
            cls = origin.cls if type(origin) is Fresh else type(origin.obj)
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
                    known = func if type(func.obj) is types.FunctionType else None
                    result = join(result, Value(frozenset((Method(origin, name, known),)), EMPTY))
                    break
        return result

    def store_attribute(self, frame: Frame, on: Value, name: str, value: Value | None) -> None:
        """`on.name = value`."""
        for origin in on.origins:
            if type(origin) is Outer:
                slot = origin.child("attr", name)
                how = self._how_rebound(frame, value, "deletes", "sets")
                if origin.is_item:
                    how = "sets an attribute of" if how == "sets" else how
                self.note(frame, origin, (_REBIND, how), slot, value)
                if value is not None and origin.obj is not UNKNOWN:
                    raw = class_lookup(type(origin.obj), name)
                    if is_a(raw, property) and is_a(raw.fset, types.FunctionType):
                        self.special(frame, origin, "__setattr__", [PLAIN, value])
            elif type(origin) is Fresh and value is not None:
                frame.store(origin, ("attr", name), value)

    # -------------------------------------------------------- items and operators

    def item(self, frame: Frame, value: Value, key: Value) -> Value:
        """`value[key]`."""
        result: Value | None = None
        deps = value.deps | dependencies(key)
        for origin in value.origins:
            found = self._item_of(frame, origin, key)
            deps |= found.deps
            result = found if result is None else join(result, found)
        self._read(frame, deps)
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
                return frame.fresh("slice", ELEM, value_of(origin.child("elem")))
            return Value(frozenset((origin,)), EMPTY)  # a view, as NumPy and memoryview give
        if is_a(obj, types.FunctionType) or is_a(obj, type):
            return PLAIN  # list[int]
        child = self._slot(origin, key)
        child.loaded = True
        self._read(frame, (origin, child))
        found = value_of(child)
        if child.obj is UNKNOWN and child.kind == "item":
            found = join(found, value_of(origin.child("elem")))
        return found

    @staticmethod
    def _slot(node: Outer, key: Value) -> Outer:
        kind, const = step_for(key)
        return node.child(kind, const)

    def store_item(self, frame: Frame, on: Value, key: Value, value: Value | None) -> None:
        """`on[key] = value`."""
        for origin in on.origins:
            if type(origin) is Outer:
                if self._is_namespace(origin) and type(key.const) is str:
                    slot = origin.child("name", key.const)
                    self.note(
                        frame, origin, (_REBIND, "rebinds"), slot, value, f"global {key.const}"
                    )
                    continue
                slot = self._slot(origin, key)
                if value is None:
                    self.note(frame, origin, Change("take", "deletes an item of"), slot)
                else:
                    how = self._how_rebound(frame, value, "", "assigns an item of")
                    self.note(frame, origin, Change("slot", how), slot, value)
                self.special(frame, origin, "__setitem__", [key, value or PLAIN])
            elif type(origin) is Fresh and value is not None:
                frame.store(origin, step_for(key), value)

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

    def contains(self, frame: Frame, needle: Value, holder: Value) -> Value:
        """`needle in holder`."""
        deps = dependencies(needle, holder)
        for origin in holder.origins:
            if type(origin) is Outer:
                origin.peeked = True
                self.special(frame, origin, "__contains__", [needle])
                if needle.const is not MISSING and type(needle.const) in _SCALARS:
                    deps |= {origin.child("item", needle.const)}
        self._read(frame, deps)
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
        if type(origin) is Outer and origin.obj is not UNKNOWN:
            cls = type(origin.obj)
        if cls is None or not is_a(cls, type):
            return None
        raw = class_lookup(cls, name)
        if type(raw) is not types.FunctionType or not is_own_code(raw.__code__.co_filename):
            return None
        func = self._class_node(origin, cls).child("attr", name)
        return self.inline_outer(
            frame, func, [Value(frozenset((origin,)), EMPTY), *args], {}, None
        )

    # -------------------------------------------------------- calls

    def call(
        self, frame: Frame, target: Value, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        """A call of whatever `target` may be."""
        if target is CLASS_VALUE:
            return self._build_class(frame, args)
        result: Value | None = None
        for origin in target.origins:
            found = self._call_origin(frame, origin, args, names, star)
            result = found if result is None else join(result, found)
        if result is None:
            result = self._external(frame, "", "", args, names, star)
        if target.deps:
            result = Value(result.origins, result.deps | target.deps, result.const)
        return result

    def _call_origin(
        self, frame: Frame, origin: Origin, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        if type(origin) is Func:
            origin.used = True
            return self._inline(
                frame, origin.code, origin.ns, origin.cells, origin, origin.defaults,
                origin.kwdefaults, args, names, star, None,
            )  # fmt: skip
        if type(origin) is Method:
            receiver = Value(frozenset((origin.receiver,)), EMPTY)
            func = origin.func
            if func is not None:
                obj = func.obj
                if type(obj).__name__ == "_lru_cache_wrapper":
                    func = func.child("wrapped")
                    obj = func.obj
                if type(obj) is types.FunctionType and is_own_code(obj.__code__.co_filename):
                    return self.inline_outer(frame, func, [receiver, *args], names, star)
                self._follow_wrapped(frame, func, [receiver, *args], names, star)
            return self._method(frame, origin.receiver, origin.name, args, names, star)
        if type(origin) is Fresh:
            if origin.cls is not None:
                own = self.special(frame, origin, "__call__", args)
                if own is not None:
                    return own
            return self._external(frame, "", "", args, names, star)
        if type(origin) is Outer:
            return self._call_outer(frame, origin, args, names, star)
        return PLAIN

    def _call_outer(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        obj = node.obj
        kind = type(obj)
        if obj is UNKNOWN:
            if node.kind == "attr" and node.parent is not None:
                return self._method(frame, node.parent, node.key, args, names, star)
            return self._external(frame, "", "", args, names, star)
        if kind is types.FunctionType:
            if is_own_code(obj.__code__.co_filename):
                return self.inline_outer(frame, node, args, names, star)
            self._follow_wrapped(frame, node, args, names, star)
            return self._external(frame, top_module(obj), obj.__name__, args, names, star)
        if kind is types.MethodType:
            func, receiver = node.child("func"), node.child("self")
            if type(func.obj) is types.FunctionType and is_own_code(
                func.obj.__code__.co_filename
            ):
                return self.inline_outer(frame, func, [value_of(receiver), *args], names, star)
            name = getattr(func.obj, "__name__", "")
            self._external(frame, top_module(func.obj), name, args, names, star)
            return self._method(frame, receiver, name, args, names, star)
        if is_a(obj, functools.partial):
            bound = [value_of(node.child("bound", k)) for k in range(len(obj.args))]
            named = {k: value_of(node.child("bound name", k)) for k in obj.keywords}
            inside = value_of(node.child("partial"))
            return self.call(frame, inside, [*bound, *args], {**named, **names}, star)
        if kind.__name__ == "_lru_cache_wrapper":
            return self.call(frame, value_of(node.child("wrapped")), args, names, star)
        if is_a(obj, type):
            return self._instantiate(frame, node, args, names, star)
        if kind is types.BuiltinFunctionType:
            holder = obj.__self__
            if holder is None or is_a(holder, types.ModuleType):
                return self._external(frame, top_module(obj), obj.__name__, args, names, star)
            receiver = node.child("self")
            if is_a(holder, type):
                return self._external(frame, top_module(holder), obj.__name__, args, names, star)
            self._external(frame, top_module(type(holder)), obj.__name__, args, names, star)
            return self._method(frame, receiver, obj.__name__, args, names, star)
        if kind is types.MethodWrapperType:
            return self._method(frame, node.child("self"), obj.__name__, args, names, star)
        if kind in _METHOD_DESCRIPTORS and args:
            result = PLAIN
            for origin in args[0].origins:
                if type(origin) in (Outer, Fresh):
                    assert isinstance(origin, Outer | Fresh)
                    found = self._method(frame, origin, obj.__name__, args[1:], names, star)
                    result = join(result, found)
            return result
        own = self.special(frame, node, "__call__", args) if not (names or star) else None
        if own is None:
            raw = class_lookup(kind, "__call__")
            if type(raw) is types.FunctionType and is_own_code(raw.__code__.co_filename):
                func = node.child("type").child("attr", "__call__")
                return self.inline_outer(frame, func, [value_of(node), *args], names, star)
            self._follow_wrapped(frame, node, args, names, star)
            if kind.__module__ in ("operator", "_operator") and kind.__name__ == "methodcaller":
                return self._methodcaller(frame, obj, args)
            return self._external(frame, top_module(kind), "__call__", args, names, star)
        return own

    def _methodcaller(self, frame: Frame, obj: Any, args: list[Value]) -> Value:
        name = obj.__reduce__()[1][0]
        target = self.attribute(frame, args[0], name) if args else PLAIN
        return self.call(frame, target, [], {}, None)

    def _follow_wrapped(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> None:  # fmt: skip
        """The program's own functions inside a wrapper made by an installed decorator."""
        inside = [node.child("wrapped")]
        if type(node.obj) is types.FunctionType:
            inside += [node.child("free", name) for name in node.obj.__code__.co_freevars]
        for child in inside:
            obj = child.obj
            if type(obj) is types.FunctionType and is_own_code(obj.__code__.co_filename):
                self.inline_outer(frame, child, args, names, star)

    def _build_class(self, frame: Frame, args: list[Value]) -> Value:
        """A class statement inside the call: look at its methods as if each were called."""
        for origin in args[0].origins if args else ():
            if type(origin) is Func:
                origin.used = True
                for const in origin.code.co_consts:
                    if type(const) is types.CodeType:
                        cells = {**frame.cells, **origin.cells}
                        self._inline(
                            frame, const, origin.ns, cells, const, (), {}, [], {}, PLAIN, None
                        )
        return frame.fresh("class")

    def _instantiate(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        cls = node.obj
        if not is_own_class(cls):
            name = cls.__name__
            if name == "type" and len(args) == 1:
                found = PLAIN
                for origin in args[0].origins:
                    if type(origin) is Outer:
                        found = join(found, Value(frozenset((origin.child("type"),)), EMPTY))
                return found
            return self._external(frame, top_module(cls), name, args, names, star)
        made = Value(frozenset((frame.site(("new", cls), cls=cls),)), EMPTY)
        meta = class_lookup(type(cls), "__call__")
        if type(meta) is types.FunctionType and is_own_code(meta.__code__.co_filename):
            func = node.child("type").child("attr", "__call__")
            self.inline_outer(frame, func, [value_of(node), *args], names, star)
        for name in ("__new__", "__init__"):
            raw = class_lookup(cls, name)
            func = node.child("attr", name)
            first = made
            if is_a(raw, staticmethod):
                func, raw, first = func.child("unwrap"), raw.__func__, value_of(node)
            if type(raw) is types.FunctionType and is_own_code(raw.__code__.co_filename):
                result = self.inline_outer(frame, func, [first, *args], names, star)
                if name == "__new__":
                    made = join(made, result)  # a singleton hands out an older object
            elif name == "__init__" and raw is not MISSING:
                for key, value in names.items():
                    for origin in made.origins:
                        if type(origin) is Fresh:
                            frame.store(origin, ("attr", key), value)
        return made

    # -------------------------------------------------------- into the program's own functions

    def inline_outer(
        self, frame: Frame, node: Outer, args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> Value:  # fmt: skip
        """Follow a call into a function that was there before the call."""
        func = node.obj
        if type(func) is not types.FunctionType:
            return PLAIN
        code = func.__code__
        space = self._spaces.get(id(func.__globals__))
        if space is None:
            space = self._spaces[id(func.__globals__)] = node.child("globals")
            space.label = ""
        cells = {name: Cell(node.child("free", name)) for name in code.co_freevars}
        defaults: list[Value] = []
        if func.__defaults__:
            first = code.co_argcount - len(func.__defaults__)
            for k in range(len(func.__defaults__)):
                child = node.child("default", k)
                if not child.is_item:
                    child.label = code.co_varnames[first + k]
                defaults.append(value_of(child))
        kwdefaults = {k: value_of(node.child("kwdefault", k)) for k in func.__kwdefaults__ or ()}
        return self._inline(
            frame, code, space, cells, func, tuple(defaults), kwdefaults, args, names, star,
            func.__qualname__,
        )  # fmt: skip

    def _inline(
        self, frame: Frame, code: types.CodeType, space: Outer, cells: dict[str, Cell],
        owner: object, defaults: tuple[Value, ...], kwdefaults: dict[str, Value],
        args: list[Value], names: dict[str, Value], star: Value | None, label: str | None,
    ) -> Value:  # fmt: skip
        bound = self._bind(frame, code, defaults, kwdefaults, args, names, star)
        if frame.depth >= _EXACT_DEPTH:
            bound = {name: self._blurred(value) for name, value in bound.items()}
        key = (id(code), id(owner), *(value.origins for value in bound.values()))
        known = self._frames.get(key)
        if known is not None:
            callee, result = known
            if (frame, frame.at) not in callee.callers:
                callee.callers.append((frame, frame.at))
            if result is None:
                return Value(EMPTY, frozenset((CHANCE,)))  # recursion: the outer round says more
            return result
        if frame.depth >= _MAX_CALLS:
            raise TooBig
        self._left -= 20
        callee = Frame(self, code, space, bound, cells, (frame, frame.at), label)
        self._frames[key] = (callee, None)
        result = callee.run()
        self._frames[key] = (callee, result)
        for made in list(callee.sites.values()):
            if type(made) is Func and not made.used:
                # Handed to something that is not followed, which may well call it.
                made.used = True
                self._inline(
                    callee, made.code, made.ns, made.cells, made, made.defaults,
                    made.kwdefaults, [], {}, PLAIN, None,
                )  # fmt: skip
        return result

    @staticmethod
    def _blurred(value: Value) -> Value:
        """The same without the things made on the way that hold nothing outer."""
        kept = [
            origin
            for origin in value.origins
            if type(origin) is not Fresh
            or origin.cls is not None
            or any(field.origins for field in origin.fields.values())
        ]
        if len(kept) == len(value.origins):
            return value
        return Value(frozenset(kept), value.deps, value.const)

    def _bind(
        self, frame: Frame, code: types.CodeType, defaults: tuple[Value, ...],
        kwdefaults: dict[str, Value], args: list[Value], names: dict[str, Value],
        star: Value | None,
    ) -> dict[str, Value]:  # fmt: skip
        count = code.co_argcount
        params = code.co_varnames
        bound: dict[str, Value] = dict(zip(params[:count], args, strict=False))
        for k in range(len(args), count):
            name = params[k]
            default = k - (count - len(defaults))
            if name in names:
                bound[name] = names[name]
            elif default >= 0:
                bound[name] = defaults[default]
                if star is not None:
                    bound[name] = join(defaults[default], star)
            else:
                bound[name] = PLAIN if star is None else star
        more = count + code.co_kwonlyargcount
        for name in params[count:more]:
            bound[name] = names.get(name) or kwdefaults.get(name) or star or PLAIN
        if code.co_flags & 0x04:
            rest = frame.site(("rest", id(code)))
            for k, value in enumerate(args[count:]):
                frame.store(rest, ("item", k), value)
            if star is not None and star is not PLAIN:
                frame.store(rest, ELEM, star)
            bound[params[more]] = Value(frozenset((rest,)), EMPTY)
            more += 1
        if code.co_flags & 0x08:
            rest = frame.site(("named", id(code)))
            for name, value in names.items():
                if name not in bound:
                    frame.store(rest, ("item", name), value)
            bound[params[more]] = Value(frozenset((rest,)), EMPTY)
        return bound

    # -------------------------------------------------------- methods of installed classes

    def _method(
        self, frame: Frame, origin: Outer | Fresh, name: str, args: list[Value],
        names: dict[str, Value], star: Value | None,
    ) -> Value:  # fmt: skip
        if type(origin) is Fresh:
            return self._fresh_method(frame, origin, name, args, names, star)
        assert isinstance(origin, Outer)
        one = Value(frozenset((origin,)), EMPTY)
        obj = origin.obj
        if name in ("__enter__", "__aenter__"):
            return self.enter(frame, one)
        if name == "__init_subclass__" or (name == "__init__" and origin.is_item):
            return PLAIN
        change = self._change_for(obj, name)
        if change is None and names.get("inplace", PLAIN).const is True:
            change = Change("slot", "changes in place")
        if change is not None:
            slot = None
            if name in ("__setitem__", "setdefault") and args:
                slot = self._slot(origin, args[0])
            value = args[1] if name == "__setitem__" and len(args) > 1 else None
            self.note(frame, origin, change, slot, value)
        elif name not in GETTERS:
            origin.scanned = True
        self._outputs(frame, names)
        self._callbacks(frame, [*args, *names.values()], one)
        deps = dependencies(one, *args, *names.values())
        if is_frozen(obj):
            return frame.fresh("call", deps=deps)
        if name in GETTERS:
            origin.peeked = True
            child = self._slot(origin, args[0]) if args else origin.child("elem")
            found = value_of(child)
            if child.obj is UNKNOWN and child.kind == "item":
                found = join(found, value_of(origin.child("elem")))
            for default in args[1:]:
                found = join(found, default)
            self._read(frame, deps | found.deps)
            return Value(found.origins, found.deps | deps)
        if name in ("values", "items", "keys", "copy", "__iter__", "elements", "most_common"):
            return self._view(frame, name, one, deps)
        if name in ALIASES:
            return Value(one.origins, deps)
        if name == "__getattribute__" and args and type(args[0].const) is str:
            return self.attribute(frame, one, args[0].const)
        if name not in PURE_CALLS:
            deps |= {CHANCE}
        return frame.fresh("call", deps=deps)

    def _view(self, frame: Frame, name: str, one: Value, deps: frozenset[Any]) -> Value:
        if name == "keys":
            return frame.fresh("call", deps=deps)
        content = inner(one)
        if name == "items":
            pair = frame.fresh("pair", ("item", 1), content)
            return frame.fresh("call", ELEM, pair, deps)
        return frame.fresh("call", ELEM, content, deps)

    def _fresh_method(
        self, frame: Frame, origin: Fresh, name: str, args: list[Value],
        names: dict[str, Value], star: Value | None,
    ) -> Value:  # fmt: skip
        one = Value(frozenset((origin,)), EMPTY)
        if name in ("__enter__", "__aenter__"):
            return self.enter(frame, one)
        deps = dependencies(*args, *names.values())
        self._outputs(frame, names)
        self._callbacks(frame, [*args, *names.values()], one)
        if name in ("append", "add", "appendleft", "put", "push", "insert", "setdefault"):
            for value in args[-1:]:
                if value.origins:
                    frame.store(origin, ELEM, value)
        elif name in ("extend", "update", "extendleft", "__ior__"):
            for value in args:
                frame.store(origin, ELEM, inner(value))
        elif name == "__setitem__" and len(args) > 1:
            frame.store(origin, step_for(args[0]), args[1])
        if origin.cls is not None and name in METHODS:
            pass  # `class Names(list)`: the name means what it means for a list
        if name in GETTERS:
            origin.read = True
            found = inner(one)
            for default in args[1:]:
                found = join(found, default)
            return Value(found.origins, found.deps | deps)
        if name in ("values", "items", "keys", "copy"):
            return self._view(frame, name, one, deps)
        if name in ALIASES:
            return Value(one.origins, deps)
        return frame.fresh("call", deps=deps)

    @staticmethod
    def _change_for(obj: Any, name: str) -> Change | None:
        if obj is UNKNOWN:
            return METHODS.get(name)
        kind = type(obj)
        if is_frozen(obj) or is_a(obj, (type, types.ModuleType, types.FunctionType)):
            return None
        if class_lookup(kind, name) is MISSING and class_lookup(kind, "__getattr__") is MISSING:
            return None  # a sentinel, as dataclasses use for a default that is made later
        if name == "update" and is_a(obj, Counter):
            return Change("take", "adds to")
        if obj is getattr(sys.modules.get("random"), "_inst", UNKNOWN) or obj is getattr(
            sys.modules.get("numpy.random.mtrand"), "_rand", UNKNOWN
        ):
            return None  # the shared generator makes no promise about its sequence
        package: dict[str, Change] | None = None
        for base in mro_of(kind):
            top = top_module(base)
            typed = TYPED_METHODS.get((top, base.__name__))
            if typed is not None and name in typed:
                return typed[name]
            package = PACKAGES.get(top) if package is None else package
            if top == "torch" and name.endswith("_") and not name.startswith("_"):
                return Change("slot", "overwrites")
        if package is not None:
            return package.get(name)
        return METHODS.get(name)

    # -------------------------------------------------------- installed functions

    def _outputs(self, frame: Frame, names: dict[str, Value]) -> None:
        for key in ("out", "file"):
            for origin in names[key].origins if key in names else ():
                for node in self._outer_parts(origin):
                    how = Change("take", "overwrites") if key == "out" else METHODS["write"]
                    self.note(frame, node, how)

    @staticmethod
    def _outer_parts(origin: Origin) -> list[Outer]:
        """The outer object itself, or those in a tuple (`out=(a, b)`)."""
        if type(origin) is Outer:
            return [origin]
        if type(origin) is Fresh:
            return [
                each for field in origin.fields.values() for each in field.origins
                if type(each) is Outer
            ]  # fmt: skip
        return []

    def _callbacks(self, frame: Frame, values: Iterable[Value], other: Value) -> None:
        """Functions handed to installed code may be called by it, with parts of the other args."""
        values = list(values)
        content: Value | None = None
        for value in values:
            for origin in value.origins:
                own = type(origin) is Func or type(origin) is Method
                if type(origin) is Outer:
                    obj = origin.obj
                    own = is_a(
                        obj, (types.FunctionType, types.MethodType, functools.partial)
                    ) or type(obj) is types.BuiltinFunctionType
                if not own:
                    continue
                if content is None:
                    content = inner(other)
                    for each in values:
                        content = join(content, inner(each))
                found = Value(frozenset((origin,)), EMPTY)
                if type(origin) is Method and type(origin.receiver) is Fresh:
                    continue
                self.call(frame, found, [content], {}, content)

    def _external(
        self, frame: Frame, module: str, name: str, args: list[Value],
        names: dict[str, Value], star: Value | None,
    ) -> Value:  # fmt: skip
        """A call of a function or class that is not the program's own."""
        rule = ARGUMENT_CHANGES.get((module, name))
        changed = -1
        if rule is not None and rule[0] < len(args):
            changed = rule[0]
            for origin in args[changed].origins:
                if type(origin) is Outer and not is_frozen(origin.obj):
                    slot = None
                    if name in ("setattr", "delattr") and type(args[1].const) is str:
                        slot = origin.child("attr", args[1].const)
                    value = args[2] if len(args) > 2 and slot is not None else None
                    self.note(frame, origin, rule[1], slot, value)
        process = PROCESS_CALLS.get((module, name))
        if process is not None:
            self.note(frame, None, ("take", process[0]), target=process[1])
        self._outputs(frame, names)
        values = [*args, *(value for key, value in names.items() if key not in ("out", "file"))]
        if star is not None:
            values.append(star)
        for k, value in enumerate(values):
            for origin in value.origins:
                if type(origin) is Outer and k != changed and name not in _NO_LOOK:
                    origin.scanned = True
        builtin = _BUILTINS.get(name) if module == "builtins" else None
        if builtin is not None:
            found = builtin(self, frame, args, names)
            if found is not None:
                return found
        self._callbacks(frame, values, PLAIN)
        deps = dependencies(*values)
        self._read(frame, deps)
        if name not in PURE_CALLS:
            deps |= {CHANCE}
        if name in CONTAINER_CALLS:
            content = PLAIN
            for value in args:
                content = join(content, inner(value))
            fresh = frame.fresh("call", ELEM, content, deps)
            for origin in fresh.origins:
                for key, value in names.items():
                    assert isinstance(origin, Fresh)
                    frame.store(origin, ("item", key), value)
            return fresh
        if name in ALIASES and args:
            result = frame.fresh("call", deps=deps)
            for origin in args[0].origins:
                if not is_a(getattr(origin, "obj", None), (list, tuple, dict, str)):
                    result = join(result, Value(frozenset((origin,)), EMPTY))
            return result
        fresh = frame.fresh("call", deps=deps)
        for origin in fresh.origins:
            for key, value in names.items():
                if value.origins and isinstance(origin, Fresh):
                    frame.store(origin, ("attr", key), value)
        return fresh


# ---------------------------------------------------------------- builtins with a meaning of their own

_Builtin = Callable[[Scan, Frame, list[Value], dict[str, Value]], "Value | None"]


def _getattr(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    if len(args) < 2:
        return None
    if type(args[1].const) is str:
        found = scan.attribute(frame, args[0], args[1].const)
    else:
        found = inner(args[0])
        for origin in args[0].origins:
            if type(origin) is Outer:
                found = join(found, Value(frozenset((origin.child("deep"),)), EMPTY))
    for default in args[2:]:
        found = join(found, default)
    return found


def _hasattr(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    deps = dependencies(*args)
    if len(args) == 2 and type(args[1].const) is str:
        for origin in args[0].origins:
            if type(origin) is Outer:
                deps |= {origin.child("attr", args[1].const)}
    return Value(EMPTY, deps)


def _vars(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    return args[0] if args else PLAIN


def _globals(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    return Value(frozenset((frame.ns,)), EMPTY)


def _super(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    after: Any = None
    receiver = PLAIN
    if len(args) == 2:
        receiver = args[1]
        for origin in args[0].origins:
            after = getattr(origin, "obj", None)
    else:
        cell = frame.cells.get("__class__")
        if cell is not None and cell.outer is not None:
            after = cell.outer.obj
        if frame.first is not None:
            receiver = frame.start.get(frame.first, PLAIN)
    return Value(frozenset((Super(after, receiver),)), EMPTY)


def _iter(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    return scan.iterate(frame, args[0]) if len(args) == 1 else None


def _next(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    if not args:
        return None
    found = inner(args[0])
    for default in args[1:]:
        found = join(found, default)
    return found


def _smallest(scan: Scan, frame: Frame, args: list[Value], names: dict[str, Value]) -> Value | None:
    found = PLAIN
    for value in args:
        found = join(found, value if len(args) > 1 else inner(value))
    scan._callbacks(frame, names.values(), args[0] if args else PLAIN)
    return Value(found.origins, found.deps | dependencies(*args))


def _enumerate(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    content = inner(scan.iterate(frame, args[0])) if args else PLAIN
    pair = frame.fresh("pair", ("item", 1), content)
    return frame.fresh("call", ELEM, pair, dependencies(*args))


def _zip(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    row = frame.site("row")
    for k, value in enumerate(args):
        content = inner(scan.iterate(frame, value))
        if content.origins or content.deps:
            frame.store(row, ("item", k), content)
    return frame.fresh("call", ELEM, Value(frozenset((row,)), EMPTY), dependencies(*args))


def _map(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    if not args:
        return None
    content = [inner(value) for value in args[1:]]
    result = scan.call(frame, args[0], content, {}, None)
    return frame.fresh("call", ELEM, result, dependencies(*args))


def _exec(scan: Scan, frame: Frame, args: list[Value], _: dict[str, Value]) -> Value | None:
    raise TooBig  # code made at run time: nothing can be said


_BUILTINS: Final[dict[str, _Builtin]] = {
    "getattr": _getattr, "hasattr": _hasattr, "vars": _vars, "globals": _globals, "super": _super,
    "iter": _iter, "next": _next, "min": _smallest, "max": _smallest, "enumerate": _enumerate,
    "zip": _zip, "map": _map, "exec": _exec,
}  # fmt: skip
