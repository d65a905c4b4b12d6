"""The two ends of a worker's channel, with the shared memory that goes with each.

Every worker has two stores: it receives from its parent's, which all workers share, and sends from
one of its own, so that a result needs no answer before it can be written. The parent makes both and
keeps both: what lies in them outlives the worker as long as somebody looks at it.

Guarantees: a worker whose parent has no shared memory to give works without.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from parallax._core.light_stdlib import sockets
from parallax._shm.segment import Store
from parallax._shm.sender import Lender
from parallax._transport.shm_channel import ParcelChannel, say_once

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parallax._shm.segment import Handle

__all__ = ["IDLE", "keep_channel", "open_channel"]

#: Seconds without work after which a worker gives free shared memory back to the system.
IDLE = 2.0


def open_channel(sock: sockets.socket, stores: Sequence[Handle]) -> ParcelChannel:
    """The worker's end.

    Args:
        sock: its socket.
        stores: what its parent lends from, and what it lends from; or nothing.
    """
    for fd in stores:
        if isinstance(fd, int):
            # Programs that an item starts have no business with it.
            os.set_inheritable(fd, False)
    if not stores:
        return ParcelChannel(sock, lender=lambda: None, store=None, private=True)
    theirs, ours = map(Store, stores)
    return ParcelChannel(
        sock, lender=lambda: Lender(ours, allocate_lock()), store=theirs, private=True
    )


def keep_channel(sock: sockets.socket, lender: Lender | None, store: Store | None) -> ParcelChannel:
    """The parent's end.

    Args:
        sock: its socket.
        lender: what lends to the worker, which has its store.
        store: what the worker lends from; None with either of both missing.
    """
    find = _refuse if lender is None or store is None else lambda: lender
    return ParcelChannel(sock, waits=False, lender=find, store=store, private=False)


def _refuse() -> None:
    from parallax._shm.arena import refusal  # loads what workers never need

    say_once(refusal())
