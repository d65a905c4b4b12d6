"""What happened to each item of a run: a bounded log, for tests and for reading after a failure.

Guarantees: only records events and commands that the scheduler has made anyway; a scheduler
without a log pays one comparison per event.
"""

from __future__ import annotations

from collections import deque

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._scheduling import events

if TYPE_CHECKING:
    from parallax._core.chunks import Chunk


class InconsistencyError(AssertionError):
    """The state of a scheduler or dispatcher contradicts itself."""

    def __init__(self, text: str, items: tuple[int, ...] = ()) -> None:
        super().__init__(text, items)
        self.items = items


def check(condition: object, text: str, *items: int) -> None:
    """Raise ``InconsistencyError`` unless the condition holds."""
    if not condition:
        raise InconsistencyError(text, items)


class EventLog:
    """The last events and commands of one run, each with the items concerned."""

    def __init__(self, limit: int) -> None:
        #: first item, number of items, and what happened to them.
        self.entries: deque[tuple[int, int, str]] = deque(maxlen=limit)
        self._sent: dict[tuple[int, int], Chunk] = {}  # by worker and chunk

    def record(self, now: float, event: events.Event, commands: list[events.Command]) -> None:
        """Log an event and the commands that followed from it."""
        number, worker = getattr(event, "chunk", None), getattr(event, "worker", None)
        for key, chunk in list(self._sent.items()):
            if key == (worker, number) or (isinstance(event, events.Lost) and key[0] == worker):
                self.entries.append((chunk.start, chunk.size, f"{now:.6f} {event}"))
                keep = event.keep if isinstance(event, events.Cut) else 0
                self._sent[key] = chunk._replace(size=min(keep, chunk.size))
                if not keep:
                    del self._sent[key]
        for command in commands:
            if isinstance(command, events.Send):
                chunk = command.chunk
                self._sent[command.worker, chunk.id] = chunk
                concerned = [(chunk.start, chunk.size)]
            elif isinstance(command, events.Emit):
                concerned = [(command.start, command.size)]
            elif isinstance(command, events.Recall):
                held = [chunk for key, chunk in self._sent.items() if key[0] == command.worker]
                concerned = [(chunk.start, chunk.size) for chunk in held]
            else:
                concerned = [(command.item, 1)]
            text = f"{now:.6f} {type(event).__name__} -> {command}"
            self.entries.extend((start, size, text) for start, size in concerned)

    def story(self, item: int) -> list[str]:
        """What happened to one item, oldest first."""
        return [text for start, size, text in self.entries if start <= item < start + size]
