"""What the caller's thread is doing in a run, for other threads to see, and what it gets.

Guarantees: the thread is in the run's place while it runs items, and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Sized

from parallax._backends.contract import Call
from parallax._core.chunks import ChunkResult
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NamedTuple
from parallax._core.nesting import Place, enter, entered
from parallax._core.options import Options
from parallax._reporting.reports import Report
from parallax._run.first_items import FirstItems
from parallax._scheduling.input import Input

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from parallax._reporting.progress import Progress


class RunSetup(NamedTuple):
    """What the parts of one run have in common."""

    call: Call
    source: Input
    options: Options
    report: Report
    caller: CallerState
    #: results are read one by one, so read-ahead is bounded and each matters.
    stream: bool
    #: what ran before the run was made.
    first: FirstItems | None = None


class CallerState:
    """What the caller's thread is doing, and the results that are made for it."""

    def __init__(self, report: Report, progress: Progress | None, timeout: float | None) -> None:
        #: the thread's ident.
        self.thread = 0
        #: the items that the thread is inside of and that others need not wait for.
        self.inside: Sequence[Any] | None = None
        #: the items that it is inside of: when they began, how many, and the results so far.
        self.block: tuple[float, int, Sized] = (0.0, 0, ())
        #: an item that may be encoded to measure its size.
        self.sample: list[Any] = []
        #: results that the reader has not got yet.
        self.out: list[Any] = []
        #: number of items whose results were made ready.
        self.delivered = 0
        #: when items ended last, or the reader of a stream came back.
        self.last = 0.0
        #: the reader of a stream is outside this call.
        self.away = False
        #: when the run is over in any case.
        self.deadline = None if timeout is None else time.perf_counter() + timeout
        self._timeout = timeout
        self._report = report
        self._progress = progress
        self._before = entered()

    def count(self, finished: int) -> None:
        """So many more results were made ready."""
        self.delivered += finished
        self._report.items = self.delivered
        if self._progress is not None and finished:
            self._progress.update(finished)

    def flush(self) -> list[Any]:
        out, self.out = self.out, []
        return out

    def check_deadline(self, now: float) -> None:
        """Raise ``TimeoutError`` if the run's time is over."""
        if self.deadline is not None and now > self.deadline:
            done, limit = self.delivered, self._timeout
            raise TimeoutError(f"{done} items were finished when timeout={limit:g} s was over")

    def close(self) -> None:
        self.sample = []
        if self._progress is not None:
            self._progress.close()

    def run(
        self,
        work: Callable[[list[Any]], ChunkResult],
        size: int,
        place: Place,
        lock: AbstractContextManager[Any],
        overtaken: Sequence[Any] | None,
    ) -> ChunkResult:
        """Run ``size`` items in this thread.

        ``work`` fills the list that it gets with their results. ``overtaken`` are the items if
        others need not wait for them. The ``lock`` is the dispatcher's: a plan in the sampler's
        thread is made before the items end, or after this is noted.
        """
        values: list[Any] = []
        self.block = time.perf_counter(), size, values
        self.inside = overtaken
        self._before = entered()
        enter(place)
        try:
            return work(values)
        finally:
            enter(self._before)
            with lock:
                self.leave_block()

    def leave_block(self) -> None:
        """The thread is outside of items; the dispatcher's lock is held."""
        self.inside = None
        self.block = 0.0, 0, ()

    def leave(self, place: Place) -> None:
        """Put the thread back where it was, if Ctrl-C came before ``run`` could do so."""
        if entered() is place:
            enter(self._before)
