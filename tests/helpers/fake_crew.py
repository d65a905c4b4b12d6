"""A crew in memory that keeps the contract of ``_backends/contract.py``: no threads, no processes.

A test says when a worker joins, runs its chunk, dies, leaves or gives items back.
"""

from __future__ import annotations

from parallax._backends.contract import Died, Done, Joined, Left, Refused, WorkerEnd, Yielded
from parallax._core.chunks import ChunkResult, Failure
from parallax._reporting.stall_policy import WorkerSnapshot


class FakeCrew:
    """Workers that do what a test tells them.

    Args:
        report: takes the events.
        new_id: gives a number to each worker of a route.
        fn: the callable.
        route: what the workers pretend to be.
        stop: a worker stops at the first failure of a chunk.
    """

    recalls = True

    def __init__(self, report, new_id, fn, *, route="processes", stop=True):
        self.report, self.new_id, self.fn, self.route, self.stop = report, new_id, fn, route, stop
        self.names: list[int] = []
        self.starting: list[int] = []
        self.held: dict[int, list] = {}
        self.recalled: list[int] = []
        self.killed: list[int] = []
        self.ran: list = []
        self.closed: float | None = None
        self.left: dict[int, int] = {}  # what is left of a worker's quota

    # -- the contract ----------------------------------------------------------------------------

    @property
    def size(self):
        return len(self.starting) + len(self.held)

    def selector(self):
        return None

    def delay(self):
        return 0.0

    def open(self, count):
        assert self.closed is None
        while self.size < count:
            self.names.append(self.new_id(self.route))
            self.starting.append(self.names[-1])

    def recall(self, worker):
        assert worker in self.held
        self.recalled.append(worker)

    def send(self, worker, chunk, items):
        assert self.closed is None
        assert len(items) == chunk.size
        self.held[worker].append((chunk, list(items)))
        if worker in self.left:
            self.left[worker] -= chunk.size

    def kill(self, worker):
        self.killed.append(worker)
        return True

    def name(self, worker):
        return f"fake worker {worker}"

    def where(self, worker):
        return WorkerSnapshot(f"fake worker {worker}")

    def poll(self, timeout):
        """Nothing to wait for."""

    def close(self, grace):
        self.closed = grace

    # -- what a test makes happen ----------------------------------------------------------------

    def busy(self):
        return [worker for worker, chunks in self.held.items() if chunks]

    def join(self, quota=None):
        worker = self.starting.pop(0)
        self.held[worker] = []
        if quota is not None:
            self.left[worker] = quota
        self.report(Joined(worker, quota))
        return worker

    def finish(self, worker, wall=0.001):
        """Run the oldest chunk; a worker that has used up its quota then leaves."""
        chunk, items = self.held[worker].pop(0)
        values, failures = [], []
        for offset, item in enumerate(items):
            self.ran.append(item)
            try:
                values.append(self.fn(item))
            except BaseException as error:
                values.append(None)
                failures.append(Failure(offset, error))
                if self.stop:
                    break
        result = ChunkResult(values, tuple(failures), wall * len(values), wall * len(values))
        self.report(Done(worker, chunk.id, result))
        self.leave_spent(worker)

    def die(self, worker, *, began=True):
        chunks = self.held.pop(worker)
        if began and chunks:
            self.ran.append(chunks[0][1][0])
        self.report(Died(worker, WorkerEnd(pid=1000 + worker, exitcode=-9), began))

    def leave(self, worker, *, worn=True):
        del self.held[worker]
        self.report(Left(worker, worn))

    def give_back(self, worker, keep=0):
        """Give back the newest chunk from an offset on, and keep at least the item that runs."""
        place = len(self.held[worker]) - 1
        chunk, items = self.held[worker][place]
        keep = max(keep, 1 if place == 0 else 0)
        if keep >= len(items):
            return
        self.held[worker][place] = (chunk._replace(size=keep), items[:keep])
        if not keep:
            del self.held[worker][place]
        self.report(Yielded(worker, chunk.id, keep))

    def refuse(self, worker, what="item", path="item.lock", reason="why"):
        """The newest chunk cannot be encoded."""
        chunk, _ = self.held[worker].pop()
        self.report(Refused(worker, chunk.id, what, path, reason))
        self.leave_spent(worker)

    def leave_spent(self, worker):
        """A worker with nothing left of its quota leaves; items that were refused count."""
        if not self.held.get(worker, True) and self.left.get(worker, 1) <= 0:
            self.leave(worker)


class EagerCrew(FakeCrew):
    """A crew whose workers join at once, and run a chunk each time that somebody waits."""

    def open(self, count):
        super().open(count)
        while self.starting:
            self.join()

    def poll(self, timeout):
        if busy := self.busy():
            self.finish(busy[0])
