"""How the worker processes of one run start: as forks of the program, or from the warm pool.

A fork has the program's whole state and nothing to import, so the route "auto" prefers it where it
is safe. A run that was told to use processes takes the warm pool, whose workers live on.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable

from parallax._core import fork_pauses
from parallax._core.cores import MAX_PROCESSES
from parallax._core.lazy_import import errors, lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.nesting import Place
from parallax._core.process_rights import Rights, own_ids, own_rights
from parallax._profiling.caller_meter import CallerMeter
from parallax._run.caller_state import RunSetup

_PARENT = "parallax._backends.processes.parent."

if TYPE_CHECKING:
    from parallax._backends.processes.parent import environment_capture, snapshot_pool, warm_pool
    from parallax._backends.processes.parent.pool import Pool
    from parallax._backends.processes.start import fork_safety
else:
    environment_capture = lazy_module(_PARENT + "environment_capture")
    snapshot_pool = lazy_module(_PARENT + "snapshot_pool")
    warm_pool = lazy_module(_PARENT + "warm_pool")
    fork_safety = lazy_module("parallax._backends.processes.start.fork_safety")

#: Seconds that the caller's thread needs to load what starts and leads worker processes, once in a
#: program. Smaller starts workers for jobs that are done before these have started.
LOAD_S = 0.018

#: Seconds of a first fork of a program, and more of them per byte in use: its page tables are
#: copied, and the pages that are written to from then on.
FIRST_FORK_S, FORK_S_PER_BYTE = 0.004, 4e-11

#: Seconds until forks of a small program take work, and how many forks of it one after the other
#: take as long as the two that a large one needs.
FORK_START_S = 0.01
FORKS_IN_A_ROW = 3

#: Seconds of an item, with so many more for each module of the program, and items that are left, up
#: to which and from which on a run waits for the end of the item in order to fork the program. More
#: waiting leaves cores idle, less starts workers that have to import all modules.
AWAITED_ITEM_S, AWAITED_PER_MODULE_S = 0.05, 0.0005
AWAITING_ITEMS = 32

#: Seconds from which on an item that has waited so far is taken for one that waits.
WAITING_ITEM_S = 0.015

#: CPU seconds that the latest fork took.
_latest_fork_s = 0.0


class ProcessStart:
    """Starts the worker processes of one run, which was told to use them if that is ``forced``.

    ``ending`` tells how many threads of the run end before a fork.
    """

    def __init__(
        self,
        setup: RunSetup,
        meter: CallerMeter,
        place: Place,
        ending: Callable[[], int] = int,
        *,
        forced: bool,
    ) -> None:
        self._call, self._source, self._options, self._report, self._caller, *_ = setup
        self._meter = meter
        self._place = place
        self._ending = ending
        #: what workers may do: what the caller may do at the call.
        self._ids = own_ids()
        self._rights: Rights | None = None
        options, cores = self._options, place.cores
        self._wanted = options.max_workers or cores
        #: how many workers may exist over all runs.
        self.limit = min(max(cores, options.max_workers or 0), MAX_PROCESSES)
        #: the caller's, whoever starts workers.
        self.context = contextvars.copy_context()
        method = options.start_method
        wanted = method == "snapshot" or (method == "auto" and not forced)
        #: workers of this run are forks of the program.
        self.forked = False
        self._fork_wanted = wanted and options.backend != "interpreters"
        #: why the program is not forked; "" if it may be, None as long as that is not known.
        self._unforkable: str | None = None

    def surround(self, workers: int) -> bytes:
        """The environment of the items of so many workers, encoded."""
        # In the caller's context, whoever asks: settings of arithmetic are kept there.
        place = self._place.worker(workers, self._options.item_timeout)
        return self.context.copy().run(environment_capture.capture_environment, place)

    def may_fork(self) -> bool:
        """Whether the program can be forked at the end of an item, as far as that is known."""
        if self._fork_wanted and self._unforkable is None:
            try:
                self._unforkable = fork_safety.unsafe_reason(fork_pauses.running() + self._ending())
            except OSError as error:  # no descriptor is left to load the module
                self._unforkable = str(error)
        return self._fork_wanted and not self._unforkable

    def awaits_item(self, now: float, left: int | None, waits: Callable[[float], bool]) -> bool:
        """Whether the plan waits for the end of the item that the caller's thread is inside of.

        Not if the item ``waits``: that is for threads.
        """
        awaited = AWAITED_ITEM_S + AWAITED_PER_MODULE_S * len(sys.modules)
        took = now - self._caller.block[0]
        if took >= WAITING_ITEM_S and waits(now):
            return False
        if took < awaited:
            return self._hopes_to_fork
        return (left is None or left > AWAITING_ITEMS) and self.may_fork()

    @property
    def _hopes_to_fork(self) -> bool:
        """The same as ``may_fork``, not asked: that takes milliseconds where there is BLAS."""
        return self._fork_wanted and not self._unforkable

    def seconds(self, modules: frozenset[str]) -> tuple[float, float]:
        """Seconds until workers take work, and those in which they occupy the caller's thread."""
        hold = 0.0 if _PARENT + "map_workers" in sys.modules else LOAD_S
        if self._hopes_to_fork:
            fork = _latest_fork_s or FIRST_FORK_S + FORK_S_PER_BYTE * _bytes_in_use()
            hold += fork
            return hold + FORK_START_S + (FORKS_IN_A_ROW - 1) * fork, hold
        start = self._warm_pool().expected_start(self._wanted, self.limit, modules)
        cost = self._meter.cost()
        if start and cost.dear_first:
            # What made the first item dear (imports, tables) each new worker does once more.
            start += cost.first_wall
        return hold + start, hold

    def prepare(self, modules: Callable[[], frozenset[str]]) -> None:
        """Begin to prepare for workers that are no forks, in the background."""
        if not self.may_fork():
            self._warm_pool().prepare(modules())

    def pool(self, key: int, workers: int) -> Pool:
        """The pool of the run; forks the program if that is wanted and safe.

        ``key`` is the number of the callable in workers. A fork that ``start_method`` asks for and
        that is not safe raises a WorkerStartError.
        """
        if not self._fork_wanted:
            return self._warm_pool()
        if self.may_fork() and threading.get_ident() != self._caller.thread:
            self._unforkable = "an item is running that takes long"
        if not self._unforkable:
            made = self._fork(key, workers)
            if not isinstance(made, str):
                self._report.start = "forked from the program"
                self.forked = True
                return made
            self._unforkable = made
        if self._options.start_method == "snapshot":
            raise errors.WorkerStartError("snapshot", self._unforkable)
        self._report.start = f"not forked from the program: {self._unforkable}"
        return self._warm_pool()

    def _fork(self, key: int, workers: int) -> Pool | str:
        global _latest_fork_s  # noqa: PLW0603 - a measurement of the process
        self._meter.stop_sampler()
        place = self._place.worker(workers, self._options.item_timeout)
        context = self.surround(workers)
        made_by = snapshot_pool.fork_pool  # loads it
        begin = time.thread_time()
        made = made_by(self._call, key, place, context, self._source.whole)
        _latest_fork_s = time.thread_time() - begin
        return made

    def _warm_pool(self) -> Pool:
        method = self._options.start_method
        if self._options.backend == "interpreters":
            method = f"interpreters:{method}"
        if self._rights is None:
            self._rights = own_rights()._replace(ids=self._ids)
        return warm_pool.warm_pool(method, self._rights)


def _bytes_in_use() -> int:
    """Memory of this program that is in use; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
