"""Makes the crews of one run, and weighs what sending to processes would cost.

Guarantees: a crew is made once per run and route; what cannot travel between processes is found
out before anything is sent.
"""

from __future__ import annotations

from itertools import islice

from parallax._backends.contract import CrewSetup, Unable
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.records import replace
from parallax._guard.ends import copied_end
from parallax._run.process_start import ProcessStart

if TYPE_CHECKING:
    from typing import Any

    from parallax._backends import executor_workers, thread_workers
    from parallax._backends.contract import Crew
    from parallax._backends.processes.common import heritage
    from parallax._backends.processes.parent import (
        call_encoding,
        captured_state,
        known_objects,
        map_workers,
        output_receiver,
    )
    from parallax._core import errors
    from parallax._core.chunks import Route
    from parallax._core.nesting import Place
    from parallax._routing.profiler import Profiler
    from parallax._run.caller_state import RunSetup
    from parallax._run.dispatcher import Dispatcher
    from parallax._transport import pickle_diagnosis
    from parallax._transport.codec import Encoded
else:
    # Loaded with the first crew, or when a plan considers processes: then most of them load while
    # the first worker starts.
    _PARENT = "parallax._backends.processes.parent."
    call_encoding = lazy_module(_PARENT + "call_encoding")
    captured_state = lazy_module(_PARENT + "captured_state")
    heritage = lazy_module("parallax._backends.processes.common.heritage")
    known_objects = lazy_module(_PARENT + "known_objects")
    map_workers = lazy_module(_PARENT + "map_workers")
    output_receiver = lazy_module(_PARENT + "output_receiver")
    executor_workers = lazy_module("parallax._backends.executor_workers")
    thread_workers = lazy_module("parallax._backends.thread_workers")
    errors = lazy_module("parallax._core.errors")
    pickle_diagnosis = lazy_module("parallax._transport.pickle_diagnosis")

#: Items of the input whose classes are looked at. More finds more, and takes 30 ns each.
MAX_KINDS_ITEMS = 100_000

#: Mean seconds per item from which chunks are sent to processes that are not up yet. Smaller makes
#: items wait for a start that others could have run meanwhile, larger leaves workers idle at first.
EAGER_MIN_ITEM_S = 0.05


class WorkerFactory:
    """The crews that one run may call on."""

    def __init__(
        self,
        setup: RunSetup,
        profiler: Profiler,
        dispatch: Dispatcher,
        place: Place,
        *,
        forced: bool,
    ) -> None:
        self._call, self._options = setup.call, setup.options
        self._profiler = profiler
        self._dispatch = dispatch
        #: how worker processes start.
        self.start = ProcessStart(
            *setup[:5], profiler.caller, cores=place.cores, forced=forced, place=place
        )
        self._forced = forced
        self._place = place
        self._encoded: Encoded | None = None
        self._carried = False  # the module-level state that it reads is encoded with it
        self._objects: heritage.SharedObjects | None = None  # that workers have with it
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
        dispatch, new_id = self._dispatch, self._dispatch.flow.table.new_id
        if route == "threads":
            executor = self._options.backend
            setup = CrewSetup(dispatch.post, self._call, new_id, self._place, self.start.context)
            if isinstance(executor, str):
                return thread_workers.ThreadCrew(setup)
            return executor_workers.ExternalCrew(setup, executor)
        if self._encoded is None:
            self._encode()
        assert self._encoded is not None
        key = call_encoding.call_key(self._encoded)
        # The first result may not have been there when the plan was made.
        if not self._forced and (end := copied_end("a result", self._caller.out[-1:])):
            raise errors.WorkerStartError("auto", end)
        self.output = self.output or output_receiver.OutputReceiver()
        make = map_workers.ProcessCrew  # loaded before a fork: after it each page is copied first
        pool = self.start.pool(key, self._dispatch.flow.wanted)
        if self._uncopied and not self.start.forked:
            raise errors.WorkerStartError("auto", self._uncopied)
        if not (self._carried or self.start.forked):
            key = self._carry_state()
        made = make(
            dispatch.post,
            dispatch.lock,
            self._encoded,
            key=key,
            pool=pool,
            limit=self.start.limit,
            idle_timeout=self._options.idle_timeout,
            new_id=new_id,
            surround=self.start.surround,
            wait=self._forced,
            output=self.output,
            items=self._options.max_tasks_per_child,
            memory=self._options.max_memory_per_worker,
            objects=self._objects,
            net=None if self._forced else self._profiler.net(),
        )
        scheduler = dispatch.flow.scheduler
        long = scheduler is not None and (scheduler.mean or 0.0) >= EAGER_MIN_ITEM_S
        made.eager = long or self.start.may_fork()
        return made

    def close(self) -> None:
        """Let go of what the callable captured: a run is part of a cycle of references."""
        if self._encoded is not None:
            self._encoded.buffers.clear()
            (self._encoded.slabs or {}).clear()
            for packed in self._encoded.state:
                packed.buffers.clear()
                packed.slabs.clear()
            self._encoded = self._objects = None

    def start_seconds(self) -> tuple[float, float]:
        """Seconds until worker processes would take work, and held up by that; 0 if they are up."""
        up = self._dispatch.flow.table.up("processes")
        return (0.0, 0.0) if up else self.start.seconds(self._modules)

    def _encode(self) -> None:
        """Encode the callable for a crew that was asked for by name."""
        try:
            self._objects = known_objects.shared_objects(self._call.fn)
            self._encoded = call_encoding.encode_call(self._call, objects=self._objects)
        except Exception as error:
            if errors.lacks_descriptors(error):
                raise
            path, reason = pickle_diagnosis.find_unpicklable(self._call.fn, "callable")
            raise errors.SerializationError("callable", None, path, reason) from error
        self.start.prepare(self._find_modules)

    def _carry_state(self) -> int:
        """Encode the callable with what it reads from modules, which forks have; its key."""
        self._carried = True
        self._profiler.limits.find_reads()
        state, stuck = captured_state.capture_state(self._profiler.limits.reads)
        if stuck and not self._forced:
            raise errors.WorkerStartError("auto", stuck)
        assert self._encoded is not None
        if state:
            self._encoded = call_encoding.encode_call(self._call, state, objects=self._objects)
        return call_encoding.call_key(self._encoded)

    def _find_modules(self) -> frozenset[str]:
        assert self._encoded is not None
        self._modules = call_encoding.modules_for(
            self._encoded, getattr(self._call.fn, "__code__", None)
        )
        return self._modules

    def _copied_ends(self, items: list[Any], results: list[Any], *, numbered: bool) -> str:
        """Why processes must not have copies of what they would get, or give back; "" if they may.

        A fork has the callable and a numbered input without ever ending them.
        """
        if end := copied_end("a result", results):
            return end
        kinds: set[type] = set()
        for each in self._dispatch.source.whole:
            if isinstance(each, (list, tuple)):
                kinds.update(map(type, islice(each, MAX_KINDS_ITEMS)))
        self._uncopied = copied_end("the callable", self._call.fn) or copied_end(
            "an item", items, kinds
        )
        return "" if numbered and self.start.may_fork() else self._uncopied

    def prepare(self) -> None:
        """Have workers that are no forks begin to import, in the background."""
        self.start.prepare(self._find_modules)

    def weigh(self, items: list[Any], results: list[Any]) -> None:
        """Encode the callable, an item and a result, to know what sending costs."""
        profiler = self._profiler
        if profiler.weighed:
            return
        inputs = self._dispatch.source.whole
        numbered = bool(inputs) and heritage.numbered(inputs)
        weighed: Any = self._copied_ends(items, results, numbered=numbered)
        if not weighed:
            self._objects = known_objects.shared_objects(self._call.fn)
            reads = profiler.limits.reads
            forks = self.start.may_fork()
            weighed = call_encoding.weigh(
                self._call, reads, items, results, self._objects, forks=forks
            )
            self._carried = not forks
        if isinstance(weighed, str):
            profiler.limits.stay_reason = weighed
            return
        payload, self._encoded = weighed
        if not self._carried:
            # A fork has it, and the input.
            moved = 0.0 if numbered else payload.bytes_in
            payload = replace(payload, callable_bytes=0.0, bytes_in=moved)
        profiler.workers.payload = payload
        self._find_modules()
