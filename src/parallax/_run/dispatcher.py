"""Items to workers and outcomes back: the scheduler with its crews, without any judgement.

Purpose: executes the scheduler's commands on the crews of one run and feeds their events back to
it. Which route to take is told from outside (``direct``).
Guarantees: one lock guards everything; events may be posted from any thread and are handled in
order, by whichever thread has the lock; after ``close`` no worker of the run works on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from parallax._backends.contract import (
    Call,
    Crew,
    CrewEvent,
    Died,
    Done,
    Joined,
    Left,
    Refused,
    Unable,
    WorkerEnd,
    Yielded,
    refusal,
)
from parallax._core.chunks import Chunk, ChunkResult, Failure, Route
from parallax._core.errors import (
    ItemTimeoutError,
    SerializationError,
    WorkerDiedError,
    WorkerStartError,
)
from parallax._core.options import Options
from parallax._scheduling import events
from parallax._scheduling.in_flight import ItemsInFlight
from parallax._scheduling.input import Input
from parallax._scheduling.reorder_buffer import ReorderBuffer
from parallax._scheduling.scheduler import Scheduler
from parallax._transport.wakeup import Waker

__all__ = ["CALLER", "Dispatcher"]

#: The number of the caller's thread among the workers.
CALLER = 0

#: Seconds of work per chunk. Shorter pays more dispatches, longer makes a rougher end.
TARGET: dict[Route, float] = {"processes": 0.02, "threads": 0.01, "loop": 0.005}

#: Items that are taken all at once: an input so short gains nothing by being read in parts.
FEW = 64

#: Chunks that a worker holds at a time; the second hides the way there and back.
DEPTH: dict[Route, int] = {"processes": 2, "threads": 1, "loop": 1}


class Dispatcher:
    """The workers of one run and what they hold."""

    def __init__(
        self,
        source: Input,
        call: Call,
        options: Options,
        *,
        stream: bool,
        on_done: Callable[[Done, Route], None],
        on_trouble: Callable[[Refused | Unable | Died], bool],
        on_turn: Callable[[], None],
    ) -> None:
        """Prepare; ``begin`` starts.

        Args:
            source: the input.
            call: the callable.
            options: the checked options.
            stream: wake the reader for every result, not only at the end.
            on_done: told of each chunk that came back, and by which route.
            on_trouble: told what went wrong; True if it found another way for the items.
            on_turn: called under the lock after events were handled.
        """
        self.lock = threading.RLock()
        self.waker = Waker()
        self.scheduler: Scheduler | None = None
        self.route: Route = "loop"
        self.wanted = 1
        self.crews: dict[Route, Crew] = {}
        self.caller_task: tuple[Chunk, Sequence[Any]] | None = None
        #: the caller's thread goes on working beside the workers of a route.
        self.keeps_caller = False
        self.fatal: BaseException | None = None
        #: workers that died: the process id, and the indices of the items that it may have run.
        self.lost: list[tuple[int | None, range]] = []
        self.recycled = 0
        self._source = source
        self._call = call
        self._options = options
        self._stream = stream
        self._on_done = on_done
        self._on_trouble = on_trouble
        self._on_turn = on_turn
        self._inbox: deque[CrewEvent] = deque()
        self._turning = False
        self._reorder = ReorderBuffer()
        self.in_flight = ItemsInFlight()
        self._route_of: dict[int, Route] = {CALLER: "loop"}
        self._up: dict[Route, set[int]] = {"loop": set(), "threads": set(), "processes": set()}
        self._ends: dict[int, WorkerEnd] = {}
        self._overran: set[int] = set()
        self._names = CALLER
        self._ready: list[Any] = []
        #: the thread that reads the results.
        self.owner = threading.get_ident()

    # -- beginning and directing ---------------------------------------------------------------

    def begin(
        self,
        first: int,
        mean: float | None,
        guess: float | None,
        *,
        caller: bool,
        inside: Sequence[Any] | None = None,
    ) -> None:
        """Make the scheduler.

        Args:
            first: index of the first item that is not finished.
            mean: seconds per item as far as measured.
            guess: seconds per item in an earlier run.
            caller: the caller's thread works until the workers of a route are up.
            inside: the items that the caller's thread is working on now, if it is.
        """
        left = self._source.left
        done = first + (len(inside) if inside else 0)
        self.scheduler = Scheduler(
            total=None if left is None else done + left,
            chunksize=self._options.chunksize,
            window=self._options.buffersize if self._stream else None,
            ordered=self._options.ordered,
            retries=self._options.retries,
            item_timeout=self._options.item_timeout,
            stop_on_error=self._call.stop,
            first=first,
            mean=mean,
            guess=guess,
        )
        if inside:
            self.in_flight.add(list(inside))
            self._handle(events.Arrived(len(inside)))
            self._handle(events.Ready(CALLER))
            assert self.caller_task is not None
            self.caller_chunk = self.caller_task[0]
            self.caller_task = None
        elif caller:
            self._handle(events.Ready(CALLER, DEPTH["loop"], TARGET["loop"]))
        if self._source.ended:
            self._handle(events.Ended())

    caller_chunk: Chunk

    def begun(self) -> bool:
        """Whether ``begin`` was called."""
        return self.scheduler is not None

    def new_id(self) -> int:
        """A number for a new worker of this run."""
        self._names += 1
        return self._names

    def direct(self, route: Route, workers: int, crew: Crew | None) -> None:
        """Take a route from now on; workers of the old one go on until the new ones are up.

        Args:
            route: the route.
            workers: how many workers.
            crew: its crew, None for the loop.
        """
        with self.lock:
            self.route, self.wanted = route, workers
            if self.scheduler is not None:
                self.scheduler.expect_workers(workers)
            if route == "loop":
                self._up["loop"].add(CALLER)
                self._handle(events.Ready(CALLER, DEPTH["loop"], TARGET["loop"]))
                self._retire_others()
                self._turn()
                return
            assert crew is not None
            if route not in self.crews:
                try:
                    if (selector := crew.selector()) is not None:
                        self.waker.attach(selector)
                except OSError as error:
                    crew.close(0.0)
                    self.post(Unable(str(error)))
                    return
                self.crews[route] = crew
            for name in self._up[route]:
                self._handle(events.Ready(name, DEPTH[route], TARGET[route], recall=crew.recalls))
            crew.open(workers)
            if len(self._up[route]) >= workers:
                self._retire_others()
            self._turn()
            self.waker.wake()

    def up(self, route: Route) -> int:
        """Workers of a route that take chunks."""
        return len(self._up[route])

    def under_way(self, now: float) -> float:
        """Seconds that workers have spent so far on chunks that have not come back."""
        scheduler = self.scheduler
        flights = scheduler.flights() if scheduler is not None else []
        return sum(max(0.0, now - since) for *_, since in flights)

    def delay(self, route: Route) -> float:
        """Seconds that a route's workers have spent without a core, as far as that is known."""
        crew = self.crews.get(route)
        return crew.delay() if crew is not None else 0.0

    # -- events --------------------------------------------------------------------------------

    def post(self, event: CrewEvent) -> None:
        """Take an event from a crew; from any thread."""
        self._inbox.append(event)
        with self.lock:
            self._turn()

    def _turn(self) -> None:
        """Handle what is in the inbox. Re-entrant calls leave it to the outer one."""
        if self._turning:
            return
        self._turning = True
        try:
            while True:
                while self._inbox:
                    self._on(self._inbox.popleft())
                if not self._pull():
                    break
            self._on_turn()
        except BaseException as error:  # noqa: BLE001 - must reach the caller, not die in a thread
            self.fatal = self.fatal or error
        finally:
            self._turning = False
        if threading.get_ident() != self.owner and self._matters():
            self.waker.wake()

    def _matters(self) -> bool:
        s = self.scheduler
        return bool(
            self.fatal is not None
            or self.caller_task is not None
            or s is None
            or s.finished
            or s.failed is not None
            or (self._stream and self._ready)
            or (not self._source.anywhere and s.wanted())
        )

    def _on(self, event: CrewEvent) -> None:
        if isinstance(event, Done):
            self._on_result(event)
        elif isinstance(event, Joined):
            self._on_joined(event)
        elif isinstance(event, Refused):
            self._on_refused(event)
        elif isinstance(event, Died):
            self._on_died(event)
        elif isinstance(event, Yielded):
            if self.in_flight.cut(event.chunk, event.keep):  # first: they are sent at once
                self._handle(events.Cut(event.worker, event.chunk, event.keep))
                self._replace(event.worker)  # there may be more to do than when another left
        elif isinstance(event, Left):
            self._forget(event.worker, began=False)
            self.recycled += event.worn
            self._handle(events.Lost(event.worker, began=False))
            self._replace(event.worker)
        elif not self._on_trouble(event) and not any(self._up.values()):
            raise WorkerStartError(event.method or self.route, event.reason)

    def _on_joined(self, event: Joined) -> None:
        worker = event.worker
        route = next(r for r, c in self.crews.items() if c.owns(worker))
        self._route_of[worker] = route
        self._up[route].add(worker)
        if route == self.route:
            crew = self.crews[route]
            depth, target = DEPTH[route], TARGET[route]
            self._handle(events.Ready(worker, depth, target, event.quota, crew.recalls))
            if len(self._up[route]) >= min(self.wanted, max(1, crew.size)):
                self._retire_others()

    def _retire_others(self) -> None:
        for route, names in self._up.items():
            if route != self.route:
                for name in names:
                    self._handle(events.Retire(name))
        if self.route != "loop" and not self.keeps_caller:
            self._handle(events.Retire(CALLER))

    def _on_result(self, event: Done) -> None:
        held = self.in_flight.answered(event.chunk)
        if held is None or self.scheduler is None:
            return
        worker, chunk, items = held
        self._on_done(event, self._route_of[worker])
        result = event.result
        again: tuple[int, ...] = ()
        stuck = [f for f in result.failures if isinstance(f.error, SerializationError)]
        if stuck and self._on_trouble(refusal(event, stuck[0])):
            # The items ran, and what they gave cannot travel: they are run where it need not.
            again = tuple(f.offset for f in stuck)
            result = result._replace(failures=tuple(f for f in result.failures if f not in stuck))
        offsets = tuple(f.offset for f in result.failures)
        ran = len(result.values)
        if offsets or again or ran < chunk.size:
            for offset, item in enumerate(items):
                if offset in offsets or offset in again or offset >= ran:
                    self.in_flight.put_back(chunk.start + offset, item, ran=offset < ran)
        fatal = self._reorder.put(chunk.start, result, split=bool(again))
        if fatal is not None:
            self.fatal = self.fatal or fatal
            return
        self._handle(events.Finished(worker, chunk.id, ran, offsets, result.wall, again))

    def _on_refused(self, event: Refused) -> None:
        held = self.in_flight.answered(event.chunk)
        if held is None:
            return
        worker, chunk, _ = held
        self.in_flight.put_all_back(held, ran=event.what == "result")
        if self._on_trouble(event):
            self._handle(events.Returned(worker, chunk.id))
        elif event.what == "callable":
            self.fatal = SerializationError("callable", None, event.path, event.reason)
        elif chunk.size > 1:
            self._handle(events.Returned(worker, chunk.id, split=True))
        else:
            error = SerializationError(event.what, chunk.start, event.path, event.reason)
            self._reorder.put(chunk.start, ChunkResult([None], (Failure(0, error),), 0.0, 0.0))
            self._handle(events.Finished(worker, chunk.id, 1, (0,), 0.0))

    def _on_died(self, event: Died) -> None:
        self._ends[event.worker] = event.end
        indices = self._forget(event.worker, began=event.began)
        if event.began:
            self.lost.append((event.end.pid, indices))
        self._on_trouble(event)
        self._handle(events.Lost(event.worker, event.began))
        self._replace(event.worker)

    def _forget(self, worker: int, *, began: bool) -> range:
        """Take back what a worker that is gone was sent; which items it may have run."""
        for names in self._up.values():
            names.discard(worker)
        return self.in_flight.abandoned(worker, began=began)

    def _replace(self, worker: int) -> None:
        """Have another worker start instead of one, as far as there are items for it."""
        scheduler = self.scheduler
        crew = self.crews.get(self._route_of.get(worker, "loop"))
        if crew is None or scheduler is None or scheduler.finished:
            return
        few = crew.size + scheduler.unsent if self._source.ended else self.wanted
        crew.open(min(self.wanted, few))

    # -- commands ------------------------------------------------------------------------------

    def _handle(self, event: events.Event) -> None:
        scheduler = self.scheduler
        if scheduler is None:
            return
        for command in scheduler.handle(event, time.perf_counter()):
            if isinstance(command, events.Send):
                self._send(command.worker, command.chunk)
            elif isinstance(command, events.Emit):
                self._ready.extend(self._reorder.take(command.start, command.size))
            elif isinstance(command, events.Blame):
                self._blame(command)
            elif isinstance(command, events.Recall):
                self.crews[self._route_of[command.worker]].recall(command.worker)
            elif isinstance(command, events.Kill):
                self._overran.add(command.worker)
                self.crews[self._route_of[command.worker]].kill(command.worker)

    def _send(self, worker: int, chunk: Chunk) -> None:
        items = self.in_flight.hand_out(worker, chunk)
        if worker == CALLER:
            self.caller_task = (chunk, items)
        else:
            self.crews[self._route_of[worker]].send(worker, chunk, items)

    def _blame(self, blame: events.Blame) -> None:
        end = self._ends.get(blame.worker, WorkerEnd())
        error: Exception
        if blame.worker in self._overran:
            error = ItemTimeoutError(blame.item, self._options.item_timeout, end.pid)
        else:
            error = WorkerDiedError(blame.item, attempts=blame.attempts, **end._asdict())
        self.in_flight.drop(blame.item)
        self._reorder.put_one(blame.item, error)

    # -- input and output ----------------------------------------------------------------------

    def pull(self) -> bool:
        """Take wanted items in the reader's thread; False if none is wanted.

        The input's own code runs outside the lock: it may take its time.
        """
        with self.lock:
            if self._source.anywhere or self.scheduler is None or self.fatal is not None:
                return False
            count = self.scheduler.wanted()
        if not count:
            return False
        items = self._source.pull(count)
        with self.lock:
            self._arrive(items)
            self._turn()
        # At the end of the input the reader has to look again: that may have been all.
        return True

    def _pull(self) -> bool:
        """Take the items that workers want from an input that any thread may advance."""
        scheduler = self.scheduler
        if scheduler is None or self.fatal is not None or not self._source.anywhere:
            return False
        count = scheduler.wanted()
        if not count:
            return False
        left = self._source.left
        if left is not None and left <= FEW and not self._stream:
            count = left + 1  # so that the end of a short input is known at once
        return self._arrive(self._source.slice(count))

    def _arrive(self, items: Sequence[Any]) -> bool:
        if items:
            self.in_flight.add(items)
            self._handle(events.Arrived(len(items)))
        if self._source.ended:
            self._handle(events.Ended())
        return bool(items)

    def take(self) -> list[Any]:
        """Results that are ready for the reader."""
        with self.lock:
            ready, self._ready = self._ready, []
            if ready:
                self._handle(events.Consumed(len(ready)))
                self._turn()
        return ready

    def failure(self) -> BaseException | None:
        """The error of the lowest item that failed for good, if the run stops at errors."""
        if self.scheduler is None or self.scheduler.failed is None:
            return None
        return self._reorder.errors[min(self._reorder.errors)]

    def tick(self) -> None:
        """Look at what is late."""
        with self.lock:
            self._handle(events.Tick())
            self._turn()

    def poll(self) -> None:
        """Look after worker processes without waiting."""
        crew = self.crews.get("processes")
        if crew is not None:
            crew.poll(0.0)

    def wait(self, timeout: float | None) -> None:
        """Wait until something matters to the reader, or ``timeout`` seconds."""
        crew = self.crews.get("processes")
        if crew is not None:
            crew.poll(timeout)
        else:
            self.waker.wait(timeout)

    def close(self, grace: float) -> None:
        """End all crews; see ``Crew.close``."""
        with self.lock:
            crews = list(self.crews.values())
            self.crews.clear()
            # They hold this: what the callable captured must not wait for the garbage collector.
            self._on_done, self._on_turn = lambda _, __: None, lambda: None
            self._on_trouble = lambda _: False
        for crew in crews:
            crew.close(grace)
        self.waker.close()
