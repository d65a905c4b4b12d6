"""Makes the crews of one run, and weighs what sending to processes would cost.

Guarantees: a crew is made once per run and route; what cannot travel between processes is found
out before anything is sent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import islice

from parallax._backends.contract import Crew, CrewSetup, Unable
from parallax._core.chunks import Route
from parallax._core.lazy_import import errors, lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.nesting import Place
from parallax._guard.ends import copied_end
from parallax._routing.profiler import Profiler
from parallax._run.caller_state import RunSetup
from parallax._run.dispatcher import Dispatcher
from parallax._run.process_start import ProcessStart

if TYPE_CHECKING:
    from parallax._backends import clusters, thread_workers
    from parallax._backends.processes.common import heritage
    from parallax._backends.processes.parent import map_workers, output_receiver, run_call
else:
    _PARENT = "parallax._backends.processes.parent."
    heritage = lazy_module("parallax._backends.processes.common.heritage")
    map_workers = lazy_module(_PARENT + "map_workers")
    output_receiver = lazy_module(_PARENT + "output_receiver")
    run_call = lazy_module(_PARENT + "run_call")
    clusters = lazy_module("parallax._backends.clusters")
    thread_workers = lazy_module("parallax._backends.thread_workers")

#: Items of the input whose classes are looked at. More finds more, and takes 30 ns each.
MAX_KINDS_ITEMS = 100_000

#: Mean seconds per item from which chunks are sent to processes that are not up yet. Smaller makes
#: items wait for a start that others could have run meanwhile, larger leaves workers idle at first.
EAGER_MIN_ITEM_S = 0.05


class WorkerFactory:
    def __init__(
        self,
        setup: RunSetup,
        profiler: Profiler,
        dispatch: Dispatcher,
        place: Place,
        ending: Callable[[], int],
        forced: Route | None,
    ) -> None:
        self._call, self._options = setup.call, setup.options
        self._profiler = profiler
        self._dispatch = dispatch
        self._forced = forced is not None
        #: how worker processes start.
        self.start = ProcessStart(setup, profiler.caller, place, ending, forced=self._forced)
        self._place = place
        self._made: run_call.RunCall | None = None
        self._modules: frozenset[str] = frozenset()  # that workers need to import
        self._caller = setup.caller
        self._uncopied = ""  # why only forks of the program may be used; "" if others may, too
        #: what worker processes print, log and warn; None as long as there are none.
        self.output: output_receiver.OutputReceiver | None = None

    def make(self, route: Route) -> Crew | Unable:
        """Make the crew of a route, which is not the loop, or say why there is none."""
        try:
            return self._make(route)
        except OSError as error:  # no descriptor is left, even to load a module
            return Unable(str(error))
        except errors.WorkerStartError as error:
            return Unable(error.detail, method=error.method)

    def _make(self, route: Route) -> Crew:
        dispatch = self._dispatch
        new_id = functools.partial(dispatch.flow.table.new_id, route)
        if route in ("threads", "executor"):
            setup = CrewSetup(dispatch.post, self._call, new_id, self._place, self.start.context)
            if route == "threads":
                return thread_workers.ThreadCrew(setup)
            return clusters.crew_for(setup, self._options.backend)
        call = self._run_call()
        if self._forced:
            call.encode()
            self.start.prepare(self._find_modules)
        # The first result may not have been there when the plan was made.
        elif end := copied_end("a result", self._caller.out[-1:]):
            raise errors.WorkerStartError("auto", end)
        self.output = self.output or output_receiver.OutputReceiver()
        make = map_workers.ProcessCrew  # loaded before a fork: after it each page is copied first
        pool = self.start.pool(call.key, self._dispatch.flow.wanted)
        if not self.start.forked:
            self._check_travels()
        made = make(
            dispatch.post,
            dispatch.lock,
            call,
            pool=pool,
            limit=self.start.limit,
            idle_timeout=self._options.idle_timeout,
            new_id=new_id,
            surround=self.start.surround,
            wait=self._forced,
            output=self.output,
            items=self._options.max_tasks_per_child,
            memory=self._options.max_memory_per_worker,
            net=None if self._forced else self._profiler.net(),
        )
        scheduler = dispatch.flow.scheduler
        long = scheduler is not None and (scheduler.mean or 0.0) >= EAGER_MIN_ITEM_S
        made.eager = long or self.start.may_fork()
        return made

    def close(self) -> None:
        """Let go of what the callable captured: a run is part of a cycle of references."""
        if self._made is not None:
            self._made.clear()

    def start_seconds(self) -> tuple[float, float]:
        """Seconds until worker processes would take work, and held up by that; 0 if they are up."""
        up = self._dispatch.flow.table.up("processes")
        return (0.0, 0.0) if up else self.start.seconds(self._modules)

    def _run_call(self) -> run_call.RunCall:
        if self._made is None:
            self._made = run_call.RunCall(self._call, self._reads, self._check_travels)
        return self._made

    def _reads(self) -> tuple[Any, ...]:
        limits = self._profiler.limits
        limits.find_reads()
        return () if self._forced and self.start.may_fork() else limits.reads  # forks have it

    def _check_travels(self) -> None:
        """Encode the callable for others than the forks for which it was looked at."""
        if self._forced:
            return
        if self._uncopied:
            raise errors.WorkerStartError("auto", self._uncopied)
        call = self._run_call()
        try:
            call.encode()
        except errors.SerializationError as error:
            raise errors.WorkerStartError("auto", str(error)) from error
        if call.stuck:
            raise errors.WorkerStartError("auto", call.stuck)

    def _find_modules(self) -> frozenset[str]:
        self._modules = self._run_call().modules()
        return self._modules

    def _copied_ends(self, items: list[Any], results: list[Any], *, numbered: bool) -> str:
        """Why processes must not have copies of what they would get, or give back; "" if they may.

        A fork has the callable and a numbered input without ever ending them.
        """
        if end := copied_end("a result", results):
            return end
        kinds: set[type] = set()
        for each in self._dispatch.source.whole:
            if type(each) in {list, tuple}:  # reading another may do something
                kinds.update(map(type, islice(each, MAX_KINDS_ITEMS)))
        self._uncopied = copied_end("the callable", self._call.fn) or copied_end(
            "an item", items, kinds
        )
        return "" if numbered and self.start.may_fork() else self._uncopied

    def prepare(self) -> None:
        """Have workers that are no forks begin to import, in the background."""
        self.start.prepare(self._find_modules)

    def weigh(self) -> None:
        """Find what sending an item and a result costs, by those that are at hand."""
        profiler, caller, source = self._profiler, self._caller, self._dispatch.source
        items = [*self._dispatch.flow.in_flight.first()] or caller.sample
        results = caller.out[-1:]
        if not items and source.anywhere:
            items = source.peek()
        caller.sample = []
        if profiler.weighed:
            return
        fork, inputs = self.start.may_fork(), source.whole
        try:
            numbered = bool(inputs) and heritage.numbered(inputs)
            weighed: Any = self._copied_ends(items, results, numbered=numbered)
            if not weighed:
                weighed = self._run_call().weigh(items, results, fork=fork, numbered=numbered)
        except OSError as error:  # no descriptor is left, even to load a module
            weighed = str(error)
        if isinstance(weighed, str):
            profiler.limits.stay_reason = weighed
            return
        profiler.workers.payload = weighed
        if not fork:
            self._find_modules()
