"""The ``processes`` backend: workers of the warm pool, lent to one run.

Guarantees: nothing here blocks but ``poll`` and ``close``; a dead worker is reported with its exit
status and only its chunks are lost; workers that owe nothing go back to the pool warm.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import selectors
import time
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

from parallax._backends.contract import Died, Done, Joined, Left, Refused, Report, Unable, Yielded
from parallax._backends.processes.common import protocol
from parallax._backends.processes.parent.exit_diagnosis import describe_end, unreadable
from parallax._backends.processes.parent.output_receiver import Hearing
from parallax._backends.processes.parent.warm_pool import HASHED, Pool, call_key
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._core.chunks import Chunk, ChunkResult, Route
from parallax._core.deferred_signals import Shield
from parallax._core.errors import WorkerStartError, exit_reason
from parallax._reporting.stall_policy import Where
from parallax._shm.arena import arena
from parallax._shm.dedup import Repeats
from parallax._shm.registry import find
from parallax._shm.sender import COPY, SHARED
from parallax._transport import codec
from parallax._transport.framing import Frame, WireError
from parallax._transport.pickle_diagnosis import culprit
from parallax._transport.shm_channel import Parcel
from parallax._transport.wakeup import LONGEST

__all__ = ["ProcessCrew"]

_serials = itertools.count(1)

#: Seconds to wait for the exit status of a worker whose socket closed. It is reaped within
#: milliseconds; a process that closed its descriptors and lives on is killed after this.
EXIT = 0.5

#: Seconds for workers that were let go to end before the run does. Less leaves them unreaped until
#: the next run where there is no zygote.
SETTLE = 0.1

#: Seconds from which an idle time may as well be counted from a worker's last task as from the end
#: of the run: it is rare that a run keeps a worker waiting for so long, and then it gets a new one.
LONG = 5.0

#: Workers in a row that end before they begin an item until we give up. One may be killed by
#: somebody else; more only repeat what keeps them from starting.
STILLBORN = 3


class ProcessCrew:
    """Worker processes at work for one run."""

    route: Route = "processes"
    recalls = protocol.RECALL is not None

    def __init__(
        self,
        report: Report,
        lock: RLock,
        call: codec.Encoded,
        *,
        pool: Pool,
        limit: int,
        idle_timeout: float,
        new_id: Callable[[], int],
        surround: Callable[[int], bytes],
        wait: bool,
        hearing: Hearing,
        items: int | None = None,
        memory: int | None = None,
    ) -> None:
        """Prepare; no process is started yet.

        Args:
            report: takes the events.
            lock: held while events are reported and frames are made.
            call: the encoded callable.
            pool: where workers come from.
            limit: how many workers may exist over all runs of this process.
            idle_timeout: seconds that workers stay after this run.
            new_id: numbers workers within the run.
            surround: captures the surroundings of the items of so many workers.
            wait: wait for another run's workers if there are none to be had.
            hearing: takes what workers say besides; whoever polls has it passed on.
            items: how many a worker may run in its life.
            memory: bytes that a worker may hold.
        """
        self._report = report
        self._lock = lock
        self._call = call
        self._key = call_key(call)
        self._surround = surround
        self._context, self._most = b"", 0
        self._pool = pool
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._new_id = new_id
        self._wait = wait
        self._hearing = hearing
        self._items = items
        #: seconds, where workers are told beforehand: that saves a message per worker and run.
        self._told = idle_timeout if idle_timeout >= LONG else None
        limits = {"items": items, "memory": memory, "idle": self._told}
        self._limits = pickle.dumps({k: v for k, v in limits.items() if v is not None}, 5)
        #: items that a worker may still be sent, where that is limited.
        self._quota: dict[int, int] = {}
        self._joined: set[int] = set()
        self._repeats: Repeats | None = None
        #: what ``_thrift`` has told.
        self._told_captured = False
        self._told_repeats = (0, 0)
        self._made: selectors.BaseSelector | None = None
        self._workers: dict[int, WorkerClient] = {}
        self._moved: dict[tuple[int, int], tuple[int, float]] = {}
        #: what tells this run's chunks from those of all others that its workers ever had.
        self._serial = next(_serials) << 32
        self._stillborn = 0
        self._wanted = 0
        self._delay = 0.0
        #: report workers before they are up: chunks wait in their sockets.
        self.eager = False

    @property
    def size(self) -> int:
        """Workers lent to this run now."""
        return len(self._workers)

    def owns(self, worker: int) -> bool:
        """Whether that worker is lent to this run."""
        return worker in self._workers

    @property
    def _selector(self) -> selectors.BaseSelector:
        if self._made is None:
            self._made = selectors.DefaultSelector()
        return self._made

    def selector(self) -> selectors.BaseSelector:
        """The selector of all workers' sockets, for the run to add its own to.

        Raises:
            OSError: there is no descriptor left for it.
        """
        return self._selector

    def delay(self) -> float:
        """Seconds that the workers could run and had no core, in chunks that came back."""
        return self._delay

    def open(self, count: int) -> None:
        """Lease workers until there are ``count``."""
        self._wanted = count
        if count > len(self._workers):
            with Shield():  # else a worker may be lent to nobody
                self._open(count)

    def _open(self, count: int) -> None:
        missing = count - len(self._workers)
        try:
            wait = self._wait and not self._workers
            leased = self._pool.lease(missing, self._limit, wait=wait, items=self._items)
        except WorkerStartError as error:
            if not self._workers:
                self._report(Unable(error.detail, method=error.method))
            return
        if count > self._most:  # not once more for one that is replaced
            self._most, self._context = count, self._surround(count)
        with self._lock:
            for worker in leased:
                name = self._new_id()
                self._workers[name] = worker
                self._selector.register(worker.channel, selectors.EVENT_READ, name)
                worker.use(self._key, self._call, self._context, self._limits)
                if self._items is not None:
                    self._quota[name] = self._items - worker.ran
                if worker.ready or self.eager:
                    self._join(name)
                if name in self._workers:
                    self._watch(name)  # what no task took along goes when the socket takes it
        if not leased and not self._workers:
            self._report(Unable("all workers are lent to other calls", fatal=False))

    def _join(self, name: int) -> None:
        if name not in self._joined:
            self._joined.add(name)
            self._report(Joined(name, self._quota.get(name)))

    def send(self, worker: int, chunk: Chunk, items: Sequence[Any]) -> None:
        """Encode items and hand them to a worker."""
        begin = time.perf_counter()
        if worker in self._quota:
            self._quota[worker] -= chunk.size
        try:
            encoded = codec.encode(items)
        except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
            if chunk.size == 1:
                path, reason = culprit(items[0], "item")
            else:
                path, reason = "item", ""
            self._report(Refused(worker, chunk.id, "item", path, reason))
            self._retire_spent(worker)
            return
        lent = self._workers.get(worker)
        if lent is None:
            return
        lent.flight += 1
        self._moved[worker, chunk.id] = (0, 0.0)
        payload, buffers = encoded.payload, encoded.buffers
        repeats = self._find_repeats(buffers)
        before = repeats.spared if repeats is not None else 0
        try:
            tag = self._serial + chunk.id
            lent.channel.send(protocol.TASK, tag, payload, buffers, repeats=repeats)
        except BaseException as error:
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                return  # poll sees its end-of-file and reports the chunk lost
            lent.torn = True
            raise
        moved = len(payload) + sum(b.nbytes for b in buffers if not find(b))
        if repeats is not None:
            moved -= repeats.spared - before
        self._moved[worker, chunk.id] = (moved, time.perf_counter() - begin)
        self._watch(worker)

    def where(self, worker: int) -> Where:
        """The worker's process id, and where its threads are."""
        lent = self._workers.get(worker)
        return lent.where() if lent is not None else Where("a worker process that has ended")

    def recall(self, worker: int) -> None:
        """Ask a worker for what it has not begun; it answers while an item of its chunk runs."""
        lent = self._workers.get(worker)
        if lent is not None and protocol.RECALL is not None:
            lent.started.signal(protocol.RECALL)

    def kill(self, worker: int) -> bool:
        """End a worker; its death is reported by ``poll``."""
        lent = self._workers.get(worker)
        if lent is not None:
            lent.started.kill()
        return True

    def poll(self, timeout: float | None) -> None:
        """Wait for the workers' sockets and report what they said."""
        ready = self._selector.select(self._until_late(timeout))
        with self._lock:
            for key, events in ready:
                if not isinstance(key.data, int):
                    continue
                worker = self._workers.get(key.data)
                if worker is None:
                    continue
                try:
                    if events & selectors.EVENT_WRITE:
                        try:
                            worker.channel.flush()
                            self._watch(key.data)
                        except TimeoutError:
                            raise
                        except OSError:
                            pass  # it is gone; its last words may still be read
                    if events & selectors.EVENT_READ:
                        for frame in worker.channel.receive():
                            if key.data in self._workers:
                                self._heard(key.data, worker, frame)
                        if worker.channel.broken is not None and key.data in self._workers:
                            raise worker.channel.broken
                except TimeoutError:
                    # By the handler of a signal: sockets that do not block raise none.
                    worker.torn = True
                    raise
                except (EOFError, OSError):
                    self._lost(key.data, worker)
                except (WireError, MemoryError) as error:  # a wrong length asks for too much
                    worker.started.kill()
                    self._lost(key.data, worker, words=unreadable(error))
                except BaseException:
                    worker.torn = True
                    raise
            self._give_up_late()

    def close(self, grace: float) -> None:
        """Give idle workers back, and end those that are still busy after ``grace`` seconds."""
        deadline = time.monotonic() + grace
        self._report = lambda _: None
        self._wanted = 0
        while any(w.flight for w in self._workers.values()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.poll(left)
            self._hearing.pass_on()
        if self._call.nbytes > HASHED:
            self._drop_call()
        with self._lock:
            for worker in self._workers.values():
                # At the interpreter's exit the pool may have closed the channel already.
                with contextlib.suppress(ValueError, KeyError):
                    self._selector.unregister(worker.channel)
                if worker.flight or worker.torn or worker.channel.unsent:
                    self._pool.discard(worker, kill=True)
                else:
                    self._pool.give_back(worker, None if self._told else self._idle_timeout)
            self._workers.clear()
            if self._repeats is not None:
                self._repeats.clear()
            # A run is part of a cycle of references: memory must not wait for its collection.
            (self._call.slabs or {}).clear()
            if self._made is not None:
                self._made.close()
        self._pool.settle(SETTLE)

    # -- parts ---------------------------------------------------------------------------------

    def _drop_call(self) -> None:
        """Have the workers forget the callable: nobody will ask for it by this key again."""
        idle = [w for w in self._workers.values() if not w.flight and not w.channel.unsent]
        for worker in idle:
            with contextlib.suppress(OSError):  # it is leaving
                worker.forget(self._key)
                worker.channel.flush()
        slabs = list((self._call.slabs or {}).values())
        deadline = time.monotonic() + SETTLE
        while any(w.channel.lends(slab) for w in idle for slab in slabs):
            # What it captured would stay in memory until the next call hears of it.
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.poll(left)

    def _find_repeats(self, buffers: list[memoryview]) -> Repeats | None:
        """What knows the buffers that this run has sent, from the first one on."""
        if self._repeats is None and any(b.nbytes >= SHARED for b in buffers):
            lender = arena()
            if lender is not None:
                self._repeats = Repeats(lender)
        return self._repeats

    def _thrift(self, chunk: int) -> tuple[int, int]:
        """Bytes that were sent once since this was asked last, and that were not sent again.

        Args:
            chunk: how many items came back, each of which used what the callable captured.
        """
        slabs = (self._call.slabs or {}).values()
        captured = sum(slab.nbytes for slab in slabs if slab.mode == COPY)
        once, spared = 0, captured * chunk
        if captured and not self._told_captured:
            self._told_captured = True
            once, spared = captured, spared - captured
        if self._repeats is not None:
            more = self._repeats.once, self._repeats.spared
            once += more[0] - self._told_repeats[0]
            spared += more[1] - self._told_repeats[1]
            self._told_repeats = more
        return once, spared

    def _watch(self, name: int) -> None:
        """Ask for writability exactly while something waits to be written."""
        channel = self._workers[name].channel
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.unsent else 0)
        if self._selector.get_key(channel).events != events:
            self._selector.modify(channel, events, name)

    def _heard(self, name: int, worker: WorkerClient, frame: Frame | Parcel) -> None:
        chunk = frame.tag - self._serial
        if frame.kind in {protocol.RESULT, protocol.REFUSED}:
            if (name, chunk) not in self._moved:
                return  # nobody waits for it any more
            sent, seconds = self._moved.pop((name, chunk))
            worker.flight -= 1
        if frame.kind == protocol.RESULT:
            begin = time.perf_counter()
            received = frame.nbytes
            try:
                result = ChunkResult(*codec.decode(*frame.open()))
            except KeyboardInterrupt:  # rather the user's than a result's
                raise
            except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
                words = f"{type(error).__name__}: {error}"
                self._report(Refused(name, chunk, "result", "result", words))
                return
            seconds += time.perf_counter() - begin
            self._delay += result.delay
            worker.ran += len(result.values)
            once, spared = self._thrift(len(result.values))
            self._report(Done(name, chunk, result, sent, received, seconds, once, spared))
            self._retire_spent(name)
        elif frame.kind == protocol.BEGUN:
            worker.begun = True
            self._stillborn = 0
        elif frame.kind == protocol.HELLO:
            self._pool.greet(worker, frame.tag)
            self._join(name)
        elif frame.kind == protocol.YIELDED:
            for tag, keep in codec.decode(*frame.open()):
                chunk = tag - self._serial
                if (name, chunk) not in self._moved:
                    continue
                if not keep:
                    worker.flight -= 1
                    del self._moved[name, chunk]
                self._report(Yielded(name, chunk, keep))
        elif frame.kind == protocol.REFUSED:
            what, path, reason = codec.decode(*frame.open())
            self._report(Refused(name, chunk, what, path or what, reason))
            self._retire_spent(name)
        elif frame.kind == protocol.SAID:
            self._hearing.take(worker.ear, frame)
        elif frame.kind == protocol.BYE:
            self._retire(name, worn=frame.tag == protocol.WORN)

    def _retire_spent(self, name: int) -> None:
        """Let go of a worker that may not be sent anything more and owes nothing.

        It says BYE by itself, too; but its replacement need not wait for that.
        """
        worker = self._workers.get(name)
        if worker is not None and not worker.flight and self._quota.get(name, 1) <= 0:
            self._retire(name, worn=True)

    def _retire(self, name: int, *, worn: bool) -> None:
        worker = self._workers.pop(name)
        self._selector.unregister(worker.channel)
        self._pool.retire(worker)
        # What follows one that was at work needs no proof that it comes up.
        self.eager = self.eager or worn
        self._report(Left(name, worn))

    def _until_late(self, timeout: float | None) -> float | None:
        """How long to wait, at most for so long and until a starting worker must be up."""
        if timeout is not None:
            timeout = min(timeout, LONGEST)
        due = [self._pool.deadline(w) for w in list(self._workers.values()) if not w.ready]
        if not due:
            return timeout
        left = max(0.0, min(due) - time.monotonic())
        return left if timeout is None else min(left, timeout)

    def _give_up_late(self) -> None:
        """Take workers for lost that should have been up long ago."""
        for name, worker in list(self._workers.items()):
            if not worker.ready and time.monotonic() >= self._pool.deadline(worker):
                worker.started.kill()
                self._lost(name, worker, late=True)

    def _lost(
        self,
        name: int,
        worker: WorkerClient,
        *,
        began: bool = True,
        words: str = "",
        late: bool = False,
    ) -> None:
        self._selector.unregister(worker.channel)
        del self._workers[name]
        # The last frame was not read to its end.
        unread = worker.channel.unsent or worker.channel.reset
        exitcode = self._pool.discard(worker, kill=False, timeout=EXIT)
        if exitcode is None:
            worker.started.kill()
            worker.started.exitcode(EXIT)
        if not worker.begun:
            self._stillborn += 1
        if worker.ready:
            begun = worker.begun and worker.flight > unread
            # If no worker gets as far as to begin, it is due to the work after all.
            began = began and (begun or self._stillborn >= STILLBORN)
            self._report(Died(name, describe_end(worker, exitcode, words), began))
            if name not in self._joined:  # as below
                self.open(self._wanted)
            return
        words, again = self._pool.trouble(worker, late=late)
        self._report(Died(name, describe_end(worker, exitcode), began=False))
        if again:
            self._stillborn = 0
        if self._stillborn < STILLBORN:
            # Nobody else asks for another: the run never heard of this one.
            self.open(self._wanted)
        else:
            self._report(Unable(words or _ended(exitcode, late), method=self._pool.method))


def _ended(exitcode: int | None, late: bool) -> str:
    if late:
        return "the worker did not come up in time"
    return f"the worker ended while starting: {exit_reason(exitcode, at_work=False)}"
