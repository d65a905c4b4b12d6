"""The lock, the inbox and the reader of one run: who handles which event in which thread.

Guarantees: events may be posted from any thread and are handled in order, by whichever thread has
the lock; the reader is woken if it has something to do; after ``close`` no worker of the run works
on. The work itself is in ``chunk_flow``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from parallax._backends.contract import Crew, CrewEvent, Done, Unable
from parallax._core.chunks import Chunk, ChunkResult, Route
from parallax._core.light_stdlib import Any
from parallax._core.options import Options
from parallax._run.chunk_flow import ChunkFlow
from parallax._run.crew_table import CALLER
from parallax._run.listener import Listener
from parallax._scheduling import events
from parallax._scheduling.input import Input
from parallax._transport.wakeup import Waker

#: Items that are taken all at once: an input so short gains nothing by being read in parts.
SHORT_INPUT_ITEMS = 64

#: Seconds of an item from which on items are taken one by one from an input with code of its own,
#: to see what that changes. Shorter ones are looked at less often than they are taken.
LONG_ITEM_S = 0.003


class Dispatcher:
    """Guards the ``flow`` of one run: others read it, and change it through these methods.

    The lock is held when the listener is called; of a ``stream`` the reader is woken each time.
    """

    def __init__(
        self, source: Input, options: Options, listener: Listener, *, stream: bool
    ) -> None:
        self.lock = threading.RLock()
        self.flow = ChunkFlow(source, options, listener, stream=stream)
        self.source = source
        self._stream = stream
        self._inbox: deque[CrewEvent] = deque()
        self._turning = self._closed = False
        self._reader = threading.get_ident()
        self._waker = Waker()

    # -- any thread ----------------------------------------------------------------------------

    def direct(
        self, route: Route, workers: int, make_crew: Callable[[Route], Crew | Unable]
    ) -> None:
        """Take a route from now on; see ``ChunkFlow.direct``."""
        with self.lock:
            unable = self.flow.direct(route, workers, make_crew, self._waker.attach)
            if unable is not None:
                self.post(unable)
                return
            self._turn()
            self._waker.wake()

    def post(self, event: CrewEvent) -> None:
        """Take an event from a crew; from any thread. None counts when the run is closed."""
        self._inbox.append(event)
        with self.lock:
            if self._closed:
                self._inbox.clear()
            else:
                self._turn()

    def fail(self, error: BaseException) -> None:
        """End the run with an error, which the reader gets at once; from any thread."""
        with self.lock:
            self.flow.fail(error)
        self._waker.wake()

    def post_caller(self, result: ChunkResult) -> None:
        """The caller's thread has run its chunk."""
        with self.lock:
            (chunk,) = self.flow.held_by(CALLER)
            self.post(Done(CALLER, chunk.id, result))

    def _turn(self) -> None:
        """Handle what is in the inbox. Re-entrant calls leave it to the outer one."""
        if self._turning:
            return
        self._turning = True
        try:
            while True:
                while self._inbox:
                    self.flow.on(self._inbox.popleft())
                if not self._pull():
                    break
            self.flow.listener.on_turn()
        except BaseException as error:  # noqa: BLE001 - must reach the caller, not die in a thread
            self.flow.fail(error)
        finally:
            self._turning = False
        if threading.get_ident() != self._reader and self._matters():
            self._waker.wake()

    def _matters(self) -> bool:
        """Whether the reader has something to do."""
        scheduler = self.flow.scheduler
        return bool(
            self.flow.fatal is not None
            or self.flow.caller_task is not None
            or scheduler is None
            or scheduler.finished
            or scheduler.failed is not None
            or (self._stream and self.flow.ready)
            or (not self.source.anywhere and scheduler.wanted())
        )

    def _pull(self) -> bool:
        """Take the items that workers want from an input that any thread may advance."""
        scheduler = self.flow.scheduler
        if scheduler is None or self.flow.fatal is not None or not self.source.anywhere:
            return False
        count = scheduler.wanted()
        if not count:
            return False
        left = self.source.left
        if left is not None and left <= SHORT_INPUT_ITEMS and not self._stream:
            count = left + 1  # so that the end of a short input is known at once
        items = self.source.slice(count)
        self.flow.arrive(items)
        return bool(items)

    # -- the reader's thread -------------------------------------------------------------------

    def read_here(self, thread: int = 0) -> None:
        """The calling thread, or another one, reads the results from now on."""
        self._reader = thread or threading.get_ident()

    def take(self) -> tuple[list[Any], bool]:
        """Results that are ready for the reader, and whether there will be no more."""
        self._waker.clear()
        with self.lock:
            if ready := self.flow.take():
                self._turn()
            scheduler = self.flow.scheduler
            over = scheduler is not None and scheduler.finished and not self.flow.ready
        return ready, over

    def take_task(self) -> tuple[Chunk, Sequence[Any]] | None:
        """The chunk that waits for the caller's thread, which runs it now."""
        with self.lock:
            return self.flow.take_task()

    def pull(self) -> bool:
        """Take wanted items in the reader's thread; False if none is wanted.

        The input's own code runs outside the lock: it may take its time.
        """
        with self.lock:
            if self.source.anywhere or self.flow.scheduler is None or self.flow.fatal is not None:
                return False
            count = 0 if self.flow.home.held else self.flow.scheduler.wanted()
            long = (self.flow.scheduler.mean or 0.0) > LONG_ITEM_S
        if not count:
            return False
        index = self.source.taken
        items = self.source.pull(1 if long else count)
        changed = bool(items) and self.flow.listener.on_take(index)
        with self.lock:
            if changed:
                self.flow.home.hold(self.flow, items)
            else:
                self.flow.arrive(items)
            self._turn()
        # At the end of the input the reader has to look again: that may have been all.
        return True

    def deadline(self) -> float | None:
        """When ``tick`` must be called next; None if nothing is expected."""
        with self.lock:
            return self.flow.scheduler.deadline() if self.flow.scheduler is not None else None

    def failure(self) -> BaseException | None:
        """The error that ends the run, unless an earlier item fails; see ``ChunkFlow``."""
        with self.lock:
            return self.flow.failure()

    def tick(self) -> None:
        with self.lock:
            self.flow.handle(events.Tick())
            self._turn()

    def poll(self) -> None:
        """Look after worker processes without waiting."""
        if (crew := self._polled()) is not None:
            crew.poll(0.0)

    def wait(self, timeout: float | None) -> None:
        """Wait until something matters to the reader, or ``timeout`` seconds."""
        if (crew := self._polled()) is not None:
            crew.poll(timeout)
        else:
            self._waker.wait(timeout)

    def _polled(self) -> Crew | None:
        """The crew whose workers do not report by themselves; there is one at most."""
        crews = self.flow.table.crews
        return crews.get("processes") or crews.get("interpreters")

    def close(self, grace: float) -> None:
        with self.lock:
            crews = self.flow.close()
            self._closed = True
            self._inbox.clear()
        for crew in crews:
            crew.close(grace)
        self._waker.close()
