"""What a fork of the program has of one call: objects that both processes know by number.

Items that were there at the fork travel as numbers. An object that was there and is returned, or
lies at the first level of a result, comes back as the very object, unless the worker has changed
it: its pickle travels along, and is compared with that of the program's own object.

Guarantees: an item that cannot be pickled is not run in a fork, as in no other worker, which is
checked without copying buffers.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from operator import is_

from parallax._core.lazy_import import errors, lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NamedTuple, TypeAlias, dumps, loads
from parallax._core.plain_types import PLAIN_TYPES
from parallax._transport import codec

if TYPE_CHECKING:
    from parallax._transport import pickle_diagnosis
else:
    pickle_diagnosis = lazy_module("parallax._transport.pickle_diagnosis")

#: An object by number: column and row of the input, or -1 and the position among the known
#: ones; then the position inside of a tuple.
Reference: TypeAlias = "tuple[int, ...]"
#: The pickle of an object, its first buffer among all, and how many it has.
Proof: TypeAlias = "tuple[bytes, int, int]"

#: First byte of a payload that refers to known objects. A pickle begins with 0x80.
KNOWN_MARK = b"\x02"

#: Objects at the first level of a result that are looked at. More finds more, and takes 60 ns each.
MAX_HELD = 1000

#: Items of a chunk, and bytes of them, up to which those that are returned come back as the very
#: items. More takes longer to compare than to send.
MAX_PROVEN_ITEMS = 64
MAX_PROVEN_BYTES = 1 << 14

#: Types of input of which a fork has a copy, and those that nobody can change.
_COPIED: tuple[type, ...] = (
    list,
    dict,
    set,
    frozenset,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)
_CONSTANT = (tuple, range, str, bytes)

_NUMBERS = PLAIN_TYPES - {str, bytes}

#: Types of objects that cannot have changed; functions and classes travel by reference.
_UNCHANGING = {str, bytes, object, type, type(is_), type(sys), type(lambda: 0)}


class Heritage:
    """What a template and its workers have of one call."""

    __slots__ = ("_columns", "_known", "_numbers")

    #: workers are no forks of the program.
    apart = False

    def __init__(self, inputs: Sequence[Iterable[Any]], known: Iterable[Any]) -> None:
        """Note the inputs of a call, if any, and what its callable captured or reads."""
        self._columns: list[Any] = [_column(each) for each in inputs] if numbered(inputs) else []
        self._known = [each for each in known if type(each) not in _NUMBERS]
        self._numbers: dict[int, Reference] = {id(o): (-1, n) for n, o in enumerate(self._known)}

    def clear(self) -> None:
        self._columns, self._known, self._numbers = [], [], {}

    def hold(self, items: Sequence[Any]) -> slice | None:  # noqa: ARG002 - of others than forks
        """The items of the chunk that is run next came as they are."""
        return None

    def unpack(self, payload: Any, buffers: Sequence[Any]) -> Any:
        return codec.decode(payload, buffers)

    def part(self, start: int, items: Sequence[Any]) -> slice | None:
        """The numbers of items that the forks have, from ``start`` on; None if they are others."""
        columns, part = self._columns, slice(start, start + len(items))
        if not columns:
            return None
        parts: Iterable[Any] = zip(*items, strict=True) if len(columns) > 1 else (items,)
        for column, mine in zip(columns, parts, strict=True):
            theirs = column[part] if type(column) is tuple else mine
            if len(theirs) != len(items) or not (
                all(map(is_, theirs, mine)) or all(map(_same, theirs, mine))
            ):
                return None
        return part

    def items(self, part: slice) -> list[Any]:
        """The items of these numbers, in a worker; SerializationError if one cannot travel."""
        parts = [column[part] for column in self._columns]
        for found in parts:
            _check([x for x in found if type(x) not in PLAIN_TYPES and not _is_plain_array(x)])
        return list(zip(*parts, strict=True)) if len(parts) > 1 else list(parts[0])

    def encode(self, part: slice | None, fields: tuple[Any, ...]) -> codec.Encoded:
        """Encode the fields of a chunk's result: the first are values; see ``decode``."""
        found = self._found(part, fields[0])
        if not found:
            return codec.encode_reply(fields)
        buffers: list[Any] = []
        proofs: list[Proof | None] = []
        for known in found.values():
            if type(known) in _UNCHANGING:
                proofs.append(None)
                continue
            proof = codec.encode_reply(known)
            proofs.append((proof.payload, len(buffers), len(proof.buffers)))
            buffers += proof.buffers
        reply = codec.encode_reply(fields, [*found.values()])
        payload = dumps(([*found], proofs, len(buffers), reply.payload), 5)
        return codec.Encoded(KNOWN_MARK + payload, buffers + reply.buffers)

    def decode(self, payload: Any, buffers: Sequence[Any]) -> Any:
        """Decode a result in the program, with its own objects where they have not changed."""
        if payload[0] != KNOWN_MARK[0]:
            return codec.decode(payload, buffers)
        references, proofs, count, inner = loads(memoryview(payload)[1:])
        known = []
        for reference, proof in zip(references, proofs, strict=True):
            mine = self._object(reference)
            if proof is not None:
                data, first, size = proof
                theirs = buffers[first : first + size]
                if not _is_pickle_of(mine, data, theirs, as_worker=self.apart):
                    mine = codec.decode(data, theirs)
            known.append(mine)
        return codec.decode(inner, [*known, *buffers[count:]])

    def _object(self, reference: Reference) -> Any:
        column, row, *inside = reference
        found = (self._known if column < 0 else self._columns[column])[row]
        return found[inside[0]] if inside else found

    def _found(self, part: slice | None, values: list[Any]) -> dict[Reference, Any]:
        """The known objects among values, and at the first level of them."""
        found: dict[Reference, Any] = {}
        if not {*map(type, values)} - _NUMBERS:
            return found
        numbers = {**self._numbers, **self._items_by_id(part)}
        if not numbers:
            return found
        for value in values:
            held = _first_level(value)
            if id(value) in numbers or not numbers.keys().isdisjoint(map(id, held)):
                for each in (value, *held):
                    if (number := numbers.get(id(each))) is not None:
                        found[number] = each
        return found

    def _items_by_id(self, part: slice | None) -> dict[int, Reference]:
        numbers: dict[int, Reference] = {}
        if part is None:
            return numbers
        for c, column in enumerate(self._columns):
            if type(column) is not tuple:  # else its items are made when they are asked for
                continue
            for row, item in enumerate(column[part], part.start):
                kind = type(item)
                if kind is tuple and len(item) < MAX_HELD:
                    numbers |= {
                        id(x): (c, row, n) for n, x in enumerate(item) if type(x) not in _NUMBERS
                    }
                if kind not in _NUMBERS:
                    numbers[id(item)] = c, row
        return numbers


class ModuleName(NamedTuple):
    """Where a worker finds an object that did not travel: a name in a module, an entry of it."""

    module: str
    name: str
    entry: int | str | None = None


class SharedObjects(Heritage):
    """What a worker that is no fork has: what travelled with the callable, or modules hold.

    Of each chunk its items besides, if they are few and small. Pickled, it is what the worker has.
    """

    __slots__ = ("_entries", "_large")

    apart = True

    def __init__(self, known: Sequence[tuple[Any, ModuleName | None]]) -> None:
        """Note the objects, and of those that do not travel where a worker finds them."""
        super().__init__((), [each for each, _ in known])
        self._entries: list[Any] = [place or each for each, place in known]
        self._large = False  # the items of the present chunk, in a worker

    def __reduce__(self) -> Any:
        return _arrived, (self._entries,)

    def hold(self, items: Sequence[Any]) -> slice | None:
        """The items of the chunk that is encoded or decoded next are these."""
        if len(items) > MAX_PROVEN_ITEMS or self._large:
            return None
        self._columns = [tuple(items)]
        return slice(0, len(items))

    def encode(self, part: slice | None, fields: tuple[Any, ...]) -> codec.Encoded:
        try:
            return super().encode(part, fields)
        finally:
            self._columns = []

    def decode(self, payload: Any, buffers: Sequence[Any]) -> Any:
        try:
            return super().decode(payload, buffers)
        finally:
            self._columns = []

    def pack(self, items: Sequence[Any]) -> codec.Encoded:
        encoded = codec.encode(items, known=self._known)
        return encoded._replace(payload=KNOWN_MARK + encoded.payload) if self._known else encoded

    def unpack(self, payload: Any, buffers: Sequence[Any]) -> Any:
        self._large = bool(buffers) or len(payload) > MAX_PROVEN_BYTES
        if payload[0] != KNOWN_MARK[0]:
            return codec.decode(payload, buffers)
        return codec.decode(memoryview(payload)[1:], [*self._known, *buffers])


class _Arrived(SharedObjects):
    """What a worker has; modules are looked into when the first chunk comes."""

    def __init__(self, entries: list[Any]) -> None:
        Heritage.__init__(self, (), ())
        self._entries = entries

    def unpack(self, payload: Any, buffers: Sequence[Any]) -> Any:
        if self._entries:
            found = [_look_up(each) if type(each) is ModuleName else each for each in self._entries]
            Heritage.__init__(self, (), found)
            self._entries = []
        return super().unpack(payload, buffers)


_arrived = _Arrived


def _look_up(place: ModuleName) -> Any:
    found: Any = sys.modules.get(place.module)
    try:
        for name in place.name.split("."):
            found = getattr(found, name)
        found = found if place.entry is None else found[place.entry]
    except (AttributeError, LookupError, TypeError):
        found = None
    return object() if type(found) in _NUMBERS else found  # in its place something unequal to all


def numbered(inputs: Iterable[Any]) -> bool:
    """Whether items can be found by number, which runs nobody's code and has no effects."""
    array = _array_type()
    return all(
        kind in _CONSTANT or kind in _COPIED or (kind is array and each.ndim)
        for each in inputs
        for kind in [type(each)]
    )


def _column(iterable: Any) -> Any:
    """The items of one input by number, for both processes."""
    kind = type(iterable)
    copied = kind in _COPIED or (kind not in _CONSTANT and iterable.dtype.hasobject)
    return tuple(iterable) if copied else iterable


def _array_type() -> Any:
    return getattr(sys.modules.get("numpy"), "ndarray", None)


def _is_plain_array(obj: Any) -> bool:
    return type(obj) is _array_type() and not obj.dtype.hasobject


def _same(one: Any, other: Any) -> bool:
    """Whether two items are one, or tuples of the same objects: a dict makes new ones each time."""
    if one is other:
        return True
    both = type(one) is tuple is type(other) and len(one) == len(other)
    return both and all(map(is_, one, other))


def _check(items: list[Any]) -> None:
    try:
        if items:
            codec.encode(items)
    except Exception as error:
        path, reason = "item", ""
        if len(items) == 1:
            path, reason = pickle_diagnosis.find_unpicklable(items[0], "item")
        raise errors.SerializationError("item", None, path, reason) from error


def attributes(obj: Any) -> Any:
    """What an object has in its ``__dict__``, without running code of its class."""
    try:
        return object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return {}


def _first_level(value: Any) -> Collection[Any]:
    held: Collection[Any] = ()
    kind = type(value)
    if kind in PLAIN_TYPES:
        return held
    if issubclass(kind, (tuple, list, set, frozenset)):
        held = value
    elif issubclass(kind, dict):
        held = value if len(value) > MAX_HELD else [*chain.from_iterable(value.items())]
    elif kind.__dictoffset__:
        held = attributes(value).values()
    return held if len(held) <= MAX_HELD else ()


def _is_pickle_of(mine: Any, data: bytes, buffers: Sequence[Any], *, as_worker: bool) -> bool:
    try:
        own = codec.encode_reply(mine, as_worker=as_worker)
    except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
        return False
    same = own.payload == data and len(own.buffers) == len(buffers)
    return same and all(map(_equal_bytes, own.buffers, buffers))


def _equal_bytes(one: Any, other: Any) -> bool:
    return bool(one.nbytes == memoryview(other).nbytes and bytes(one) == bytes(other))
