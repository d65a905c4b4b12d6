"""The ``processes`` backend: workers of the warm pool, lent to one run.

Guarantees: nothing here blocks but ``poll`` and ``close``; a dead worker is reported with its exit
status and only its chunks are lost; workers that owe nothing go back to the pool warm.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from threading import RLock

from parallax._backends.contract import Died, Done, Joined, Left, Refused, Report, Unable, Yielded
from parallax._backends.processes.common import protocol
from parallax._backends.processes.parent.call_encoding import MAX_HASHED_BYTES
from parallax._backends.processes.parent.output_receiver import OutputReceiver
from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.run_call import RunCall, SentOnce
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.parent.worker_set import Loss, WorkerSet
from parallax._backends.processes.parent.worker_state import CONDEMNED, STARTING
from parallax._core.chunks import Chunk, ChunkResult, Route
from parallax._core.deferred_signals import MAX_WAIT_S, Shield
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import Any, dumps
from parallax._reporting.stall_policy import WorkerSnapshot
from parallax._shm.registry import find_shared
from parallax._transport import codec
from parallax._transport.framing import Frame
from parallax._transport.pickle_diagnosis import find_unpicklable
from parallax._transport.shm_channel import SharedFrame

_serials = itertools.count(1)

#: Seconds for workers that were let go to end before the run does. Less leaves them unreaped until
#: the next run where there is no zygote.
SETTLE_TIMEOUT_S = 0.1

#: Seconds from which an idle time may as well be counted from a worker's last task as from the end
#: of the run: it is rare that a run keeps a worker waiting for so long, and then it gets a new one.
MIN_EARLY_IDLE_TIMEOUT_S = 5.0


class ProcessCrew(WorkerSet[WorkerClient]):
    """Worker processes at work for one run."""

    def __init__(
        self,
        report: Report,
        lock: RLock,
        call: RunCall,
        *,
        pool: Pool,
        limit: int,
        idle_timeout: float,
        new_id: Callable[[], int],
        surround: Callable[[int], bytes],
        wait: bool,
        output: OutputReceiver,
        items: int | None = None,
        memory: int | None = None,
        net: tuple[Any, ...] | None = None,
    ) -> None:
        """Prepare; ``surround`` captures the environment of so many workers."""
        super().__init__(pool, output)
        self.route: Route = "interpreters" if pool.spare else "processes"
        self._report = report
        self._lock = lock
        self._call = call
        self._key = call.key
        self._surround = surround
        #: the environment of items, captured for so many workers.
        self._context = 0, b""
        self._limit = limit
        self._new_id = new_id
        self._wait = wait
        self._items = items
        # Where workers are told their idle time beforehand, that saves a message per worker and
        # run; else they are told when they are given back.
        early = idle_timeout >= MIN_EARLY_IDLE_TIMEOUT_S
        self._release_after = None if early else idle_timeout
        idle = idle_timeout if early else None
        limits = {"items": items, "memory": memory, "idle": idle, "net": net}
        self._limits = dumps({k: v for k, v in limits.items() if v is not None}, 5)
        #: items that a worker may still be sent, where that is limited.
        self._quota: dict[int, int] = {}
        self._joined: set[int] = set()
        self._sent_once = SentOnce(call)
        #: what distinguishes this run's chunks from all others that its workers ever had.
        self._serial = next(_serials) << 32
        self._wanted = 0
        self._delay = 0.0
        #: report workers before they are up: chunks wait in their sockets.
        self.eager = False

    @property
    def recalls(self) -> bool:
        return not self.pool.spare and protocol.RECALL is not None

    @property
    def size(self) -> int:
        return len(self.workers)

    def delay(self) -> float:
        return self._delay

    def open(self, count: int) -> None:
        self._wanted = count
        if self.hopeless:
            # Of workers that are reported before they are up some are lost at any time.
            if not self.workers:
                self._report(Unable(self.hopeless, method=self.pool.method))
        elif count > len(self.workers):
            with Shield():  # else a worker may be lent to nobody
                self._open(count)

    def _open(self, count: int) -> None:
        missing = count - len(self.workers)
        try:
            wait = self._wait and not self.workers
            leased = self.pool.lease(missing, self._limit, wait=wait, items=self._items)
        except errors.WorkerStartError as error:
            if self._fall_back(error.detail):
                self._open(count)
            elif not self.workers:
                self._report(Unable(error.detail, method=error.method))
            return
        if any(self._key not in each.started.inherits.keys for each in leased):
            try:
                self._call.check()  # where the program was forked, its template may have died
            except errors.WorkerStartError as error:
                for each in leased:
                    self.pool.discard(each, kill=True)
                self._report(Unable(error.detail, method=error.method))
                return
        if count > self._context[0]:  # not once more for one that is replaced
            self._context = count, self._surround(count)
        with self._lock:
            for worker in leased:
                self._admit(worker, self._new_id())
                worker.use(self._key, self._call.encode, self._context[1], self._limits)
                if self._items is not None:
                    self._quota[worker.number] = self._items - worker.ran
                if self.eager or worker.state is not STARTING:
                    self._came_up(worker)
                if worker.number in self.workers:
                    self.watch(worker)  # what no chunk took along goes when the socket takes it
        if not leased and not self.workers:
            self._report(Unable("all workers are lent to other calls", fatal=False))

    def _came_up(self, worker: WorkerClient) -> None:
        number = worker.number
        if number not in self._joined:
            self._joined.add(number)
            self._report(Joined(number, self._quota.get(number)))

    def send(self, worker: int, chunk: Chunk, items: Sequence[Any]) -> None:
        begin = time.perf_counter()
        if worker in self._quota:
            self._quota[worker] -= chunk.size
        client = self.workers.get(worker)
        try:
            if client is None or client.heritage is None:
                encoded = self._call.objects.pack(items)
            else:
                part = client.heritage.part(chunk.start, items)
                encoded = codec.encode(items if part is None else part)
        except Exception as error:  # noqa: BLE001 - whatever a __reduce__ raises
            path, reason = "item", ""
            cause = None
            if chunk.size == 1:
                path, reason = find_unpicklable(items[0], "item")
                cause = errors.without_frames(error)
            self._report(Refused(worker, chunk.id, "item", path, reason, cause))
            self._retire_spent(client)
            return
        if client is None:
            return
        client.flight[chunk.id] = (0, 0.0, items)
        payload, buffers = encoded.payload, encoded.buffers
        dedup = self._sent_once.dedup_for(buffers)
        before = dedup.bytes_spared if dedup is not None else 0
        try:
            tag = self._serial + chunk.id
            client.channel.send(protocol.TASK, tag, payload, buffers, dedup=dedup)
        except BaseException as error:
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                return  # poll sees its end-of-file and reports the chunk lost
            client.condemn()
            raise
        sent = len(payload) + sum(b.nbytes for b in buffers if not find_shared(b))
        if dedup is not None:
            sent -= dedup.bytes_spared - before
        client.flight[chunk.id] = (sent, time.perf_counter() - begin, items)
        self.watch(client)

    def name(self, worker: int) -> str:
        client = self.workers.get(worker)
        return client.started.title if client is not None else "a worker process"

    def where(self, worker: int) -> WorkerSnapshot:
        client = self.workers.get(worker)
        return (
            client.where()
            if client is not None
            else WorkerSnapshot("a worker process that has ended")
        )

    def recall(self, worker: int) -> None:
        client = self.workers.get(worker)
        if client is not None and client.started.recalls and protocol.RECALL is not None:
            client.started.signal(protocol.RECALL)

    def kill(self, worker: int) -> bool:
        client = self.workers.get(worker)
        if client is not None:
            client.started.kill()
        return client is None or client.started.killable

    def poll(self, timeout: float | None) -> None:
        timeout = MAX_WAIT_S if timeout is None else min(timeout, MAX_WAIT_S)
        if (due := self.due()) is not None:
            timeout = min(max(0.0, due - time.monotonic()), timeout)
        ready = self.select(timeout)
        with self._lock:
            self.serve(ready)
            self.give_up_late()

    def close(self, grace: float) -> None:
        """Give idle workers back, and end those that are still busy after ``grace`` seconds."""
        deadline = time.monotonic() + grace
        self._report = lambda _: None
        self._wanted = 0
        while any(w.flight for w in self.workers.values()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.poll(left)
            self.output.deliver_soon()
        if self._call.nbytes > MAX_HASHED_BYTES:
            self._drop_call()
        with self._lock:
            for worker in self.workers.values():
                self._unregister(worker)
                busy = worker.flight or worker.channel.unsent
                if busy or worker.state is CONDEMNED or worker.changed:
                    worker.pool.discard(worker, kill=True)
                else:
                    worker.pool.give_back(worker, self._release_after)
            self.workers.clear()
            self._sent_once.clear()
            if self._made is not None:
                self._made.close()
        self.pool.finish(SETTLE_TIMEOUT_S)

    # -- parts ---------------------------------------------------------------------------------

    def _drop_call(self) -> None:
        """Have the workers forget the callable: no other call will use this key."""
        idle = [w for w in self.workers.values() if not w.flight and not w.channel.unsent]
        for worker in idle:
            with contextlib.suppress(OSError):  # it is leaving
                worker.forget(self._key)
                worker.channel.flush()
        slabs = self._call.slabs
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while any(w.channel.has_sent(slab) for w in idle for slab in slabs):
            # What it captured would stay in memory until the next call is sent.
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.poll(left)

    def _heard(self, worker: WorkerClient, frame: Frame | SharedFrame) -> None:
        kind, number, chunk = frame.kind, worker.number, frame.tag - self._serial
        if kind in {protocol.RESULT, protocol.REFUSED}:
            if chunk not in worker.flight:
                return  # of an earlier run
            sent, seconds, items = worker.flight.pop(chunk)
        if kind == protocol.RESULT:
            begin = time.perf_counter()
            received = frame.nbytes
            try:
                heritage = worker.heritage
                if heritage is None:
                    heritage = self._call.objects
                    heritage.hold(items)
                result = ChunkResult(*heritage.decode(*frame.open()))
            except KeyboardInterrupt:  # rather the user's than a result's
                raise
            except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
                reason = f"{type(error).__name__}: {error}"
                cause = errors.without_frames(error)
                self._report(Refused(number, chunk, "result", "result", reason, cause))
                return
            seconds += time.perf_counter() - begin
            self._delay += result.delay
            self._prove_worth()
            worker.ran += len(result.values)
            worker.changed = worker.changed or bool(result.changed)
            once, spared = self._sent_once.saved(len(result.values))
            self._report(Done(number, chunk, result, sent, received, seconds, once, spared))
            self._retire_spent(worker)
        elif kind == protocol.YIELDED:
            for tag, keep in codec.decode(*frame.open()):
                chunk = tag - self._serial
                if chunk not in worker.flight:
                    continue
                if not keep:
                    del worker.flight[chunk]
                self._report(Yielded(number, chunk, keep))
        elif kind == protocol.REFUSED:
            failure = ChunkResult(*codec.decode(*frame.open())).failures[0]
            said: Any = failure.error
            errors.add_traceback(said, failure.traceback)
            self._report(Refused(number, chunk, said.what, said.path, said.reason, said.__cause__))
            self._retire_spent(worker)
        elif kind == protocol.BYE:
            if frame.tag == protocol.CANNOT_LOAD:
                self._fall_back(frame.open()[0])
            self._retire(worker, worn=frame.tag == protocol.AT_LIMIT)
        else:
            super()._heard(worker, frame)

    def _retire_spent(self, worker: WorkerClient | None) -> None:
        """Let go of a worker without quota that owes nothing; its BYE need not be awaited."""
        if worker is None or not worker.alive or worker.flight:
            return
        if self._quota.get(worker.number, 1) <= 0:
            self._retire(worker, worn=True)

    def _retire(self, worker: WorkerClient, *, worn: bool) -> None:
        self._remove(worker)
        worker.pool.retire(worker)
        # What follows one that was at work needs no proof that it comes up.
        self.eager = self.eager or worn
        self._report(Left(worker.number, worn))

    def _ended(self, worker: WorkerClient, loss: Loss) -> None:
        # If no worker gets as far as to begin, it is due to the work after all.
        began = loss.came_up and (loss.began or bool(loss.hopeless))
        hopeless = loss.hopeless and not self._fall_back(loss.hopeless)
        self._report(Died(worker.number, loss.end, began))
        if loss.came_up:
            return  # the run asks for another one if it wants it
        if hopeless:
            self._report(Unable(loss.hopeless, method=self.pool.method))
        else:
            # It may not have joined the run, so its replacement is requested here.
            self.open(self._wanted)

    def _fall_back(self, reason: bytes | str) -> bool:
        moved = super()._fall_back(reason)
        if moved:
            self._report(Unable(self.gave_up, fatal=False, method="interpreters"))
        return moved
