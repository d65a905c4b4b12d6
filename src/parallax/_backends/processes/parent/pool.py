"""A pool of warm worker processes, which outlive the run that started them.

Guarantees: a worker is lent to one run at a time; at most ``limit`` workers exist over all
concurrent callers, unless a caller asked for more; idle workers leave by themselves after
``idle_timeout``; ``shutdown`` (at exit too) leaves no process behind; a forked copy of this
process starts afresh.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Iterable

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.stack_dumps import StackDump
from parallax._backends.processes.parent.output_receiver import OutputReceiver
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.parent.worker_start import W, make_starter, outputs, start_worker
from parallax._backends.processes.parent.worker_state import GONE, IDLE, LEAVING, STARTING, WORKING
from parallax._backends.processes.start.attendant import Attended, attendant
from parallax._backends.processes.start.initializer import Initializer
from parallax._backends.processes.start.spawn import installed
from parallax._backends.processes.start.starter import Starter
from parallax._core.lazy_import import errors
from parallax._core.process_rights import Rights, own_rights
from parallax._transport.shm_channel import SharedMemoryChannel
from parallax._transport.wakeup import ready_channels

#: Seconds to wait for another run's workers. Shorter starts more of them than there are cores,
#: longer holds up a program that reads two streams in turns.
LEASE_TIMEOUT_S = 1.0

#: Seconds that ``tidy`` waits for the lock. A fork waits for it, and may have the lock itself.
TIDY_TIMEOUT_S = 0.02

#: Seconds that workers take to start, without the modules that they import.
USUAL_START_S = 0.06


#: workers of executors, of whatever pool.
hired_anywhere: set[WorkerClient] = set()


class Pool:
    """Starts, lends and takes back workers. Thread-safe."""

    def __init__(
        self,
        method: str = "auto",
        starter: Starter | None = None,
        rights: Rights | None = None,
    ) -> None:
        """Prepare for workers that may do what this process may do, now or by ``rights``."""
        # Not the condition's own way in, which is Python code: an interrupt there leaves it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._starter = starter or make_starter(method)
        #: the method of the pool that takes over where this one's workers do not do; "" if none.
        self.spare = self._starter.spare
        #: what its workers may do.
        self.rights = self._starter.rights = rights or own_rights()
        #: our ends of the worker that is being started.
        self._making: list[SharedMemoryChannel | StackDump] = []
        self._idle: list[WorkerClient] = []
        self._alive: set[WorkerClient] = set()
        #: workers of executors: not lent, not counted.
        self._hired: set[WorkerClient] = set()
        #: workers that were told to leave and are not known to have left.
        self._leaving: list[WorkerClient] = []
        #: the output of idle workers: of threads that items have left there.
        self._output = OutputReceiver("parallax-pool-voices")
        #: seconds that a worker took from its start to its hello, newest.
        self.start_seconds: float | None = None

    imports = True  #: whether workers have to import what the program has imported.

    @property
    def method(self) -> str:
        return self._starter.method

    def prepare(self, modules: Iterable[str]) -> None:
        """Begin to import installed modules where workers will be forked from."""
        # Only a hint: what keeps workers from starting is told when they are asked for.
        with self._lock:
            try:
                self._starter.prepare({m for m in modules if installed(m)})
            except (errors.WorkerStartError, OSError):
                pass
            self._attend()

    def expected_start(self, count: int, limit: int, modules: Collection[str]) -> float:
        """Seconds until ``count`` workers take work: 0 if up, infinite if others have them."""
        with self._lock:
            if count <= sum(w.state is IDLE for w in self._idle):
                return 0.0
            if not self._idle and len(self._alive) >= limit:
                return math.inf
            return USUAL_START_S + self._starter.expected_import(modules)

    def lease(
        self, count: int, limit: int, *, wait: bool, items: int | None = None
    ) -> list[WorkerClient]:
        """Lend up to ``count`` workers, warm ones first; WorkerStartError if none starts."""
        lent: list[WorkerClient] = []
        written = outputs()
        with self._lock:
            while True:
                self._weed()
                while self._idle and len(lent) < count:
                    worker = self._idle.pop()
                    worn = items is not None and worker.ran >= items
                    if worn or worker.outputs != written:
                        self.retire(worker)
                        continue
                    if worker.state is IDLE:
                        worker.enter(WORKING)
                    lent.append(worker)
                while len(lent) < count and len(self._alive) < limit:
                    try:
                        lent.append(self._start(WorkerClient))
                    except errors.WorkerStartError:
                        if not lent:
                            raise
                        break
                if lent or not wait:
                    return lent
                if not self._changed.wait(LEASE_TIMEOUT_S):
                    # Perhaps the run that has them is a stream that this very thread reads:
                    # waiting on would be a deadlock. One above the limit gets us on.
                    limit = max(limit, len(self._alive) + 1)

    @property
    def workers(self) -> int:
        """Workers that are alive, those of executors not counted."""
        return len(self._alive)

    @property
    def resting(self) -> bool:
        """Whether no worker is lent or an executor's."""
        return not self._hired and len(self._idle) == len(self._alive)

    @property
    def forks(self) -> bool:
        return self.method == "fork"

    def hire(self, kind: type[W], initializer: Initializer | None = None) -> W:
        """Start a worker that is never lent, until ``discard``; WorkerStartError if not."""
        with self._lock:
            worker = self._start(kind, initializer)
            self._alive.discard(worker)
            self._hired.add(worker)
            hired_anywhere.add(worker)
            return worker

    def _start(self, kind: type[W], initializer: Initializer | None = None) -> W:
        worker = start_worker(self._starter, kind, initializer, self._making)
        worker.pool = self
        self._alive.add(worker)
        self._attend(worker)
        return worker

    def _attend(self, *workers: WorkerClient) -> None:
        """Have ``tidy`` called when a child of this process has ended, or one of a zygote's."""
        started: list[Attended] = [worker.started for worker in workers]
        for process in (*started, *self._starter.zygotes()):
            attendant().watch(process, self.tidy)

    def trouble(
        self, worker: WorkerClient | None = None, *, late: bool = False
    ) -> tuple[str, bool]:
        """Why a worker did not come up, and whether starting again has a chance."""
        with self._lock:
            return self._starter.trouble(worker.started if worker is not None else None, late=late)

    def exitcode(self, worker: WorkerClient) -> int | None:
        """The exit status of a worker that has ended; None while it runs or if it is not known."""
        with self._lock:
            return worker.started.exitcode(0.0)

    def deadline(self, worker: WorkerClient) -> float:
        """When a worker that is not up by then is given up, on the monotonic clock."""
        with self._lock:
            return self._starter.deadline(worker.started, worker.born)

    def greet(self, worker: WorkerClient, pid: int) -> None:
        """Note that a worker said hello; its holder has it WORKING until it says otherwise."""
        worker.greet(pid)
        self.start_seconds = time.monotonic() - worker.born

    def give_back(self, worker: WorkerClient, idle_timeout: float | None) -> None:
        """Take back a worker that owes nothing, and tell it its idle time unless it knows."""
        if idle_timeout is not None:
            try:
                worker.channel.send(protocol.RELEASE, int(idle_timeout * 1000))
            except OSError:
                self.discard(worker, kill=True)
                return
        with self._lock:
            if worker.state is WORKING:
                worker.enter(IDLE)
            self._idle.append(worker)
            self._changed.notify_all()

    def discard(self, worker: WorkerClient, *, kill: bool, timeout: float = 0.5) -> int | None:
        """Let go of one that died or is to die; its exit status if known in time."""
        if kill:
            worker.started.kill()
        worker.close()
        with self._lock:
            self._part(worker)
            code = worker.started.exitcode(timeout)
            if code is None and worker not in self._leaving:
                self._leaving.append(worker)  # reaped when it ends at last
            elif code is not None and worker.state is LEAVING:
                worker.enter(GONE)
            return code

    def retire(self, worker: WorkerClient) -> None:
        """Let a worker go that leaves by itself once its socket is closed; it is reaped later."""
        worker.close()
        with self._lock:
            self._part(worker)
            self._leaving.append(worker)
            self._sweep()

    def settle(self, timeout: float) -> None:
        """Reap the workers that were let go, as far as they are gone within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            for worker in self._leaving:
                worker.started.exitcode(max(0.0, deadline - time.monotonic()))
            self._sweep()

    finish = settle  # at the end of a run or executor

    def tidy(self) -> None:
        """Let go of what has ended by itself; for a thread that may try again if that takes long.

        Without this, workers that leave when they were idle for long would stay until a later call:
        as zombies, with our ends of their connections.
        """
        if not self._lock.acquire(timeout=TIDY_TIMEOUT_S):
            return
        try:
            self._starter.listen()
            for worker in self._all():
                worker.started.look()
            self._weed()
        finally:
            self._lock.release()

    def _part(self, worker: WorkerClient) -> None:
        self._alive.discard(worker)
        self._hired.discard(worker)
        hired_anywhere.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._changed.notify_all()

    def _all(self) -> list[WorkerClient]:
        return [*self._alive, *self._hired, *self._leaving]

    def _sweep(self) -> None:
        """Drop the leaving workers that are gone."""
        for worker in self._leaving:
            if worker.state is LEAVING and worker.started.gone():
                worker.enter(GONE)
        self._leaving = [w for w in self._leaving if w.state is not GONE]

    def _weed(self) -> None:
        """Let go of idle workers that have left."""
        if self._leaving:
            self._sweep()
        heard = ready_channels([worker.channel for worker in self._idle], 0)
        for worker in [w for w in self._idle if w.channel in heard] if heard else ():
            try:
                frames = worker.channel.receive()
            except (EOFError, OSError):
                frames = None
            if frames is None or any(f.kind == protocol.BYE for f in frames):
                self.discard(worker, kill=False)
                continue
            for frame in frames:
                if frame.kind == protocol.HELLO:
                    self.greet(worker, frame.tag)
                    worker.enter(IDLE)
                elif frame.kind == protocol.OUTPUT:
                    self._output.receive(worker.decoder, frame)
        self._output.deliver_soon()

    def shutdown(self) -> None:
        """End all workers, idle or not, and the zygote; returns when they are gone."""
        with self._lock:
            self._weed()
            workers, self._alive = [*self._alive, *self._leaving], set()
            self._leaving.clear()
            self._idle.clear()
            for worker in workers:
                if worker.owed or worker.state is STARTING:
                    worker.started.kill()
                worker.close()
            if self._starter.method != "zygote":
                for worker in workers:
                    if worker.started.exitcode(1.0) is None:
                        worker.started.kill()
                        worker.started.exitcode(1.0)
            self._starter.close()
            self._changed.notify_all()
        self._output.close()

    def forget(self) -> None:
        """Drop everything without ending it: for a forked copy of the owner."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        for worker in self._all():
            worker.close()
            worker.started.close()
        for each in self._making:
            each.close()
        self._making.clear()
        self._alive, self._idle, self._hired, self._leaving = set(), [], set(), []
        self._output = OutputReceiver("parallax-pool-voices")
        self._starter.forget()
