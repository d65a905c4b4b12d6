"""What a run sends to its workers in shared memory once, for many items: how much that saves.

Two kinds of data: what the callable captured, which each worker maps; and buffers that are part of
several items, which are found by their content.
"""

from __future__ import annotations

from parallax._backends.processes.parent.run_call import RunCall
from parallax._shm.arena import arena_sender
from parallax._shm.buffers import COPY, MIN_SHARED_BYTES
from parallax._shm.dedup import Deduplicator


class SentOnce:
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
