"""The ``threads`` backend: a thread per worker, in the caller's process.

Guarantees: a thread reports its own outcomes, so that no second thread has to wake up between
two chunks; the caller's context variables are visible in items. A thread inside an item cannot
be ended: ``close`` waits ``grace`` seconds for the thread, and leaves it to end after the item.
"""

from __future__ import annotations

import queue as queues  # not its class: a library may patch it, as it does threads
import threading
import time
from collections.abc import Sequence

from parallax._backends.capture import run_chunk
from parallax._backends.contract import CrewSetup, Done, Joined, Unable
from parallax._core.chunks import Chunk
from parallax._core.contexts import snapshot
from parallax._core.deferred_signals import Shield
from parallax._core.interrupt_mask import StartingThread, unblock_interrupts
from parallax._core.light_stdlib import Any
from parallax._core.nesting import enter
from parallax._core.thread_clocks import thread_delay
from parallax._reporting.stall_monitor import stack_of
from parallax._reporting.stall_policy import WorkerSnapshot

#: Most threads whose delays are read. Many threads wait for each other's cores, and reading costs
#: 10 us per thread.
MAX_MEASURED_THREADS = 16


class SelfReportingCrew:
    """Workers that report by themselves, keep what they are handed, and cannot be ended."""

    recalls = False

    def __init__(self, setup: CrewSetup) -> None:
        self._report, self._call, self._new_id, self._outer, self._context = setup
        self._place = self._outer.worker(1)

    def recall(self, *_: object) -> None:
        """Nothing is given back, there is nothing to wait for, and no worker can be ended."""

    selector = poll = kill = recall


class ThreadCrew(SelfReportingCrew):
    def __init__(self, setup: CrewSetup) -> None:
        super().__init__(setup)
        self._inboxes: dict[int, queues.SimpleQueue[tuple[Chunk, Sequence[Any]] | None]] = {}
        self._threads: dict[int, threading.Thread] = {}
        #: the results so far of the chunks that threads are running, by worker.
        self._values: dict[int, list[Any]] = {}

    @property
    def size(self) -> int:
        return len(self._threads)

    def delay(self) -> float:
        if len(self._threads) > MAX_MEASURED_THREADS:
            return 0.0  # they take turns on the cores themselves
        return sum(thread_delay(t.native_id) for t in list(self._threads.values()))

    def open(self, count: int) -> None:
        self._place.share(self._outer, max(count, len(self._threads)))
        while len(self._threads) < count:
            with Shield():  # else a thread may wait for ever
                if not self._start():
                    return

    def _start(self) -> bool:
        name = self._new_id()
        inbox: queues.SimpleQueue[tuple[Chunk, Sequence[Any]] | None] = queues.SimpleQueue()
        self._inboxes[name] = inbox
        # Daemon: a thread that sits in an endless item must not keep the interpreter.
        thread = threading.Thread(
            target=snapshot(self._context).run,
            args=(self._work, name, inbox),
            name=f"parallax-{name}",
            daemon=True,
        )
        try:
            with StartingThread():
                thread.start()
        except RuntimeError as error:
            del self._inboxes[name]
            self._report(Unable(str(error), fatal=not self._threads))
            return False
        self._threads[name] = thread
        self._report(Joined(name))
        return True

    def send(self, worker: int, chunk: Chunk, items: Sequence[Any]) -> None:
        self._inboxes[worker].put((chunk, items))

    def name(self, worker: int) -> str:
        thread = self._threads.get(worker)
        return f"thread {thread.name}" if thread is not None else "a thread"

    def where(self, worker: int) -> WorkerSnapshot:
        thread = self._threads.get(worker)
        if thread is None or thread.ident is None:
            return WorkerSnapshot("a thread that has ended")
        values = self._values.get(worker)
        done = None if values is None else len(values)
        return WorkerSnapshot(self.name(worker), stack_of(thread.ident), done)

    def close(self, grace: float) -> None:
        for inbox in self._inboxes.values():
            inbox.put(None)
        deadline = time.monotonic() + grace
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(
        self, name: int, inbox: queues.SimpleQueue[tuple[Chunk, Sequence[Any]] | None]
    ) -> None:
        fn, star, stop = self._call
        unblock_interrupts()
        enter(self._place)
        while (task := inbox.get()) is not None:
            chunk, items = task
            del task
            values: list[Any] = []
            self._values[name] = values
            result = run_chunk(fn, items, values, star=star, stop=stop)
            del self._values[name], values
            del items
            self._report(Done(name, chunk.id, result))
            del result
