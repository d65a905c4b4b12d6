"""What a run's scheduler is told and what it answers: the vocabulary of ``_scheduler``.

Events say what happened, commands say what is to be done. All are frozen values without behaviour,
so that a test, a simulation and a real run speak to the scheduler in the same words.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from parallax._core.chunks import Chunk

__all__ = [
    "Arrived",
    "Blame",
    "Command",
    "Consumed",
    "Cut",
    "Emit",
    "Ended",
    "Event",
    "Finished",
    "Kill",
    "Lost",
    "Ready",
    "Recall",
    "Retire",
    "Returned",
    "Send",
    "Tick",
]


class Arrived(NamedTuple):
    """The input gave this many more items."""

    items: int


class Ended(NamedTuple):
    """The input has no more items."""


class Ready(NamedTuple):
    """A worker can take chunks of about ``target`` seconds, ``depth`` of them at a time.

    ``quota`` is the most items that it may still be given, None for no limit. Items that it gives
    back unrun do not count. Said again of a worker that is known, it can only lower its quota.
    ``recall`` says that it can be asked to give back what it has not begun.
    """

    worker: int
    depth: int = 1
    target: float = 0.02
    quota: int | None = None
    recall: bool = False


class Retire(NamedTuple):
    """A worker gets nothing more; what it has in flight still counts."""

    worker: int


class Finished(NamedTuple):
    """A worker ran the first ``ran`` items of a chunk; those in ``again`` are run anew."""

    worker: int
    chunk: int
    ran: int
    failed: tuple[int, ...] = ()
    wall: float = 0.0
    again: tuple[int, ...] = ()


class Lost(NamedTuple):
    """A worker ended; its chunks in flight did not come back.

    ``began`` is False if it cannot have started on its oldest chunk.
    """

    worker: int
    began: bool = True


class Returned(NamedTuple):
    """A worker gave a chunk back unrun; ``split`` it so that each item goes alone."""

    worker: int
    chunk: int
    split: bool = False


class Cut(NamedTuple):
    """A worker gave back the items of a chunk from offset ``keep`` on, unrun.

    It goes on with those before, and its ``Finished`` will tell of them alone. With ``keep`` 0 it
    had begun none, and the chunk is no longer with it.
    """

    worker: int
    chunk: int
    keep: int


class Consumed(NamedTuple):
    """The reader took this many results."""

    items: int


class Tick(NamedTuple):
    """Time passed."""


class Send(NamedTuple):
    """Give these items to this worker."""

    worker: int
    chunk: Chunk


class Emit(NamedTuple):
    """The results of these items may be delivered."""

    start: int
    size: int


class Blame(NamedTuple):
    """This item ended its worker once too often; its result is that loss."""

    item: int
    worker: int
    attempts: int


class Kill(NamedTuple):
    """This item overran its time limit on this worker."""

    worker: int
    item: int


class Recall(NamedTuple):
    """Ask this worker to give back what it has not begun; ``Cut`` answers, if there is any.

    The answer may be late, and may be missing: what the worker finishes all the same counts.
    """

    worker: int


Event: TypeAlias = (
    Arrived | Ended | Ready | Retire | Finished | Lost | Returned | Cut | Consumed | Tick
)
Command: TypeAlias = Send | Emit | Blame | Kill | Recall
