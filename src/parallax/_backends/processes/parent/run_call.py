"""The callable of one run: encoded for workers that need it, inherited by forks of the program.

Guarantees: it is encoded once, and only when a worker, or a plan, needs that: what cannot be
imported travels by cloudpickle, which takes longer to load than many a job takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from parallax._backends.contract import Call
from parallax._backends.processes.common.heritage import SharedObjects
from parallax._backends.processes.parent import call_encoding, fork_check
from parallax._backends.processes.parent.captured_state import capture_state
from parallax._backends.processes.parent.known_objects import shared_objects
from parallax._core.lazy_import import errors, lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.plans import Payload
from parallax._core.records import replace
from parallax._shm.arena import arena_sender
from parallax._shm.buffers import COPY, MIN_SHARED_BYTES
from parallax._shm.dedup import Deduplicator
from parallax._transport import codec, pickle_diagnosis
from parallax._transport.module_state import Key

if not TYPE_CHECKING:
    pickle_diagnosis = lazy_module("parallax._transport.pickle_diagnosis")


class RunCall:
    """What workers are sent besides items, as soon as one has to be sent it."""

    def __init__(
        self,
        call: Call,
        reads: Callable[[], Iterable[Key]],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; ``reads`` gives the module-level data that the callable reads."""
        self._call = call
        #: raises WorkerStartError if no other workers than forks of the program can be used.
        self.check = check
        self._reads = reads
        self._encoded: codec.Encoded | None = None
        self._key = 0
        #: why module-level data that it reads does not travel; "" if it does, or is not known.
        self.stuck = ""
        #: what workers that are no forks have of the callable.
        self.objects = SharedObjects(())

    @property
    def key(self) -> int:
        """The number of the callable in workers: that of its content, if it is encoded."""
        self._key = self._key or call_encoding.call_key(self._encoded)
        return self._key

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded callable, as far as it is."""
        return self._encoded.nbytes if self._encoded is not None else 0

    @property
    def slabs(self) -> list[Any]:
        """The parts of the encoded callable in shared memory."""
        return [*(self._encoded.slabs or {}).values()] if self._encoded is not None else []

    def encode(self) -> codec.Encoded:
        """The encoded callable; SerializationError if it cannot be pickled."""
        if self._encoded is None:
            state, self.stuck = capture_state(self._reads())
            objects = shared_objects(self._call.fn)
            try:
                self._encoded = call_encoding.encode_call(self._call, state, objects=objects)
            except Exception as error:
                if errors.lacks_descriptors(error):
                    raise
                path, reason = pickle_diagnosis.find_unpicklable(self._call.fn, "callable")
                raise errors.SerializationError("callable", None, path, reason) from error
            self.objects = objects
        return self._encoded

    def modules(self) -> frozenset[str]:
        """Installed modules that the callable needs and that are loaded here."""
        return call_encoding.modules_for(self.encode(), getattr(self._call.fn, "__code__", None))

    def weigh(
        self, items: list[Any], results: list[Any], *, fork: bool, numbered: bool
    ) -> Payload | str:
        """What sending costs, or why it cannot; ``numbered``: forks have the items, too."""
        fn, reads = self._call.fn, [*self._reads()]
        payload = fork_check.weigh(fn, reads, items, results) if fork else None
        if payload is None:
            objects = shared_objects(fn)
            weighed = call_encoding.weigh(self._call, reads, items, results, objects, forks=fork)
            if isinstance(weighed, str):
                return weighed
            payload, encoded = weighed
            if not fork:
                self._encoded, self.objects = encoded, objects
        if fork:
            moved = 0.0 if numbered else payload.bytes_in
            payload = replace(payload, bytes_in=moved, callable_bytes=0.0)
        return payload

    def clear(self) -> None:
        """Let go of the callable, for good: a run is part of a cycle of references."""
        self._call, self._reads = Call(len, star=False, stop=False), tuple
        self.check = lambda: None
        if self._encoded is not None:
            self._encoded.buffers.clear()
            (self._encoded.slabs or {}).clear()
            for packed in self._encoded.state:
                packed.buffers.clear()
                packed.slabs.clear()
            self._encoded = None
        self.objects = SharedObjects(())


class SentOnce:
    """What a run sends in shared memory once: what was captured, buffers of several items."""

    def __init__(self, call: RunCall) -> None:
        self._call = call
        #: finds buffers of items that were sent before; None until there is a large one.
        self.dedup: Deduplicator | None = None
        self._captured_reported = False
        self._dedup_reported = (0, 0)

    def dedup_for(self, buffers: list[memoryview]) -> Deduplicator | None:
        """What finds repeated buffers, from the first item with a large one on."""
        if self.dedup is None and any(b.nbytes >= MIN_SHARED_BYTES for b in buffers):
            sender = arena_sender()
            if sender is not None:
                self.dedup = Deduplicator(sender)
        return self.dedup

    def saved(self, items: int) -> tuple[int, int]:
        """Bytes that were sent once since the last such question, and those spared by it."""
        captured = sum(s.nbytes for s in self._call.slabs if s.mode == COPY)
        once, spared = 0, captured * items
        if captured and not self._captured_reported:
            self._captured_reported = True
            once, spared = captured, spared - captured
        if self.dedup is not None:
            total = self.dedup.bytes_once, self.dedup.bytes_spared
            once += total[0] - self._dedup_reported[0]
            spared += total[1] - self._dedup_reported[1]
            self._dedup_reported = total
        return once, spared

    def clear(self) -> None:
        """Let go of the memory: a run is part of a cycle of references."""
        if self.dedup is not None:
            self.dedup.clear()
