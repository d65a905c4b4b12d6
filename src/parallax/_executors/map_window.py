"""How far a map submits calls ahead of its reader, and how many items it sends in one message.

The window is widened while results are read as quickly as they come, and kept small by results that
are large. Short items are sent many at a time, as their measured time asks for.

Guarantees: no thread, lock or output; ``now`` is a parameter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from parallax._core.light_stdlib import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallax._backends.contract import Engine

#: Most items between submission and reading, unless ``buffersize`` says otherwise.
MAX_WINDOW_ITEMS = 4096

#: Seconds of reading that a window should last; a shorter one is doubled. A larger value keeps more
#: results in memory, a smaller one lets workers run dry while the reader is busy.
MIN_WINDOW_S = 0.05

#: Bytes of unread results up to which a window grows.
MAX_UNREAD_BYTES = 1 << 26

#: The size of one in so many results is estimated.
RESULTS_PER_SIZE_ESTIMATE = 8

#: Seconds per item, sending included, below which items are sent several at a time.
SHORT_ITEM_S = 5e-5

#: Items of the first message with several items; seconds of work that a later one should hold; its
#: most items. Larger messages save more of the cost of sending, and keep other workers waiting
#: longer at the end of the input.
FIRST_MESSAGE_ITEMS = 16
MESSAGE_S = 0.004
MAX_MESSAGE_ITEMS = 1024


class MapWindow:
    def __init__(self, engine: Engine, buffersize: int | None, chunksize: int | None) -> None:
        self._engine = engine
        #: the size was given by the user.
        self.fixed = buffersize is not None
        self._items = buffersize or engine.ahead
        self._fixed_message = chunksize is not None
        self.message = chunksize or 1
        #: items that are submitted and not read yet.
        self.waiting = 0
        #: the rest of the input may be submitted.
        self.unlimited = False
        self._read = 0
        self._since = 0.0
        self._result_bytes = 0.0
        self._item_s = 0.0

    def room(self) -> int:
        """How many more items may be submitted now."""
        if self.unlimited:
            return sys.maxsize
        items = self._items
        if not self.fixed and self._result_bytes * items <= MAX_UNREAD_BYTES:
            items = max(items, self._engine.ahead)
        return items - self.waiting

    def next_message(self, room: int) -> int:
        """Items of the next message, for which there is ``room``."""
        return self.message if self._fixed_message else min(self.message, room)

    def send_singly(self) -> None:
        self.message, self._fixed_message = 1, True

    def read(self, count: int, results: list[Any], now: float, travels: Callable[[], bool]) -> None:
        """Adapt the window to results that were just read."""
        if self.fixed:
            return
        before = self._read
        self._read += count
        interval = RESULTS_PER_SIZE_ESTIMATE
        if not before or before // interval != self._read // interval:
            sample = [_size(result) for result in results[-interval:]]
            known, size = self._result_bytes, sum(sample) / len(sample)
            self._result_bytes = known + (size - known) / 4 if known else size
        if self._read < self._items:
            return
        seconds, items = now - (self._since or now), self._read
        self._since, self._read = now, 0
        if not seconds:
            return
        fits = self._result_bytes * 2 * self._items < MAX_UNREAD_BYTES
        if seconds < MIN_WINDOW_S and fits and self._items < MAX_WINDOW_ITEMS:
            self._items *= 2
        elif self._result_bytes * self._items > MAX_UNREAD_BYTES:
            most = int(MAX_UNREAD_BYTES / self._result_bytes)
            self._items = max(self._engine.max_workers + 1, most)
        singly = self.message == 1 and not self._fixed_message
        if singly and fits and seconds / items < SHORT_ITEM_S and travels():
            self.message = FIRST_MESSAGE_ITEMS

    def timed(self, item_s: float, travels: Callable[[], bool]) -> None:
        """Adapt the size of messages to the seconds that an item of one took."""
        if self._fixed_message:
            return
        self._item_s = item_s if not self._item_s else self._item_s + (item_s - self._item_s) / 4
        if self._item_s > 4 * SHORT_ITEM_S or not travels():
            self.message = 1
            return
        most = min(MAX_MESSAGE_ITEMS, self._items // (4 * self._engine.max_workers))
        self.message = max(1, min(int(MESSAGE_S / max(self._item_s, 1e-9)), most))


def _size(result: Any) -> int:
    """Bytes that a result keeps in memory, as far as that is cheap to tell."""
    try:
        nbytes = getattr(result, "nbytes", None)
        return nbytes if type(nbytes) is int else sys.getsizeof(result)
    except Exception:  # noqa: BLE001 - a result's own __getattr__ or __sizeof__
        return 0
