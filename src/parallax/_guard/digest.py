"""Digests of what objects hold: equal as long as nothing that can be reached has changed.

Guarantees: no code of the program is run, and nothing raises; what cannot be looked into counts as
unchanged. The cost is bounded: large containers are known by their length and samples, large
buffers by samples, and a walk ends when its steps, of about a microsecond each, are spent.
Assumption: digests are compared in the process that made them, with equal ``steps``.
"""

from __future__ import annotations

import functools
import gc
import io
import itertools
import marshal
import operator
import types
from _abc import _get_dump  # type: ignore[import-not-found]
from collections import OrderedDict, deque

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.checksum import checksum
from parallax._guard.generators import handle
from parallax._guard.lookup import (
    instance_dict,
    is_a,
    is_cache_name,
    is_frozen,
    is_own_class,
    is_own_code,
    mro_of,
    slot_value,
    top_module,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final

#: Entries of a container up to which all are looked at, and how many of a larger one at each end
#: and between. More: large containers cost more than short items; fewer: changes are missed.
MAX_WHOLE_ENTRIES: Final = 1000
SAMPLED_ENTRIES: Final = 64

#: Bytes that a step of a walk can check; buffers that are too large for the steps are sampled.
BYTES_PER_STEP: Final = 4000

#: Longer text is known by its hash, which it keeps.
_MAX_TEXT: Final = 200

_PLAIN_NUMBERS: Final = frozenset({int, float, complex, bool, type(None)})
_TEXT_ONLY: Final = {str}
_PLAIN_SCALARS: Final = _PLAIN_NUMBERS | {str, bytes}
# Modules whose objects hold data and nothing else, so that only a change of data changes them.
_DATA: Final = frozenset(
    {"builtins", "collections", "array", "io", "numpy", "pandas", "random", "csv", "xml",
     "elementtree", "itertools", "types", "enum", "functools", "operator", "ctypes", "tarfile",
     "zipfile", "sched", "difflib", "unittest", "codecs", "pickle", "html", "shelve", "mailbox"}
)  # fmt: skip
# Modules of locks, handles and bookkeeping: what changes in these is no part of the answer.
_HANDLES: Final = frozenset(
    {"thread", "threading", "weakref", "socket", "ssl", "selectors", "select", "subprocess",
     "asyncio", "contextvars", "multiprocessing", "concurrent", "abc", "typing", "queue",
     "importlib", "frozen_importlib", "parallax", "requests", "httpx", "aiohttp", "urllib3",
     "boto3", "botocore", "jax", "jaxlib", "sympy", "_pytest"}
)  # fmt: skip
# Functions and the like in classes and as referents: they are no state.
_CODE: Final = (
    types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.CodeType, type, property,
    types.FrameType, types.GeneratorType, types.MemberDescriptorType, types.GetSetDescriptorType,
    types.MethodDescriptorType, types.WrapperDescriptorType, staticmethod, classmethod,
    types.MappingProxyType, functools.cached_property,
)  # fmt: skip
_NO_STATE: Final = tuple({*_CODE} - {types.BuiltinFunctionType})  # whose ``self`` may be state
_LOGGER_STATE: Final = ("level", "disabled", "propagate", "handlers", "filters")


class Walk:
    """One walk after the other, through what may share objects; each object is visited once."""

    def __init__(self, kinds: dict[Any, Any], skipped: Iterable[Any] = ()) -> None:
        """Start, without looking into ``skipped``; ``kinds`` remembers how to walk what types."""
        self._kinds = kinds
        #: all objects that were met, so that no address is used twice meanwhile.
        self.met: list[Any] = [*skipped]
        self.seen = {id(each): 0 for each in self.met}
        self._steps = 0.0
        self._todo: list[Any] = []
        self._foreign: list[Any] = []
        self._out: list[Any] = []
        self._abroad = False
        self.opaque = False  # the object itself cannot be looked into
        #: the classes of the program whose instances were met, and its functions.
        self.classes: list[type] = []
        self.functions: list[types.FunctionType] = []

    def digest(self, obj: Any, steps: float) -> tuple[int, int]:
        """Digests of the data at an object, and of what else it leads to: handles, libraries."""
        self._steps = steps
        self._abroad = self.opaque = False
        self._todo, self._foreign = [obj], []
        data = self._run()
        self._abroad = True
        self._todo = self._foreign
        return data, self._run()

    def _run(self) -> int:
        out: list[Any] = []
        self._out = out
        seen, kinds = self.seen, self._kinds
        for obj in self._todo:  # which grows meanwhile
            kind = type(obj)
            if kind in _PLAIN_SCALARS:
                self._values((obj,))
                continue
            known = seen.get(id(obj))
            if known is not None:
                out.append(known)
                continue
            self._steps -= 1
            if self._steps < 0:
                break
            seen[id(obj)] = len(seen)
            out.append(kind.__name__)
            try:
                handler = kinds.get(kind)
                if handler is None:
                    handler = _handler(obj)
                    if not issubclass(kind, type):
                        kinds[kind] = handler
                handler(self, obj)
            except Exception:  # noqa: BLE001 - another thread changes it, or it is unlike its kind
                out.append(None)
        self.met.append(self._todo)
        try:
            return hash(marshal.dumps(out, 2))
        except ValueError:  # a figure of an unforeseen kind
            return 0

    def _values(self, values: Any) -> None:
        """Note scalars, and visit other objects."""
        self._steps -= len(values) / 50
        kinds = set(map(type, values))
        if kinds <= _PLAIN_NUMBERS:
            self._out.append([*values])
            return
        if kinds == _TEXT_ONLY:
            self._out.append(hash(tuple(values)))  # of hashes that text keeps
            return
        self._steps -= len(values) / 10
        if not kinds <= _PLAIN_SCALARS:
            self._todo += [each for each in values if type(each) not in _PLAIN_SCALARS]
            values = [each for each in values if type(each) in _PLAIN_SCALARS]
        self._out.append(
            [
                each
                if type(each) in _PLAIN_NUMBERS or len(each) <= _MAX_TEXT
                else (len(each), hash(each))
                for each in values
            ]
        )

    # -- kinds of objects ----------------------------------------------------------------------

    def _nothing(self, obj: Any) -> None:
        self.opaque = self.opaque or obj is self._todo[0]

    def _frozen(self, obj: Any) -> None:
        self._out.append(repr(obj))

    def _same(self, obj: Any) -> None:
        self._out.append(id(obj))

    def _array_like(self, get: Any, size: int) -> None:
        self._out.append(size)
        if size <= MAX_WHOLE_ENTRIES:
            self._values(get(slice(None)))
            return
        n = SAMPLED_ENTRIES
        parts = slice(n), slice(None, None, size // n), slice(-n, None)
        self._values([each for part in parts for each in get(part)])

    def _list(self, obj: list[Any]) -> None:
        self._array_like(functools.partial(list.__getitem__, obj), list.__len__(obj))
        self._attributes(obj)

    def _tuple(self, obj: tuple[Any, ...]) -> None:
        self._array_like(functools.partial(tuple.__getitem__, obj), tuple.__len__(obj))

    def _iterated(self, size: int, first: Iterable[Any], last: Iterable[Any]) -> None:
        self._out.append(size)
        if size <= MAX_WHOLE_ENTRIES:
            self._values([*first])
        else:
            ends = itertools.islice(first, SAMPLED_ENTRIES), itertools.islice(last, SAMPLED_ENTRIES)
            self._values([*itertools.chain(*ends)])

    def _deque(self, obj: deque[Any]) -> None:
        self._iterated(deque.__len__(obj), deque.__iter__(obj), deque.__reversed__(obj))
        self._attributes(obj)

    def _dict(self, obj: dict[Any, Any]) -> None:
        size = dict.__len__(obj)
        base: Any = OrderedDict if is_a(obj, OrderedDict) else dict
        self._iterated(size, base.__iter__(obj), base.__reversed__(obj))
        values = dict.values(obj)
        self._iterated(size, iter(values), reversed(values))
        self._attributes(obj)

    def _set(self, obj: Any) -> None:
        base = set if is_a(obj, set) else frozenset
        self._iterated(base.__len__(obj), base.__iter__(obj), ())
        self._attributes(obj)

    def _function(self, obj: types.FunctionType) -> None:
        self._out.append(id(obj.__code__))
        cells = [content_of(cell) for cell in obj.__closure__ or ()]
        if is_own_code(obj.__code__.co_filename):
            self.functions.append(obj)
            self._values(cells)
            self._values([*(obj.__defaults__ or ()), *(obj.__kwdefaults__ or {}).values()])
            self._todo.append(obj.__dict__)
        else:
            self._todo += [each for each in cells if callable(each)]

    def _method(self, obj: types.MethodType) -> None:
        self._todo += [obj.__self__, obj.__func__]

    def _builtin(self, obj: Any) -> None:
        if not is_a(obj.__self__, (types.ModuleType, type, type(None))):
            self._todo.append(obj.__self__)

    def _partial(self, obj: Any) -> None:
        self._todo += [obj.func, obj.args, obj.keywords]

    def _cached(self, obj: Any) -> None:
        self._todo.append(obj.__wrapped__)
        held = gc.get_referents(obj)  # no state, but for what is made once and used by all
        self._todo += [each[()] for each in held if type(each) is dict and () in each]
        pairs = itertools.pairwise(held)
        self._todo += [made for key, made in pairs if type(key) is tuple and not key]

    def _connection(self, obj: Any) -> None:
        self._out.append((obj.total_changes, obj.in_transaction))

    def _class(self, obj: type) -> None:
        for cls in mro_of(obj):
            if cls is obj or is_own_class(cls):
                space = type.__getattribute__(cls, "__dict__")
                data = {
                    name: value for name, value in space.items()
                    if not name.startswith(("__", "_abc_")) and not is_a(value, _CODE)
                }  # fmt: skip
                self._values([*data])
                self._values([*data.values()])
                if "_abc_impl" in space:
                    self._out.append(len(_get_dump(cls)[0]))  # what is registered as a subclass

    def _buffer(self, obj: Any) -> None:
        size = memoryview(obj).nbytes
        whole = size / BYTES_PER_STEP <= self._steps
        if whole:
            self._steps -= size / BYTES_PER_STEP
        self._out += [size, checksum(obj, whole=whole)]

    def _ndarray(self, obj: Any) -> None:
        self._steps -= 4
        self._out += [obj.dtype.str, obj.shape]
        if obj.dtype.hasobject:
            flat = obj.reshape(-1) if obj.flags.c_contiguous else obj.flat[:SAMPLED_ENTRIES]
            self._array_like(lambda part: flat[part].tolist(), len(flat))
        elif obj.flags.c_contiguous or not obj.flags.f_contiguous:
            self._buffer(obj if obj.dtype.kind not in "mM" else obj.view("i8"))
        else:
            self._buffer(obj.T)

    def _tensor(self, obj: Any) -> None:
        self._out += [obj._version, tuple(obj.shape)]

    def _frame(self, obj: Any) -> None:
        manager = obj._mgr
        self._todo += [*manager.arrays, *(axis.values for axis in manager.axes[:1])]
        self._out += [tuple(map(len, manager.axes)), str(list(manager.axes[0][:SAMPLED_ENTRIES]))]

    def _random(self, obj: Any) -> None:
        if (generator := handle(obj)) is not None:
            self._todo.append(generator.state())

    def _memory_file(self, obj: Any) -> None:
        self._out.append(obj.tell())
        text = obj.getvalue()
        self._out.append((len(text), hash(text)))

    def _iterator(self, obj: Any) -> None:
        self._out.append(operator.length_hint(obj, -1))

    def _variable(self, obj: Any) -> None:
        self._values([obj.get(None)])

    def _logger(self, obj: Any) -> None:
        self._values([obj.__dict__.get(name) for name in _LOGGER_STATE])

    def _instance(self, obj: Any) -> None:
        self._attributes(obj)
        if self._fields(type(obj))[0]:
            self.classes.append(type(obj))

    def _attributes(self, obj: Any) -> None:
        """What is in an object's ``__dict__``, in its slots, and in fields that C code knows."""
        if (kind := type(obj)) in _PLAIN:
            return
        space, (own, slots) = instance_dict(obj), self._fields(kind)
        if space:
            names = [n for n in space if own or not is_cache_name(n)]
            self._out.append(names)
            self._values([space[n] for n in names])
        self._values([slot_value(each, obj) for each in slots])
        if space is None and not slots:
            held = gc.get_referents(obj)[:MAX_WHOLE_ENTRIES]
            self.opaque = self.opaque or (len(held) < 2 and obj is self._todo[0])
            # A list of C code may have empty places, which only the collector passes over.
            lists = [each for each in held if type(each) in {list, tuple}]
            self._out.append([len(each) for each in lists])
            short = [each for each in lists if len(each) <= MAX_WHOLE_ENTRIES]
            held = [each for each in held if type(each) not in {list, tuple}]
            held += gc.get_referents(*short)
            self._values([each for each in held if not is_a(each, _NO_STATE)])

    def _fields(self, kind: type) -> tuple[bool, list[Any]]:
        """Whether a class is the program's own, and its slots; found once for all its instances."""
        if (kind,) not in self._kinds:
            own = is_own_class(kind)
            spaces = (type.__getattribute__(cls, "__dict__") for cls in mro_of(kind)[:-1])
            members = (item for space in spaces if "__slots__" in space for item in space.items())
            found = (m for m in members if type(m[1]) is types.MemberDescriptorType)
            slots = [each for name, each in found if own or not is_cache_name(name)]
            self._kinds[(kind,)] = own, slots
        return self._kinds[(kind,)]  # type: ignore[no-any-return]

    def _elsewhere(self, obj: Any) -> None:
        """An object of a library that is not known to hold data only."""
        if self._abroad:
            self._instance(obj)
        else:
            del self.seen[id(obj)]
            self._foreign.append(obj)


_PLAIN: Final = frozenset({list, dict, set, frozenset, deque, tuple})


def content_of(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


# By base class: found in the order of an object's classes.
_BY_BASE: Final[dict[Any, Callable[[Walk, Any], None]]] = {
    list: Walk._list, tuple: Walk._tuple, dict: Walk._dict, set: Walk._set, frozenset: Walk._set,
    deque: Walk._deque, types.FunctionType: Walk._function, types.MethodType: Walk._method,
    types.BuiltinFunctionType: Walk._builtin, functools.partial: Walk._partial,
    bytearray: Walk._buffer, memoryview: Walk._buffer, io.StringIO: Walk._memory_file,
    io.BytesIO: Walk._memory_file, itertools.count: Walk._frozen, types.ModuleType: Walk._nothing,
    types.CodeType: Walk._same, io.IOBase: Walk._nothing,
}  # fmt: skip
_BY_NAME: Final[dict[tuple[str, str], Callable[[Walk, Any], None]]] = {
    ("functools", "_lru_cache_wrapper"): Walk._cached, ("array", "array"): Walk._buffer,
    ("numpy", "ndarray"): Walk._ndarray, ("torch", "Tensor"): Walk._tensor,
    ("pandas", "NDFrame"): Walk._frame, ("random", "Random"): Walk._random,
    ("numpy", "Generator"): Walk._random, ("numpy", "RandomState"): Walk._random,
    ("numpy", "BitGenerator"): Walk._random, ("torch", "Generator"): Walk._random,
    ("sqlite3", "Connection"): Walk._connection,
    ("logging", "Logger"): Walk._logger, ("enum", "Enum"): Walk._nothing,
    ("contextvars", "ContextVar"): Walk._variable, ("mmap", "mmap"): Walk._buffer,
    ("ctypes", "Array"): Walk._buffer, ("ctypes", "_SimpleCData"): Walk._buffer,
    ("ctypes", "Structure"): Walk._buffer, ("ctypes", "_CData"): Walk._buffer,
}  # fmt: skip


def _handler(obj: Any) -> Callable[[Walk, Any], None]:
    """How an object of its type is walked through."""
    kind = type(obj)
    if is_frozen(obj):
        return Walk._frozen
    if issubclass(kind, type):
        is_enum = any(top_module(each) == "enum" for each in mro_of(kind))
        return Walk._class if is_own_class(obj) and not is_enum else Walk._same
    for base in mro_of(kind):
        found = _BY_BASE.get(base) or _BY_NAME.get((top_module(base), base.__name__))
        if found is not None:
            return found
    top = top_module(kind)
    if top == "builtins" and kind.__name__.endswith("_iterator"):
        return Walk._iterator
    if is_own_class(kind) or top in _DATA:
        return Walk._instance
    return Walk._nothing if top in _HANDLES or issubclass(kind, _CODE) else Walk._elsewhere
