"""Generators of random numbers: those that all code shares, and those that a callable holds.

Guarantees: finding them runs no code of the program and imports nothing; the order in which they
are found depends on the callable alone, so it is the same in every process.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from itertools import islice

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.code import decode
from parallax._guard.lookup import (
    instance_dict,
    is_a,
    is_code_like,
    is_frozen,
    is_lru_cache,
    is_own_class,
    is_own_code,
    is_own_function,
    mro_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Final

    from parallax._core.seeds import RandomStream

# Objects that are looked at, and elements of each container. Smaller: generators deep inside a
# callable are missed; larger: the first item of a call takes longer.
_MAX_OBJECTS: Final = 4000
_MAX_ELEMENTS: Final = 64
# The same in a call without `seed=`, whose items may be short.
MAX_WATCHED_OBJECTS: Final = 400
# The generators that all code of a process shares: title, module, name.
SHARED_GENERATORS: Final = (
    ("random", "random", "_inst"),
    ("numpy.random", "numpy.random.mtrand", "_rand"),
    ("torch", "torch", "default_generator"),
)
SHARED_TITLES: Final = tuple(title for title, _, _ in SHARED_GENERATORS)


class PythonGenerator:
    """A `random.Random`."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._class: Any = _loaded("random", "Random")  # a subclass may have replaced the methods

    def state(self) -> Any:
        """The present state."""
        return self._class.getstate(self._generator)

    def restore(self, state: Any) -> None:
        """Take a state back."""
        self._class.setstate(self._generator, state)

    def seed(self, stream: RandomStream) -> None:
        """Begin with a stream."""
        seed = sum(word << 32 * k for k, word in enumerate(stream.words(8)))
        self._class.seed(self._generator, seed)

    def drawn(self, seeded: Any) -> bool:
        """Whether numbers were drawn since the state was `seeded`."""
        return bool(self.state() != seeded)


class NumpyGenerator(PythonGenerator):
    """A `Generator`, `RandomState` or `BitGenerator` of NumPy."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        # A RandomState holds a number of its own besides the state of its bit generator.
        self._legacy = hasattr(generator, "set_state")

    def _bits(self) -> Any:
        name = "_bit_generator" if self._legacy else "bit_generator"
        return getattr(self._generator, name, self._generator)

    def state(self) -> Any:
        return self._generator.get_state(legacy=False) if self._legacy else self._bits().state

    def restore(self, state: Any) -> None:
        if self._legacy:
            self._generator.set_state(state)
        else:
            self._bits().state = state

    def seed(self, stream: RandomStream) -> None:
        numpy: Any = sys.modules["numpy.random"]
        bits = self._bits()
        fresh = type(bits)(
            numpy.SeedSequence(stream.entropy, spawn_key=stream.key, pool_size=stream.pool_size)
        )
        self.restore(
            numpy.RandomState(fresh).get_state(legacy=False) if self._legacy else fresh.state
        )

    def drawn(self, seeded: Any) -> bool:
        return bool(_plain(self.state()) != _plain(seeded))


class TorchGenerator(PythonGenerator):
    """A generator of PyTorch."""

    _generator: Any

    def state(self) -> Any:
        return self._generator.get_state()

    def restore(self, state: Any) -> None:
        self._generator.set_state(state)

    def seed(self, stream: RandomStream) -> None:
        low, high = stream.words(2)
        self._generator.manual_seed(low | high << 32)

    def drawn(self, seeded: Any) -> bool:
        return not bool((self.state() == seeded).all())


_HANDLERS: Final[Any] = (
    ("random", "Random", PythonGenerator),
    ("numpy.random", "Generator", NumpyGenerator),
    ("numpy.random", "RandomState", NumpyGenerator),
    ("numpy.random", "BitGenerator", NumpyGenerator),
    ("torch", "Generator", TorchGenerator),
)


def _plain(state: Any) -> Any:
    """A state with its arrays as bytes, to be compared."""
    if type(state) is dict:
        return {name: _plain(value) for name, value in state.items()}
    return state.tobytes() if hasattr(state, "tobytes") else state


def _loaded(module: str, name: str) -> Any:
    """What a module has under a name; None if it is not loaded."""
    return getattr(sys.modules.get(module), name, None)


def shared_generators() -> list[tuple[str, Any]]:
    """Those of SHARED_GENERATORS whose libraries are loaded, with their titles."""
    found = [(title, _loaded(module, name)) for title, module, name in SHARED_GENERATORS]
    return [(title, generator) for title, generator in found if generator is not None]


def handle(generator: Any) -> PythonGenerator | None:
    """What saves, seeds and restores an object; None if it is no generator that can be."""
    for module, name, made in _HANDLERS:
        cls = _loaded(module, name)
        if is_a(cls, type) and is_a(generator, cls):
            system = module == "random" and is_a(generator, _loaded(module, "SystemRandom"))
            return None if system else made(generator)
    return None


class Reach:
    """The objects that a callable can reach, with names, and what its code imports and stores.

    It reaches what it captured, its object, its defaults, and the globals that it and the program's
    functions behind it name. At most so many objects are looked at.
    """

    def __init__(self, fn: Any, most: int = _MAX_OBJECTS) -> None:
        self.found: list[tuple[str, Any]] = []
        self.imports: set[str] = set()
        self.stored: set[str] = set()
        todo = deque([("", fn)])
        seen: dict[int, Any] = {}
        while todo and len(seen) < most:
            name, obj = todo.popleft()
            if is_frozen(obj) or id(obj) in seen:
                continue
            seen[id(obj)] = obj
            self.found.append((name, obj))
            if type(obj) is types.FunctionType:
                todo.extend(_parts_of_function(obj, self.imports, self.stored))
            elif handle(obj) is None:
                todo.extend(_parts(name, obj))

    def generators(self) -> list[tuple[str, Any]]:
        """Those that are generators of random numbers."""
        return [(name, obj) for name, obj in self.found if handle(obj) is not None]


def _parts(name: str, obj: Any) -> Iterable[tuple[str, Any]]:
    kind = type(obj)
    inside: Iterable[Any] = ()
    if is_a(obj, functools.partial):
        inside = (obj.func, *obj.args, *obj.keywords.values())
    elif kind is types.MethodType:
        inside = obj.__self__, obj.__func__
    elif kind is types.BuiltinFunctionType:
        inside = () if is_a(obj.__self__, types.ModuleType) else (obj.__self__,)
    elif is_a(obj, (staticmethod, classmethod)):
        inside = (obj.__func__,)
    elif is_a(obj, property):
        inside = obj.fget, obj.fset
    elif is_a(obj, type):
        own = [list(vars(cls).items()) for cls in mro_of(obj) if is_own_class(cls)]
        return (part for parts in own for part in parts)
    elif is_a(obj, dict):
        inside = islice(dict.values(obj), _MAX_ELEMENTS)
    elif is_a(obj, (list, tuple)) or kind is deque:
        inside = islice(kind.__iter__(obj), _MAX_ELEMENTS)
    elif not is_code_like(obj) or is_lru_cache(obj):
        return _parts_of_instance(obj, kind)
    return [(name, each) for each in inside]


def _parts_of_instance(obj: Any, kind: type) -> Iterator[tuple[str, Any]]:
    yield from list((instance_dict(obj) or {}).items())
    for cls in mro_of(kind):
        for name, raw in list(vars(cls).items()):
            if type(raw) is types.MemberDescriptorType:
                try:
                    yield name, raw.__get__(obj, kind)
                except AttributeError:
                    continue
    yield "", kind


def _parts_of_function(fn: Any, imports: set[str], stored: set[str]) -> Iterator[tuple[str, Any]]:
    code = fn.__code__
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from (("argument", each) for each in fn.__defaults__ or ())
    yield from (fn.__kwdefaults__ or {}).items()
    yield "", getattr(fn, "__wrapped__", None)
    if is_own_function(fn):
        named, attributes = _names(code, imports, stored)
        for name in named:
            value = fn.__globals__.get(name)
            if is_a(value, types.ModuleType):
                yield from _named_in(value, attributes)
            else:
                yield name, value


def _named_in(module: Any, names: dict[str, None]) -> Iterator[tuple[str, Any]]:
    space = object.__getattribute__(module, "__dict__")
    file = space.get("__file__")
    if type(file) is str and is_own_code(file):
        yield from ((name, space[name]) for name in names if name in space)


def _names(
    code: types.CodeType, imports: set[str], stored: set[str]
) -> tuple[dict[str, None], dict[str, None]]:
    """The globals and the attributes that code names, nested functions included."""
    named: dict[str, None] = {}
    attributes: dict[str, None] = {}
    for instruction in decode(code).instructions:
        if instruction.op in ("LOAD_GLOBAL", "LOAD_NAME"):
            named[instruction.value] = None
        elif instruction.op in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes[instruction.value] = None
        elif instruction.op == "STORE_ATTR":
            stored.add(instruction.value)
        elif instruction.op == "IMPORT_NAME":
            imports.add(instruction.value.partition(".")[0])
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            more, further = _names(constant, imports, stored)
            named |= more
            attributes |= further
    return named, attributes
