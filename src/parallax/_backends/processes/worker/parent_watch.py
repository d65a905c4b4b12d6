"""The thread of a worker process that ends it when the program is gone.

Guarantees: a worker ends even in the middle of a long item, with the processes that it has started;
an item that forks meets no thread.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from collections.abc import Callable

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.process_exit import exit_waiter
from parallax._backends.processes.common.process_tree import KILL, kill_tree
from parallax._core.fork_pauses import pause_at_forks
from parallax._core.thread_clocks import native_id


def watch_parent() -> None:
    """End this process when the parent is gone, even in the middle of a long item.

    Workers of the zygote need no such thread: the zygote ends them. The thread does not wait on the
    socket: as long as a thread waits on a descriptor, its close by another thread has no effect.
    """
    wake_read, wake_write = os.pipe()
    try:
        wait, _ = exit_waiter(os.getppid(), wake_read)
    except OSError:  # the end of the socket is noticed between two items
        os.close(wake_read)
        os.close(wake_write)
        return
    watch = _ParentWatch(wait, wake_read, wake_write)
    watch.resume()
    pause_at_forks(watch)


class _ParentWatch:
    """A thread that ends this process some time after its parent; it pauses at forks of items."""

    def __init__(
        self, wait: Callable[[float | None], bool], wake_read: int, wake_write: int
    ) -> None:
        self._wait, self._wake_read, self._wake_write = wait, wake_read, wake_write
        self._parent = os.getppid()
        self.running = _thread.allocate_lock()
        self.native_id: int | None = 0

    def pause(self) -> None:
        os.write(self._wake_write, b"x")

    def resume(self) -> None:
        self.running.acquire()
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        self.native_id = native_id()
        if not self._wait(None):
            os.read(self._wake_read, 1)
            self.running.release()
            return
        # A worker that is between two items leaves by itself, with its output written.
        time.sleep(protocol.ORPHAN_GRACE_S)
        if sys.platform != "win32" and os.getppid() == self._parent:
            self.running.release()
            return  # an item has closed the descriptors that this waited on
        kill_tree(os.getpid(), itself=False)
        os.kill(os.getpid(), KILL)
