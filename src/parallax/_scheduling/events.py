"""The events that a scheduler handles, and the commands that it returns.

Guarantees: frozen values without behaviour, so that a test, a simulation and a real run use the
scheduler in the same way.
"""

from __future__ import annotations

from parallax._core.chunks import Chunk
from parallax._core.light_stdlib import NamedTuple, TypeAlias


class Arrived(NamedTuple):
    """The input gave ``items`` more items."""

    items: int


class Ended(NamedTuple):
    """The input has no more items."""


class Ready(NamedTuple):
    """A worker can take chunks of about ``target`` seconds, ``depth`` of them at a time.

    ``quota`` is the most items that the worker may still be sent, None for no limit. Items that
    are given back unrun do not count. A second ``Ready`` can only lower the quota. ``recall``
    tells whether the worker can be asked to give back unbegun items.
    """

    worker: int
    depth: int = 1
    target: float = 0.02
    quota: int | None = None
    recall: bool = False


class Retire(NamedTuple):
    """A worker gets nothing more; the chunks that it holds still count."""

    worker: int


class Finished(NamedTuple):
    """A worker ran the first ``ran`` items of a chunk, in ``wall`` seconds.

    ``failed`` and ``again`` are offsets: of items that raised, and of items that are run again
    without counting as a retry.
    """

    worker: int
    chunk: int
    ran: int
    failed: tuple[int, ...] = ()
    wall: float = 0.0
    again: tuple[int, ...] = ()


class Lost(NamedTuple):
    """A worker ended with its chunks, and had not ``began`` the oldest if that is False."""

    worker: int
    began: bool = True


class Returned(NamedTuple):
    """A worker gave a chunk back unrun; with ``split`` each item is sent alone from now on."""

    worker: int
    chunk: int
    split: bool = False


class Cut(NamedTuple):
    """A worker gave back the items of a chunk from offset ``keep`` on, unrun.

    The worker goes on with those before, and ``Finished`` will report only these. With ``keep`` 0
    none had begun, and the worker no longer holds the chunk.
    """

    worker: int
    chunk: int
    keep: int


class Consumed(NamedTuple):
    """The reader took ``items`` results, so the window moves."""

    items: int


class Tick(NamedTuple):
    """Time passed: item timeouts and overdue workers are looked for."""


class Send(NamedTuple):
    worker: int
    chunk: Chunk


class Emit(NamedTuple):
    """The results of ``size`` items from ``start`` on may be delivered."""

    start: int
    size: int


class Blame(NamedTuple):
    """An item ended its worker more often than it may be retried; its result is that error."""

    item: int
    worker: int
    attempts: int


class Kill(NamedTuple):
    """End a worker whose item overran its time limit."""

    worker: int
    item: int


class Recall(NamedTuple):
    """Ask a worker to give back unbegun items; ``Cut`` answers, if there are any.

    The answer may be late or missing: items that the worker finishes all the same count.
    """

    worker: int


Event: TypeAlias = (
    Arrived | Ended | Ready | Retire | Finished | Lost | Returned | Cut | Consumed | Tick
)
Command: TypeAlias = Send | Emit | Blame | Kill | Recall
