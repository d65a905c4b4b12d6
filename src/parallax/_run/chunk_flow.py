"""Chunks to workers and results back: executes the scheduler's commands on the crews of one run.

Purpose: keeps scheduler, items, crews and results in step. The controller decides on the route.
Guarantees: every item that arrived is with a crew, waits, or has its result. Not thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from parallax._backends import contract
from parallax._core.chunks import Chunk, ChunkResult, Failure, Route
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import Any
from parallax._core.options import Options
from parallax._guard.ends import own_end
from parallax._run.crew_table import CALLER, CrewTable, WorkerLosses
from parallax._run.homecoming import Homecoming
from parallax._run.listener import NO_LISTENER, Listener
from parallax._scheduling import events
from parallax._scheduling.in_flight import ItemsInFlight
from parallax._scheduling.input import Input
from parallax._scheduling.reorder_buffer import ReorderBuffer
from parallax._scheduling.scheduler import Scheduler

clock = time.perf_counter

#: Seconds of work per chunk. Shorter pays more dispatches, longer makes a rougher end.
CHUNK_TARGET_S: dict[Route, float] = {
    "loop": 0.005,
    "threads": 0.01,
    "executor": 0.01,
    "processes": 0.02,
    "interpreters": 0.02,
}

#: Chunks that a worker holds at a time; a second hides the way there and back, and can be recalled.
CHUNKS_HELD: dict[Route, int] = dict.fromkeys(CHUNK_TARGET_S, 1) | {"processes": 2}


class ChunkFlow:
    """The workers of one run and the items that they hold.

    The listener is informed of results and failures. Of a ``stream`` the window is bounded.
    """

    def __init__(
        self, source: Input, options: Options, listener: Listener, *, stream: bool
    ) -> None:
        self.scheduler: Scheduler | None = None
        self.route: Route = "loop"
        #: the number of workers that the route should have.
        self.wanted = 1
        self.table = CrewTable()
        self.in_flight = ItemsInFlight()
        self.losses = WorkerLosses(options.item_timeout)
        #: results that may be read, in order.
        self.ready: list[Any] = []
        #: a chunk that waits for the caller's thread.
        self.caller_task: tuple[Chunk, Sequence[Any]] | None = None
        #: the exception that ends the run at once.
        self.fatal: BaseException | None = None
        self._source = source
        self._options = options
        self.listener = listener
        self._stream = stream
        self._keeps_caller = False
        #: brings the run home, when workers may not go on.
        self.home = Homecoming()
        self._values = ReorderBuffer()

    def begin(
        self,
        first: int,
        mean: float | None,
        guess: float | None,
        *,
        caller: bool,
        keeps_caller: bool,
        inside: Sequence[Any] = (),
    ) -> None:
        """Make the scheduler of items from ``first`` on; the caller's thread is at ``inside``."""
        left, options = self._source.left, self._options
        self._keeps_caller = keeps_caller
        self.in_flight = ItemsInFlight(first)
        self.scheduler = Scheduler(
            total=None if left is None else first + len(inside) + left,
            chunksize=options.chunksize,
            window=options.buffersize if self._stream else None,
            ordered=options.ordered,
            retries=options.retries,
            item_timeout=options.item_timeout,
            stop_on_error=options.on_error == "raise",
            first=first,
            mean=mean,
            guess=guess,
        )
        if inside:
            self.in_flight.add(list(inside))
            self.handle(events.Arrived(len(inside)))
            self.handle(events.Ready(CALLER))
            self.caller_task = None  # these items have begun
        elif caller:
            self.make_ready(CALLER, "loop")
        if self._source.ended:
            self.handle(events.Ended())

    def direct(
        self,
        route: Route,
        workers: int,
        make_crew: Callable[[Route], contract.Crew | contract.Unable],
        attach: Callable[[Any], None],
    ) -> contract.Unable | None:
        """Take a route from now on; workers of the old one go on until the new ones are up.

        Returns why the route cannot be taken, or None. ``make_crew`` makes the crew of a route that
        was not taken before; ``attach`` has the reader wait on the crew's selector, too.
        """
        self.route, self.wanted, begun = route, workers, clock()
        crew = self.table.crews.get(route)
        if crew is None and route != "loop":
            made = make_crew(route)
            if isinstance(made, contract.Unable):
                return made
            crew = made
        if self.scheduler is not None:
            self.scheduler.expect_workers(workers)
        if crew is None:
            if "processes" in self.table.crews and self.home.waits(self):
                return None
            self.table.join(CALLER)
        elif route not in self.table.crews:
            try:
                if (selector := crew.selector()) is not None:
                    attach(selector)
            except OSError as error:
                crew.close(0.0)
                return contract.Unable(str(error))
            self.table.crews[route] = crew
        for worker in self.table.up(route):
            self.make_ready(worker, route)
        if crew is not None:
            crew.open(workers)
            self.table.ordered(begun)
        if crew is None or len(self.table.up(route)) >= workers:
            self._retire_others()
        return None

    def dismiss(self, route: Route) -> None:
        """End the workers of a route, which are idle; they are not waited for."""
        for worker in [*self.table.up(route)]:
            self._on(contract.Left(worker, worn=False))
        self.table.crews.pop(route).close(0.0)

    def make_ready(self, worker: int, route: Route, quota: int | None = None) -> None:
        crew = self.table.crews.get(route)
        target = getattr(crew, "chunk_s", CHUNK_TARGET_S[route])
        recalls = crew is not None and crew.recalls
        self.handle(events.Ready(worker, CHUNKS_HELD[route], target, quota, recalls))

    def _retire_others(self) -> None:
        for name in self.table.others(self.route):
            self.handle(events.Retire(name))
        if self.route != "loop" and not self._keeps_caller:
            self.handle(events.Retire(CALLER))

    # -- what is known -------------------------------------------------------------------------

    def begun(self) -> bool:
        return self.scheduler is not None

    def failure(self) -> BaseException | None:
        """The error of the lowest item that failed for good, if the run stops at errors."""
        if self.scheduler is None or self.scheduler.failed is None:
            return None
        # A lower one may be that of an item which succeeded in a retry.
        return self._values.errors[self.scheduler.failed]

    def unbegun(self) -> int | None:
        """Items that no worker holds and that are not finished; None if not known."""
        if self.scheduler is None:
            return self._source.left
        left = self.scheduler.left()
        return None if left is None else max(0, left - self.scheduler.in_flight)

    def under_way(self, now: float) -> float:
        """Seconds that workers have spent so far on chunks that have not come back."""
        flights = self.scheduler.flights() if self.scheduler is not None else []
        return sum(max(0.0, now - since) for *_, since in flights)

    def busy(self, route: Route) -> bool:
        return any(self.held_by(worker) for worker in self.table.up(route))

    def held_by(self, worker: int) -> Sequence[Chunk]:
        return () if self.scheduler is None else self.scheduler.held_by(worker)

    def delay(self, route: Route) -> float:
        """Seconds that a route's workers have spent without a core, as far as that is known."""
        crew = self.table.crews.get(route)
        return crew.delay() if crew is not None else 0.0

    # -- events --------------------------------------------------------------------------------

    def on(self, event: contract.CrewEvent) -> None:
        self._on(event)
        self.home.settle(self)

    def _on(self, event: contract.CrewEvent) -> None:
        if isinstance(event, contract.Done):
            self._on_done(event)
        elif isinstance(event, contract.Joined):
            self._on_joined(event)
        elif isinstance(event, contract.Refused):
            self._on_refused(event)
        elif isinstance(event, contract.Died):
            indices = self._forget(event.worker, began=event.began)
            self.losses.died(event, indices)
            self.handle(events.Lost(event.worker, event.began))
            self.listener.on_death(event, indices)
            self._reopen()
        elif isinstance(event, contract.Yielded):
            self.handle(events.Cut(event.worker, event.chunk, event.keep))
            self._reopen()  # others may have left while nothing was unsent
        elif isinstance(event, contract.Left):
            self._forget(event.worker, began=False)
            self.losses.recycled += event.worn
            self.handle(events.Lost(event.worker, began=False))
            self._reopen()
        elif not self.listener.on_trouble(event) and not self.table.any_up():
            raise errors.WorkerStartError(event.method or "auto", event.reason)

    def _on_joined(self, event: contract.Joined) -> None:
        route = self.table.join(event.worker)
        if route == self.route:
            if route == "processes" and not self._keeps_caller:
                # What items change here, if they do, is changed before what comes back from there.
                self.handle(events.Retire(CALLER))
            self.make_ready(event.worker, route, event.quota)
            size = self.table.crews[route].size
            if len(self.table.up(route)) >= min(self.wanted, max(1, size)):
                self._retire_others()

    def _chunk(self, event: contract.Done | contract.Refused) -> Chunk | None:
        """The chunk that an event is about; None if its worker no longer has it."""
        for chunk in self.held_by(event.worker):
            if chunk.id == event.chunk:
                return chunk
        return None

    def _on_done(self, event: contract.Done) -> None:
        worker, chunk, scheduler = event.worker, self._chunk(event), self.scheduler
        if chunk is None or scheduler is None:
            return
        self.listener.on_done(event, self.table.route_of(worker), chunk.start)
        result = event.result
        again: tuple[int, ...] = ()
        stuck = [f for f in result.failures if isinstance(f.error, errors.SerializationError)]
        if stuck and self.listener.on_trouble(contract.refusal(event, stuck[0])):
            # The items ran, and their results cannot be sent: they are run again where that is
            # not needed.
            again = tuple(f.offset for f in stuck)
            result = result._replace(failures=tuple(f for f in result.failures if f not in stuck))
        ran = len(result.values)
        dropped = bool(result.changed) and self.listener.on_change(chunk.start, result)
        if self.table.route_of(worker) == "processes" and (
            end := own_end(set(map(type, result.values)))
        ):
            # The worker's own objects have ended already, and done what they do then.
            reason = f"{end} has run in the worker"
            refused = contract.Refused(worker, chunk.id, "result", "result", reason)
            dropped = self.listener.on_trouble(refused) or dropped
        if dropped:
            again = tuple(range(ran))
            result = result._replace(failures=())
        offsets = tuple(f.offset for f in result.failures)
        if not offsets and not again:
            self.in_flight.finish(chunk.start, ran)
        else:
            for offset in range(ran):
                index = chunk.start + offset
                if offset in again or (offset in offsets and scheduler.may_retry(index)):
                    self.in_flight.may_have_run(index)
                else:
                    self.in_flight.finish(index)
        fatal = None if dropped else self._values.put(chunk.start, result, split=bool(again))
        if fatal is not None:
            self.fail(fatal)
            return
        self.handle(events.Finished(worker, chunk.id, ran, offsets, result.wall, again))
        if offsets or again or ran < chunk.size:
            self._reopen()

    def _on_refused(self, event: contract.Refused) -> None:
        worker, chunk, scheduler = event.worker, self._chunk(event), self.scheduler
        if chunk is None or scheduler is None:
            return
        if event.what == "result":
            self.in_flight.may_have_run(chunk.start, chunk.size)
        error = errors.SerializationError(event.what, None, event.path, event.reason)
        errors.set_cause(error, event.cause)
        if self.listener.on_trouble(event):
            self.handle(events.Returned(worker, chunk.id))
        elif event.what == "callable":
            self.fail(error)
        elif chunk.size > 1:
            self.handle(events.Returned(worker, chunk.id, split=True))
        else:
            if not scheduler.may_retry(chunk.start):
                self.in_flight.finish(chunk.start)
            self._values.put(chunk.start, ChunkResult([None], (Failure(0, error),), 0.0, 0.0))
            self.handle(events.Finished(worker, chunk.id, 1, (0,)))

    def _forget(self, worker: int, *, began: bool) -> range:
        """A worker is gone; return the indices of the items that it may have run."""
        self.table.leave(worker)
        held = self.held_by(worker)
        if not held or not began:
            return range(0)
        return self.in_flight.may_have_run(held[0].start, held[0].size)

    def _reopen(self) -> None:
        """Have as many workers as there are items for: some may have left, or died."""
        scheduler, crew = self.scheduler, self.table.crews.get(self.route)
        if crew is None or scheduler is None or scheduler.finished:
            return
        few = crew.size + scheduler.unsent if self._source.ended else self.wanted
        crew.open(min(self.wanted, few))

    def arrive(self, items: Sequence[Any]) -> None:
        if items:
            self.in_flight.add(items)
            self.handle(events.Arrived(len(items)))
        if self._source.ended:
            self.handle(events.Ended())

    def fail(self, error: BaseException) -> None:
        """The run ends with an error, unless another one came first."""
        self.fatal = self.fatal or error

    # -- commands ------------------------------------------------------------------------------

    def handle(self, event: events.Event) -> None:
        """Have the scheduler handle an event, and execute its commands."""
        if self.scheduler is None:
            return
        for command in self.scheduler.handle(event, clock()):
            if isinstance(command, events.Send):
                self._send(command.worker, command.chunk)
            elif isinstance(command, events.Emit):
                self.ready.extend(self._values.take(command.start, command.size))
            elif isinstance(command, events.Blame):
                self.in_flight.finish(command.item)
                self._values.put_one(command.item, self.losses.error(command))
            elif isinstance(command, events.Recall):
                self._crew_of(command.worker).recall(command.worker)
            elif isinstance(command, events.Kill):
                self.losses.overran.add(command.worker)
                self._crew_of(command.worker).kill(command.worker)

    def _crew_of(self, worker: int) -> contract.Crew:
        return self.table.crews[self.table.route_of(worker)]

    def _send(self, worker: int, chunk: Chunk) -> None:
        items = self.in_flight.hand_out(chunk)
        if worker == CALLER:
            self.caller_task = (chunk, items)
        else:
            self._crew_of(worker).send(worker, chunk, items)

    def take(self) -> list[Any]:
        """The results that may be read, which are then consumed."""
        ready, self.ready = self.ready, []
        if ready:
            self.handle(events.Consumed(len(ready)))
        return ready

    def take_task(self) -> tuple[Chunk, Sequence[Any]] | None:
        """The chunk that waits for the caller's thread, which begins it now."""
        task, self.caller_task = self.caller_task, None
        return task

    def close(self) -> list[contract.Crew]:
        """No event counts any more; return the crews, to be closed."""
        crews = list(self.table.crews.values())
        self.table.crews.clear()
        # Breaks cycles of references, which would keep what the callable captured alive.
        self.listener, self.fatal, self._values = NO_LISTENER, None, ReorderBuffer()
        return crews
