"""The net under the guard: notices by what happens that items change what outlives the call.

What the bytecode does not show (C code, libraries without a table, what begins at item 40) shows
in the state that a callable can reach: captured variables, globals, ``self``, defaults.
A ``Net`` compares digests of that, and of the items, before and after they run.

Guarantees and cost: see ``digest``. What only one of them may do is not judged here.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
import time
import types

from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple
from parallax._guard.code import decode
from parallax._guard.digest import Walk, content_of
from parallax._guard.fingerprint import follow
from parallax._guard.generators import handle, shared_generators
from parallax._guard.lookup import (
    is_a,
    is_lru_cache,
    is_own_class,
    is_own_code,
)
from parallax._guard.other_threads import goes_on
from parallax._guard.process_state import (
    hooks,
    look_at_process,
    of_imports,
    process_difference,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

    from parallax._core.chunks import ChunkResult
    from parallax._guard.fingerprint import Path

#: Functions that are followed, and places of state that are compared. More: the net costs more than
#: short runs gain; fewer: changes deep in large programs are missed.
MAX_FUNCTIONS: Final = 200
MAX_PLACES: Final = 60

#: The least steps of a walk for one place.
MIN_STEPS: Final = 20

#: Share of the time of a worker's items that looking may take. As much again goes into what looking
#: does to caches and the collector.
MAX_SHARE: Final = 0.01

#: Seconds of looking that are not weighed against the items' time.
FREE_S: Final = 0.003

# Of this thread: how long others keep the cores busy is no cost of looking.
clock = time.thread_time


class Mesh(NamedTuple):
    """How closely to look, for workers to do the same."""

    #: steps of all walks together; see ``digest``.
    steps: float
    #: paths from the callable to what only caches.
    caches: tuple[Path, ...] = ()


class Change(NamedTuple):
    """A place whose state differs from what it was."""

    name: str
    #: what changed is inside an object of a library that may not be data.
    foreign: bool = False


class Net:
    """Compares the state that a callable can reach; for one thread."""

    def __init__(self, fn: Any, mesh: Mesh, *, share: float = math.inf, keep: bool = False) -> None:
        """Prepare.

        Args:
            fn: the callable.
            mesh: how closely to look.
            share: how much of the items' time looking may take; if it takes more, fewer samples
                are looked at. No items are passed over: what others do meanwhile would count.
            keep: the latest items are looked at again between them and the next.
        """
        self._mesh = mesh
        self._fn = fn
        self._share = share
        self._keep = keep
        #: seconds that looking took.
        self.spent = 0.0
        self._worked = 0.0
        self._began = 0.0
        # Name of the place, holder, and key in the holder.
        self._places: list[tuple[str, Any, Any]] = []
        self._visited: set[int] = set()
        self._kinds: dict[Any, Any] = {}
        self._known: list[tuple[int, int]] | None = None
        self._process: list[Any] = []
        self._modules = 0
        self._items: tuple[Sequence[Any], tuple[int, int]] | None = None
        self._ended: tuple[Sequence[Any], tuple[int, int]] = (), (0, 0)
        #: modules that the program's code may import, and attributes that it sets.
        self.imports: set[str] = set()
        self.stored: set[str] = set()
        for title, generator in shared_generators():
            self._add(title, generator)  # code of libraries, too, draws from these
        self._visit(fn, "self")
        for title, hook in hooks():
            code: Any = getattr(hook, "__code__", None)
            if is_a(code, types.CodeType) and is_own_code(code.co_filename):
                self._visit(hook, title)

    def before(self, items: Sequence[Any]) -> None:
        """Items begin; what was seen after the latest ones still holds."""
        begin = clock()
        items = [*items]  # a recall shortens the list
        if self._known is None or self._share == math.inf:  # else what was seen last still holds
            self._process = look_at_process()
        if self._known is None:
            self._look(items)  # finds the classes, whose methods read globals
            self._known, mine = self._look(items)
        else:
            mine = Walk(self._kinds).digest(items, self._mesh.steps)
        self._items, self._modules = (items, mine), len(sys.modules)
        self._began = clock()
        self.spent += self._began - begin

    def after(self) -> list[Change]:
        """Items have ended: the places that have changed since they began."""
        begin = clock()
        self._worked += begin - self._began
        if self._items is None or self._known is None:
            return []
        (items, mine), known = self._items, self._known
        self._known, now = self._look(items)
        self._items = None
        if self._keep:
            self._ended = items, now
        places = [("the item", mine, now), *self._compared(known)]
        found = [Change(name, foreign=old[0] == new[0]) for name, old, new in places if old != new]
        before, self._process = self._process, look_at_process()
        if name := process_difference(before, self._process, of_imports(self._modules)):
            found.append(Change(name))
        self.spent += clock() - begin
        if self.spent > self._share / 2 * self._worked + FREE_S and self._mesh.steps > MIN_STEPS:
            self._mesh = self._mesh._replace(steps=self._mesh.steps / 2)
            self._known = self._look(())[0]
        return found

    def between(self) -> list[Change]:
        """Between two items: the places that have changed since the latest one ended."""
        begin, known, (items, old_items) = clock(), self._known, self._ended
        self._ended = (), (0, 0)
        if known is None:
            return []
        self._known, new_items = self._look(items)
        self.spent += clock() - begin
        places = [("the item", old_items, new_items)] if items else []
        places += self._compared(known)
        return [Change(name) for name, old, new in places if old != new]

    def refine(self, steps: float) -> None:
        """Look closer from now on, if that makes a difference."""
        if steps > 2 * self._mesh.steps:
            self._mesh = self._mesh._replace(steps=steps)
            items, _ = self._ended
            self._known, now = self._look(items)
            self._ended = items, now

    def draws(self, name: str) -> bool:
        """Whether a place is a generator of random numbers."""
        found = (_value(*place) for title, *place in self._places if title == name)
        return any(handle(each) is not None for each in found)

    def drawn_elsewhere(self, name: str, seconds: float) -> bool:
        """Whether another thread draws from a generator that all code shares, if it is one."""
        generator = dict(shared_generators()).get(name)
        if generator is None:
            return False
        return goes_on(lambda: Walk({}).digest(generator, self._mesh.steps), seconds)

    def forget(self) -> None:
        """Items run that are not looked at."""
        self._known, self._ended = None, ((), (0, 0))

    def _compared(self, known: list[tuple[int, int]]) -> Iterator[tuple[str, Any, Any]]:
        names = (name for name, *_ in self._places)
        return zip(names, known, self._known or (), strict=False)

    def _look(self, items: Sequence[Any]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
        walk = Walk(self._kinds, [follow(path, self._fn, ()) for path in self._mesh.caches])
        each = max(MIN_STEPS, self._mesh.steps / max(1, len(self._places)))
        found = [walk.digest(_value(*place[1:]), each) for place in self._places]
        mine = walk.digest(items, self._mesh.steps)
        self._visit_met(walk)
        return found, mine

    def _visit_met(self, walk: Walk) -> None:
        code: Any
        for code in (*walk.classes, *walk.functions):
            self._visit(code, code.__name__)

    def reached(self) -> list[tuple[str, Any]]:
        """The objects that the callable can reach, each once, with the names of their places.

        The order depends on the callable alone, so it is the same in every process.
        """
        found: list[tuple[str, Any]] = []
        listed: set[int] = set()
        walk = Walk(self._kinds)
        for name, *place in self._places:  # which grow meanwhile
            begin = len(walk.met)
            walk.digest(_value(*place), self._mesh.steps)
            for obj in itertools.chain(*walk.met[begin:]):
                if id(obj) in walk.seen and id(obj) not in listed:
                    listed.add(id(obj))
                    found.append((name, obj))
            self._visit_met(walk)
        return found

    # -- what a callable can reach -------------------------------------------------------------

    def _add(self, name: str, holder: Any, key: Any = None) -> None:
        if len(self._places) < MAX_PLACES:
            self._places.append((name, holder, key))

    def _visit(self, obj: Any, name: str) -> None:
        if id(obj) in self._visited or len(self._visited) > MAX_FUNCTIONS:
            return
        self._visited.add(id(obj))
        kind = type(obj)
        if kind is types.FunctionType:
            self._visit_function(obj)
        elif kind is types.MethodType:
            self._visit(obj.__self__, "self")
            self._visit(obj.__func__, name)
        elif issubclass(kind, functools.partial):
            self._visit(obj.func, name)
            self._add("an argument of the partial", [obj.args, obj.keywords])
        elif is_lru_cache(obj):
            self._visit(obj.__wrapped__, name)
            self._add(name, obj)
        elif issubclass(kind, type):
            if is_own_class(obj):
                self._add(name, obj)
                for function in _methods(obj):
                    self._visit(function, name)
        elif kind is types.BuiltinFunctionType:
            if not is_a(obj.__self__, (types.ModuleType, type)):
                self._add("self", obj.__self__)
        elif not is_a(obj, types.ModuleType):
            self._add(name, obj)

    def _visit_function(self, function: Any) -> None:
        code = function.__code__
        own = is_own_code(code.co_filename)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._place(name, cell, None, own=own)
        if not own:
            return
        arguments = code.co_varnames[: code.co_argcount]
        defaults = function.__defaults__ or ()
        for name, value in zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True):
            self._place(name, [value], 0)
        for name, value in (function.__kwdefaults__ or {}).items():
            self._place(name, [value], 0)
        if function.__dict__:
            self._add(function.__name__, function.__dict__)
        names, attributes = _names_in(code, self.imports, self.stored)
        space = function.__globals__
        for name in names:
            if name not in space:
                continue
            value = space[name]
            if is_a(value, types.ModuleType):
                inside = vars(value)
                if is_own_code(str(inside.get("__file__") or "<frozen>")):
                    for inner in attributes:
                        if inner in inside:
                            self._place(f"{name}.{inner}", inside, inner)
            else:
                self._place(name, space, name)

    def _place(self, name: str, holder: Any, key: Any, *, own: bool = True) -> None:
        value = _value(holder, key)
        if is_a(value, _FOLLOWED) or is_lru_cache(value):
            self._visit(value, name)
        elif own and not is_a(value, types.ModuleType):
            self._add(name, holder, key)


_FOLLOWED: Final = (
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, type,
)  # fmt: skip


def _value(holder: Any, key: Any) -> Any:
    """What is in a place now."""
    if type(holder) is types.CellType:
        return content_of(holder)
    if key is None:
        return holder
    try:
        return holder[key]
    except LookupError:
        return None


def _methods(cls: type) -> Iterator[Any]:
    for value in [*vars(cls).values()]:
        if is_a(value, property):
            yield from filter(None, (value.fget, value.fset))
        else:
            function = getattr(value, "__func__", value)
            if type(function) is types.FunctionType:
                yield function


def _names_in(
    code: types.CodeType, imports: set[str], stored: set[str]
) -> tuple[dict[str, None], dict[str, None]]:
    """The globals and the attributes that code names, nested functions included."""
    named: dict[str, None] = {}
    attributes: dict[str, None] = {}
    instructions = decode(code).instructions
    for at, instruction in enumerate(instructions):
        if instruction.op in ("LOAD_GLOBAL", "LOAD_NAME"):
            named[instruction.value] = None
        elif instruction.op in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes[instruction.value] = None
        elif instruction.op == "STORE_ATTR":
            before = instructions[max(0, at - 2) : at]
            if not any(each.op.startswith("INPLACE_") or each.text[-1:] == "=" for each in before):
                stored.add(instruction.value)  # `x.a += 1` reads it first
        elif instruction.op == "IMPORT_NAME":
            imports.add(instruction.value.partition(".")[0])
    for constant in code.co_consts:
        if is_a(constant, types.CodeType):
            more, further = _names_in(constant, imports, stored)
            named |= more
            attributes |= further
    return named, attributes


class WorkerNet:
    """The net of a worker process, over the chunks of one run."""

    def __init__(self, steps: float, caches: Sequence[Path], harmless: Sequence[str]) -> None:
        """Prepare; see ``Watch``."""
        self._mesh = Mesh(steps, tuple(caches))
        self._harmless = {*harmless}
        self._net: Net | None = None
        self._spent = 0.0
        #: names of the places that have changed: what runs afterwards runs on changed copies.
        self._changed: dict[str, None] = {}

    def before(self, fn: Any, items: Sequence[Any]) -> None:
        """A chunk begins."""
        if self._net is None:
            self._net = Net(fn, self._mesh, share=MAX_SHARE)
        self._spent = self._net.spent
        self._net.before(items)

    def after(self, result: ChunkResult) -> ChunkResult:
        """A chunk has ended: its result, with what was seen to have changed."""
        assert self._net is not None
        names = [each.name for each in self._net.after()]
        self._changed.update(dict.fromkeys(n for n in names if n not in self._harmless))
        looked = self._net.spent - self._spent
        return result._replace(changed=tuple(self._changed), looked=looked)
