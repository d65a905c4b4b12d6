"""What a run sends to its workers besides items: the callable, and what goes with it.

Guarantees: nothing is sent from here; an object that cannot travel is told, not raised, where the
run may go on without processes.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from types import CodeType, ModuleType

from parallax._backends.contract import Call
from parallax._backends.processes.parent.captured_state import (
    MIN_KEPT_BYTES,
    capture_state,
    unportable,
)
from parallax._backends.processes.start.spawn import installed
from parallax._core.lazy_import import pickletools
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.plans import Payload
from parallax._transport import codec
from parallax._transport.module_state import Packed
from parallax._transport.out_of_band import OUT_OF_BAND_MARK
from parallax._transport.pickle_diagnosis import find_unpicklable

if TYPE_CHECKING:
    from parallax._backends.processes.common.heritage import SharedObjects

#: Bytes of a pickle up to which the modules that it needs are remembered. Reading it takes longer
#: than a call.
MAX_REMEMBERED_BYTES = 1 << 16

#: Callables up to this many bytes are recognized by content in later runs. Hashing costs about
#: what sending does, so a larger one is sent anew in each run.
MAX_HASHED_BYTES = 1 << 20

#: Callables whose keys are remembered. More hold memory, fewer are sent anew.
MAX_KEYS = 256

#: Seconds to encode on one side and decode on the other, per second that encoding took here.
#: Decoding makes the objects anew and takes longer than writing them down.
CODING_PER_ENCODING = 1.5


def encode_call(
    call: Call,
    state: tuple[Packed, ...] = (),
    *,
    shared: bool = False,
    objects: SharedObjects | None = None,
) -> codec.Encoded:
    """Encode a run's callable, with the module-level state that it reads beside it."""
    keys = [packed.key for packed in state]
    message = (call.fn, call.star, call.stop, keys, *((objects,) if objects else ()))
    return codec.encode(message, shared=shared)._replace(slabs={}, state=state)


_numbers = itertools.count(1)
_keys: dict[bytes, int] = {}


def call_key(call: codec.Encoded | None) -> int:
    """A number for a callable: the same for the same content, if that is small enough to hash."""
    if call is None or call.nbytes > MAX_HASHED_BYTES:
        return next(_numbers)
    content = b"".join((call.payload, *call.buffers))
    if len(_keys) > MAX_KEYS:
        _keys.clear()
    return _keys.setdefault(content, next(_numbers))  # atomic: two threads get the same


def weigh(
    call: Call,
    reads: Iterable[tuple[str, str]],
    items: list[Any],
    results: list[Any],
    objects: SharedObjects | None = None,
    *,
    forks: bool = False,
) -> tuple[Payload, codec.Encoded] | str:
    """The cost per item and the encoded call, or why it cannot travel; ``forks`` have the state."""
    begin = time.perf_counter()
    state, stuck = ((), unportable(reads)) if forks else capture_state(reads)
    if stuck:
        return stuck
    fresh = sum(len(packed.payload) for packed in state)
    once = (time.perf_counter() - begin) if fresh > MIN_KEPT_BYTES else 0.0
    try:
        encoded = encode_call(call, state, objects=objects)
    except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
        path, reason = find_unpicklable(call.fn, "callable")
        return f"the {path} cannot be pickled ({reason})"
    begin = time.perf_counter()
    sizes = []
    for what, parts in (("item", items), ("result", results)):
        size = 0
        for part in parts:
            try:
                size = codec.encode(part).nbytes
            except Exception:  # noqa: BLE001 - as above
                path, reason = find_unpicklable(part, what)
                return f"the {path} cannot be pickled ({reason})"
        sizes.append(size)
    spent = (time.perf_counter() - begin) if items or results else 0.0
    coding = CODING_PER_ENCODING * spent
    return Payload(sizes[0], sizes[1], coding, encoded.nbytes + fresh, once), encoded


def modules_for(call: codec.Encoded, code: object) -> frozenset[str]:
    """Installed modules that a callable, its own modules or its code need, if loaded here."""
    found = (
        _modules_for(call.payload)
        if len(call.payload) < MAX_REMEMBERED_BYTES
        else _find(call.payload)
    )
    if not isinstance(code, CodeType):
        return found
    return found | {n for n in set(names_in(code)) if n in sys.modules and installed(n)}


def names_in(code: CodeType) -> Iterator[str]:
    """The global names and attributes that code mentions, nested functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


@functools.lru_cache(maxsize=128)
def _modules_for(payload: bytes) -> frozenset[str]:
    return _find(payload)


def _find(payload: bytes) -> frozenset[str]:
    found: set[str] = set()
    for name in needs(payload):
        if installed(name):
            found.add(name)
            continue
        module = sys.modules.get(name)
        if module is None or name == "__main__":
            continue
        for value in list(vars(module).values()):
            if isinstance(value, ModuleType):
                found.add(value.__name__)
            else:
                home = getattr(value, "__module__", None)
                if isinstance(home, str):
                    found.add(home)
    return frozenset(name for name in found if installed(name))


def needs(payload: bytes) -> set[str]:
    """Names of the modules that decoding a pickle would import; long ones are not read whole."""
    found: set[str] = set()
    try:
        plain = payload.removeprefix(OUT_OF_BAND_MARK)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(plain)):
            if isinstance(argument, str) and len(argument) < 200 and argument in sys.modules:
                found.add(argument)
            if opcode.name == "GLOBAL":
                found.add(str(argument).split(" ", 1)[0])
            if count > 20_000:
                break
    except Exception:  # noqa: BLE001 - a hint only: the worker imports what it needs anyway
        return found
    return found
