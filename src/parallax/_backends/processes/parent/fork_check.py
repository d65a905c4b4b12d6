"""Whether forks of the program may use a callable and its items, found without encoding them.

A fork has the callable already. But what cannot be pickled (locks, connections, open files) must
not be used by two processes, so all that it captured is pickled to nowhere.

Guarantees: no buffer is copied, and nothing is loaded for it: where plain pickle does not get
through, the real encoding has to tell.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from types import FunctionType, ModuleType

from parallax._backends.processes.parent.call_encoding import CODING_PER_ENCODING, names_in
from parallax._backends.processes.parent.captured_state import TRIED_ENTRIES, samples, unportable
from parallax._core.light_stdlib import Any, PickleBuffer, Pickler
from parallax._core.plans import Payload
from parallax._shm.registry import any_shared
from parallax._transport import nesting_depth
from parallax._transport.codec import registered_by_value
from parallax._transport.main_module import MAIN_NAMES
from parallax._transport.module_state import Key
from parallax._transport.out_of_band import make_pickler
from parallax._transport.wrapped_functions import is_importable


def weigh(fn: Any, reads: Iterable[Key], items: list[Any], results: list[Any]) -> Payload | None:
    """What an item and a result cost; None if only their real encoding can tell."""
    if any_shared() or registered_by_value() or unportable(reads):
        return None
    try:
        _measure([fn])
        begin = time.perf_counter()
        bytes_in, bytes_out = (_measure(part) if part else 0 for part in (items, results))
        spent = time.perf_counter() - begin if items or results else 0.0
    except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
        return None
    return Payload(bytes_in, bytes_out, CODING_PER_ENCODING * spent, 0.0)


class _Nowhere:
    nbytes = 0

    def write(self, data: Any) -> int:
        self.nbytes += len(data)
        return len(data)

    def add(self, buffer: PickleBuffer) -> bool:
        """The buffer callback: all buffers stay out of the pickle."""
        self.nbytes += buffer.raw().nbytes
        return False


def _measure(objects: list[Any]) -> int:
    if nesting_depth.UNLIMITED:
        nesting_depth.check_nesting(objects)
    found = _Nowhere()
    _checker()(found, 5, buffer_callback=found.add).dump(objects)
    return found.nbytes


@lru_cache(maxsize=1)
def _checker() -> Any:
    class Checker(Pickler):
        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind is FunctionType and (obj.__module__ in MAIN_NAMES or not is_importable(obj)):
                # As the state: a function may refer to itself.
                return object, (), _parts(obj)
            if kind is ModuleType:
                return object, (), obj.__name__
            return NotImplemented

    return make_pickler(Checker)


def _parts(fn: Any) -> list[Any]:
    """What a function that travels by value takes along."""
    cells = [cell.cell_contents for cell in fn.__closure__ or ()]
    space = fn.__globals__
    names = set(names_in(fn.__code__)) & space.keys()
    held = [*cells, *(space[name] for name in names), fn.__defaults__, fn.__kwdefaults__]
    return [samples(each, TRIED_ENTRIES) for each in (*held, fn.__dict__)]
