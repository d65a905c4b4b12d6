"""Exceptions of a worker, and results that cannot be sent, in a form that can be sent.

Pickle drops what an exception is chained to: its cause, its context, and those of the members of a
group. So the exception travels with them, each pickled on its own, and the links between them.

Guarantees: an exception arrives with its type, cause, context and notes. One of those that it is
chained to and that cannot travel is replaced by an error that says so; the traceback, as text,
names it all the same.

Loaded at the first failure only.
"""

from __future__ import annotations

import builtins
import copyreg
import sys
import traceback

from parallax._core import errors
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import Any, TypeAlias
from parallax._transport import codec
from parallax._transport.pickle_diagnosis import find_unpicklable

#: Where an exception is found: its pickle and buffers, or the group and the member's position.
_Source: TypeAlias = "tuple[bytes, list[bytearray]] | tuple[int, int]"
#: Cause and context by number, whether the context is hidden, notes, a traceback as text.
_Links: TypeAlias = "tuple[int | None, int | None, bool, Any, str]"

#: Exceptions that travel with one, at most. The text of the traceback has the others, too.
MAX_CHAINED = 100


def portable(result: ChunkResult) -> ChunkResult:
    """Make every exception of a result safe to send."""
    return result._replace(failures=tuple(map(_portable_failure, result.failures)))


def _portable_failure(failure: Failure) -> Failure:
    text = failure.traceback or errors.traceback_of(failure.error)
    return Failure(failure.offset, _with_chain(failure.error), text)


def isolate(result: ChunkResult) -> ChunkResult:
    """Replace values that cannot be sent by failures that say why."""
    values = list(result.values)
    failures = {f.offset: f for f in result.failures}
    for offset, value in enumerate(values):
        try:
            codec.encode_reply(value)
        except Exception as problem:  # noqa: BLE001 - whatever __reduce__ raises
            path, reason = find_unpicklable(value, "result", reply=True)
            values[offset] = None
            failures[offset] = _failure(offset, path, reason, problem)
        except BaseException as error:  # noqa: BLE001 - as if the callable had raised it
            values[offset] = None
            failures[offset] = Failure(offset, error)
    failed = tuple(f for _, f in sorted(failures.items()))
    return portable(result._replace(values=values, failures=failed))


def without_largest(result: ChunkResult, fault: Exception) -> ChunkResult:
    """Replace the largest value by a failure: each can be sent, and all together cannot."""
    sizes = [0 if each is None else codec.encode_reply(each).nbytes for each in result.values]
    largest = max(sizes)
    if not largest:
        raise fault
    offset = sizes.index(largest)
    values = [None if n == offset else each for n, each in enumerate(result.values)]
    failure = _failure(offset, "result", f"{type(fault).__name__}: {fault}", fault)
    failures = (*result.failures, portable(ChunkResult([], (failure,), 0.0, 0.0)).failures[0])
    return result._replace(values=values, failures=failures)


def _failure(offset: int, path: str, reason: str, problem: Exception) -> Failure:
    error = errors.SerializationError("result", None, path, reason)
    errors.set_cause(error, problem)
    return Failure(offset, error)


class _Made:
    """Unpickles as what a function makes of the parts."""

    def __init__(self, make: Any, *parts: Any) -> None:
        self._reduced = make, parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _with_chain(root: BaseException) -> Any:
    """What unpickles as the exception, with all that it is chained to."""
    chain, found = {id(root): root}, [root]
    #: the group and the position in it of each exception that is a member of one.
    members: dict[int, tuple[int, int]] = {}
    for number, error in enumerate(found):  # which grows meanwhile
        for position, member in enumerate(_members_of(error)):
            if id(member) not in chain and len(chain) < MAX_CHAINED:
                chain[id(member)] = member
                found.append(member)
                members[id(member)] = number, position
        for other in (_field(error, "__cause__"), _field(error, "__context__")):
            wanted = other is not None and type(other) is not errors.RemoteTraceback
            if wanted and id(other) not in chain and len(chain) < MAX_CHAINED:
                chain[id(other)] = other
                found.append(other)
    numbers = {key: number for number, key in enumerate(chain)}
    links = [_links_of(error, numbers, member=key in members) for key, error in chain.items()]
    for error in chain.values():
        BaseException.with_traceback(error, None)  # whatever attributes its class allows
    stand_in, _ = _sendable(root)
    if links == [(None, None, False, None, "")]:
        return stand_in
    sources: list[_Source] = []
    for key, error in [*chain.items()][1:]:
        if key in members:
            sources.append(members[key])
        else:
            _, (payload, buffers, *_) = _sendable(error)
            sources.append((payload, [bytearray(each) for each in buffers]))
    return _Made(_chained, stand_in, sources, links)


def _links_of(error: BaseException, numbers: dict[int, int], *, member: bool) -> _Links:
    notes = getattr(error, "__notes__", None)
    return (
        numbers.get(id(_field(error, "__cause__"))),
        numbers.get(id(_field(error, "__context__"))),
        _field(error, "__suppress_context__"),
        [*map(str, notes)] if isinstance(notes, list) else None,
        errors.traceback_of(error) if member and error.__traceback__ is not None else "",
    )


def _chained(root: BaseException, sources: list[_Source], links: list[_Links]) -> BaseException:
    found = [root]
    found += (_arrived(source, found) for source in sources)
    for error, (cause, context, suppressed, notes, text) in zip(found, links, strict=True):
        fields = {
            "__cause__": None if cause is None else found[cause],
            "__context__": None if context is None else found[context],
            "__suppress_context__": suppressed,
            "__notes__": notes,
        }
        for name, value in fields.items():
            if name != "__notes__" or value != getattr(error, name, None):
                BaseException.__setattr__(error, name, value)
        if text:
            errors.add_traceback(error, text)
    return root


def _arrived(source: Any, found: list[Any]) -> BaseException:
    """One of the exceptions, or what stands for it."""
    try:
        group, position = source
        inside = isinstance(group, int)
        made: BaseException = found[group].exceptions[position] if inside else codec.decode(*source)
        return made
    except BaseException as problem:  # noqa: BLE001 - any __setstate__ may raise anything
        return errors.unreadable("exception", errors.without_frames(problem))


def _sendable(error: BaseException) -> tuple[Any, codec.Encoded]:
    """What unpickles as the exception, or as what stands for it; and its encoded form."""
    kind: Any = type(error)
    travels: tuple[Any, codec.Encoded] | None = None
    try:
        encoded = codec.encode_reply(error)
        # An exception whose __init__ takes other arguments than its args pickles and then fails
        # to unpickle: here that costs one item, in the parent it would cost the chunk.
        arrived = codec.decode(*encoded[:2])
        if type(arrived) is kind:
            travels = error, encoded
            if _equal(arrived.args, error.args):
                return travels
        reason = "it does not unpickle to its own type"
    except BaseException as problem:  # noqa: BLE001 - whatever __reduce__ or __init__ raises
        reason = "".join(traceback.format_exception_only(type(problem), problem)).strip()
    if travels := _uncalled(error) or travels:
        return travels
    if kind in _GROUP_TYPES:
        members = [_sendable(member)[0] for member in _members_of(error)]
        group = _Made(kind, error.args[0], members)
        return group, codec.encode_reply(group)
    path = f"{kind.__module__}.{kind.__qualname__}"
    stand_in = errors.SerializationError("exception", None, path, reason)
    return stand_in, codec.encode_reply(stand_in)


def _equal(these: tuple[Any, ...], those: tuple[Any, ...]) -> bool:
    try:
        return bool(these == those)
    except Exception:  # noqa: BLE001 - any __eq__ may raise anything
        return False


def _uncalled(error: BaseException) -> tuple[Any, codec.Encoded] | None:
    """As `_sendable`, of an exception that is made again without its class's own ``__init__``.

    Pickle calls the class with ``args``, which are what the base got: of ``E(code)``, whose
    ``__init__`` passes a text on, it makes ``E(text)``, or nothing. None if that is no way either.
    """
    kind: Any = type(error)
    if type(kind.__reduce__) is not type(BaseException.__reduce__):
        return None  # the class knows itself how it travels
    try:
        reduced: Any = error.__reduce__()
        _, args, *state = reduced
        slots = {name: getattr(error, name) for name in _slots_of(kind) if hasattr(error, name)}
        made = _Made(_remade, kind, args, state, slots)
        encoded = codec.encode_reply(made)
        return (made, encoded) if type(codec.decode(*encoded[:2])) is kind else None
    except BaseException:  # noqa: BLE001 - as above
        return None


def _slots_of(kind: Any) -> list[str]:
    found: list[str] = copyreg._slotnames(kind)  # type: ignore[attr-defined]
    return found


def _remade(kind: Any, args: Any, state: list[Any], slots: dict[str, Any]) -> BaseException:
    error: BaseException = _in_c(kind, "__new__")(kind, *args)
    _in_c(kind, "__init__")(error, *args)
    for each in state:
        error.__setstate__(each)
    for name, value in slots.items():
        BaseException.__setattr__(error, name, value)
    return error


def _in_c(kind: Any, name: str) -> Any:
    """The class's method of that name which is not Python's: that of OSError, say."""
    wanted = type(getattr(BaseException, name))
    methods = (vars(base).get(name) for base in kind.__mro__)
    return next(each for each in methods if type(each) is wanted)


_home: Any = builtins if hasattr(builtins, "ExceptionGroup") else sys.modules.get("exceptiongroup")
_GROUP_TYPES = () if _home is None else (_home.BaseExceptionGroup, _home.ExceptionGroup)


def _members_of(error: BaseException) -> tuple[BaseException, ...]:
    members = getattr(error, "exceptions", ()) if isinstance(error, _GROUP_TYPES) else ()
    return tuple(members)


def _field(error: BaseException, name: str) -> Any:
    """A field of an exception, whatever its class makes of attributes."""
    return BaseException.__getattribute__(error, name)
