"""The two ends of a worker's channel, with the shared memory of each.

A worker has two segments. It receives from the segment of its parent, which all workers share, and
sends from a segment of its own, so that a result can be written without asking. The parent creates
and keeps both: their content outlives the worker as long as something refers to it.

On Windows the content would go with the worker, so what it sends goes through its socket.

Guarantees: a worker whose parent has no shared memory to give works without.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Sequence

from parallax._core.light_stdlib import TYPE_CHECKING, sockets
from parallax._shm.segment import Handle, Segment
from parallax._transport.shm_channel import SharedMemoryChannel, warn_no_shared_memory

if TYPE_CHECKING:
    from parallax._shm.sender import SlabSender

#: Seconds without work after which a worker gives free shared memory back to the system.
TRIM_AFTER_S = 2.0


def open_channel(sock: sockets.socket, segments: Sequence[Handle]) -> SharedMemoryChannel:
    """The worker's end; ``segments``: its parent's and its own ("" for none), or none."""
    for fd in segments:
        if isinstance(fd, int):
            # Programs that an item starts have no business with it.
            os.set_inheritable(fd, False)
    if not segments:
        return SharedMemoryChannel(sock, sender=lambda: None, segment=None, private=True)
    theirs, ours = map(Segment, segments)

    def create_sender() -> SlabSender | None:
        if not ours.handle:
            return None
        from parallax._shm.sender import SlabSender  # for large results only

        return SlabSender(ours, allocate_lock())

    return SharedMemoryChannel(sock, sender=create_sender, segment=theirs, private=True)


def keep_channel(
    sock: sockets.socket, sender: SlabSender | None, segment: Segment | None
) -> SharedMemoryChannel:
    """The parent's end; ``segment`` is the worker's own, if it has one."""
    find = _refuse if sender is None else lambda: sender
    return SharedMemoryChannel(sock, waits=False, sender=find, segment=segment, private=False)


def _refuse() -> None:
    from parallax._shm.arena import unavailable_reason  # loads what workers never need

    warn_no_shared_memory(unavailable_reason())
