"""One run: from a loop in the caller's thread to workers, and back if that was wrong.

A run begins *inline*: the caller's thread works through the items as a loop would, while the
router measures. When a plan says so, the run *opens*: from then on the dispatcher hands chunks to
workers, of which the caller's thread may go on being one until the others are up.

Who turns the loop: the caller's thread. While it is inside an item, worker threads report their
own outcomes and the ticker's thread looks after worker processes and the plan, all under the
dispatcher's lock, so that nothing waits for a long item of the caller's.

Guarantees: an item runs once, except after its worker died or for ``retries``; ``close`` leaves
nothing behind. Assumption: ``batches`` is advanced by one thread at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from . import _inline
from ._backends import chunk as _chunk
from ._backends.contract import Call, Crew, Died, Done, Refused, Unable
from ._backends.external import ExternalCrew
from ._backends.processes.crew import ProcessCrew
from ._backends.processes.payload import (
    current_values,
    encode_call,
    modules_for,
    stuck_value,
    weigh,
)
from ._backends.processes.pool import Pool, warm_pool
from ._backends.threads import ThreadCrew
from ._codec import Encoded
from ._culprit import culprit
from ._dispatcher import CALLER, Dispatcher
from ._errors import SerializationError
from ._feed import Feed
from ._machine import usable_cores
from ._messages import ChunkResult, Route
from ._options import Options
from ._planner import Facts, hindsight
from ._plans import Plan
from ._progress import make_progress
from ._report import Report
from ._router import Router
from ._steady import Steady

__all__ = ["Run"]

clock = time.perf_counter

#: Seconds per inline block. Shorter shows in the time of tiny items, longer delays the plan.
BLOCK = 0.002

#: Seconds per inline block when there is nothing to decide.
LONG_BLOCK = 0.05

#: Seconds of work left below which nothing but the loop is thought of. Smaller spends more on
#: thinking than workers can save, larger forgoes savings of half of it.
SMALL = 0.008

#: Seconds of work left from which the process machinery starts before the verdict is in.
EARLY = 0.1

#: Mean seconds per item from which chunks are sent to processes that are not up yet.
EAGER = 0.05

#: Seconds between two looks at the plan.
REVIEW = 0.02

#: Seconds of work left that the present route may as well finish.
NOT_WORTH = 0.05

#: Changes of route in one run. More would be flapping.
MOST_CHANGES = 6

#: Seconds that a route is kept after the first change, doubled with each further one: on a noisy
#: machine every verdict may be wrong, and changing is never free.
HOLD = 0.1

#: Seconds that a route may take until its first worker is up.
PATIENT_START = 2.0

#: Seconds that items in flight get when the run fails: an earlier item may fail too, and it is
#: the one whose error the loop would have raised.
GRACE = 0.1

#: Seconds that a reader of a stream may wait for its first results while the run measures.
PATIENCE = 0.03

#: Bytes of results, and seconds of work, that may wait for the reader of a stream.
WAITING_BYTES = 64e6
WAITING_SECONDS = 0.25

#: Most threads for waiting work, however much they still bring.
MOST_THREADS = 256


class Run:
    """One call of ``parallel_map``, ``parallel_imap`` or ``explain``."""

    def __init__(
        self, fn: Callable[..., Any], name: str, feed: Feed, options: Options, *, stream: bool
    ) -> None:
        """Check what can be checked; nothing is started yet.

        Args:
            fn: the user's callable.
            name: how to call it in messages.
            feed: the input.
            options: the checked options.
            stream: results are read one by one, so read-ahead is bounded and each matters.
        """
        self._feed = feed
        self._options = options
        self._stream = stream
        self._call = Call(fn, feed.star, options.on_error == "raise")
        self._cores = usable_cores()
        self.report = Report(callable=name)
        self._forced = self._force()
        self._progress = make_progress(options.progress, feed.total)
        self._router = Router(fn, guard=self._forced is None)
        self._dispatch = Dispatcher(
            feed,
            self._call,
            options,
            stream=stream,
            on_done=self._on_done,
            on_trouble=self._on_trouble,
            on_turn=self._on_turn,
        )
        self._out: list[Any] = []  # results of inline items
        self._delivered = 0  # items whose results were made ready
        self._inside: list[Any] | None = None  # the one item that the caller's thread is inside of
        self._owner = 0
        self._review_at = 0.0
        self._directed_at = 0.0
        self._hold_until = 0.0
        self._changes = 0
        self._planned = False
        self._explaining = False
        self._sample: list[Any] = []  # an item to be weighed
        self._encoded: Encoded | None = None
        self._modules: set[str] = set()  # that workers need to import
        self._begin = clock()
        self._deadline = None if options.timeout is None else self._begin + options.timeout
        self._failed_at: float | None = None
        self._closed = False
        #: how the present route does since all its workers are up.
        self._steady: Steady | None = None

    # -- the face ------------------------------------------------------------------------------

    def batches(self) -> Iterator[list[Any]]:
        """Yield results in batches, in order (or as they come, with ``ordered=False``).

        Raises:
            BaseException: what an item or the input raised.
        """
        self._owner = self._dispatch.owner = threading.get_ident()
        grace = 0.0
        try:
            if self._forced in {None, "loop"}:
                yield from self._loop()
            if self._dispatch.scheduler is not None or not self._feed.ended:
                if self._dispatch.scheduler is None:
                    self._open(self._forced_plan())
                yield from self._drive()
            if self._feed.error is not None:
                if self._call.stop:
                    raise self._feed.error
                self.report.note(f"the input itself raised, after {self._delivered} items")
                yield [self._feed.error]
            grace = 5.0
        except Exception:
            grace = GRACE
            raise
        finally:
            self.close(grace)

    def explain(self, budget: float) -> Report:
        """Run the first items, keep nothing, and say what would be done with the rest.

        Args:
            budget: seconds of work after which to answer in any case.
        """
        self._owner = self._dispatch.owner = threading.get_ident()
        self._explaining = True
        try:
            if self._forced in {None, "loop"}:
                for _ in self._loop():
                    if self._planned or clock() > self._begin + budget:
                        break
            else:
                self._adopt(self._forced_plan(), clock())
        finally:
            self.close(0.0)
        self.report.explained = True
        return self.report

    def close(self, grace: float) -> None:
        """End all workers of this run; idempotent.

        Args:
            grace: seconds for items that are still running.
        """
        if self._closed:
            return
        self._closed = True
        self._router.stop_ticker()
        self._sample = []
        self._dispatch.close(grace)
        if self._progress is not None:
            self._progress.close()
        report = self.report
        report.seconds = clock() - self._begin
        report.retried, report.workers_lost = self._dispatch.again, self._dispatch.lost
        seen = self._router.measurement(clock()) or report.measured
        report.measured = seen
        if self._forced is None and not self._explaining:
            report.sum_up()
        if self._forced is None and seen is not None:
            self._router.keep(seen)
            if not self._explaining and report.items:
                facts = replace(self._router.facts(self._facts()), current=report.route)
                report.costs, report.reason = hindsight(
                    seen, report.items, facts, report.route, report.workers
                )

    # -- the caller's thread as the loop -------------------------------------------------------

    def _loop(self) -> Iterator[list[Any]]:
        """Work as a loop would until the input ends or a plan opens the run."""
        feed, router, dispatch = self._feed, self._router, self._dispatch
        measuring = self._forced is None
        if measuring and self._recall():
            return
        size, last = 1, clock()
        first = True
        while not dispatch.begun() and not feed.ended:
            if first and measuring and self._worth_watching():
                # From the first item on: it may be a long one.
                router.start_ticker(self._on_tick)
            direct = feed.anywhere and size > 1 and not self._options.retries
            items = None if direct else feed.take(size)
            if items == []:
                break
            if first and measuring and items:
                router.inspect(tuple(items[0]) if feed.star else (items[0],))
            first = False
            result = self._block(items, size, watch=measuring and router.watching)
            if not result.values:
                break
            if dispatch.begun():
                # The ticker opened the run while we were inside the item.
                dispatch.post(Done(CALLER, dispatch.caller_chunk.id, result))
                break
            error = self._deliver(result)
            if error is not None:
                if self._stream and self._out:
                    yield self._flush()
                raise error
            now = clock()
            if measuring:
                self._reconsider(result, now)
            size = self._next_size(size, result, measuring=measuring)
            if self._deadline is not None and now > self._deadline:
                raise self._timed_out()
            if self._out and self._due(now - last):
                router.stop_ticker()
                del result, items  # a result that was read must not be kept alive here
                yield self._flush()
                last = clock()
                if measuring and not dispatch.begun() and not self._planned:
                    router.start_ticker(self._on_tick)
        if self._out:
            yield self._flush()

    def _worth_watching(self) -> bool:
        """Whether there may be more than a moment's work."""
        left, memory = self._feed.left, self._router.memory
        if left is not None and memory is not None:
            return left * memory.measurement.wall > SMALL
        return left != 1

    def _block(self, items: list[Any] | None, size: int, *, watch: bool) -> ChunkResult:
        """Run a block of items here; with ``items`` None straight off the input."""
        router, feed, call = self._router, self._feed, self._call
        if watch and items:
            router.before(tuple(items[0]) if feed.star else (items[0],))
        if items and self._encoded is None and self._forced is None:
            self._sample = items[:1]
        router.begins(clock())
        if items is not None and len(items) == 1 and not watch and self._forced is None:
            self._inside = items
        try:
            if items is None:
                result = _inline.direct(call.fn, feed, size, stop=call.stop)
            else:
                result = _inline.listed(call, items, self._options.retries)
        finally:
            with self._dispatch.lock:  # a plan in the ticker's thread is made before or after
                self._inside = None
        alone = self._dispatch.scheduler is None
        router.ends(len(result.values), result.wall, result.cpu, alone=alone)
        if watch:
            router.after()
        self.report.worked("loop", result.wall, result.cpu)
        return result

    def _deliver(self, result: ChunkResult) -> BaseException | None:
        """Make the results of an inline block ready; return what ends the run, if anything."""
        values, error = _inline.settle(result, self._delivered, stop=self._call.stop)
        self._out.extend(values)
        self._count(len(values))
        return error

    def _count(self, finished: int) -> None:
        self._delivered += finished
        self.report.items = self._delivered
        if self._progress is not None and finished:
            self._progress.update(finished)

    def _reconsider(self, result: ChunkResult, now: float) -> None:
        """Between two blocks: is there enough left to think about workers?"""
        left = self._feed.left
        each = result.wall / len(result.values)
        if left is not None and left * each < SMALL:
            self._router.stop_ticker()
            return
        if self._planned:
            self._router.stop_ticker()  # the verdict is in; item times go on being looked at
        else:
            self._router.start_ticker(self._on_tick)
        if now >= self._review_at and not self._router.watching:
            with self._dispatch.lock:
                self._review(now)

    def _next_size(self, size: int, result: ChunkResult, *, measuring: bool) -> int:
        each = result.wall / len(result.values)
        seconds = BLOCK if measuring else LONG_BLOCK
        most = size * 8
        size = max(1, min(most, int(seconds / each) if each > 0 else most))
        if self._router.watching or self._options.retries:
            return 1
        if self._stream and self._options.buffersize is not None:
            size = min(size, self._options.buffersize - len(self._out))
        return max(1, size)

    def _due(self, since: float) -> bool:
        """Whether the reader gets what is there now."""
        if not self._stream:
            return False
        full = len(self._out) >= (self._options.buffersize or 1 << 16)
        return full or self._forced == "loop" or self._planned or since > PATIENCE

    def _flush(self) -> list[Any]:
        out, self._out = self._out, []
        return out

    def _recall(self) -> bool:
        """Open at once if an earlier call tells what to do; True if so."""
        memory, left = self._router.memory, self._feed.left
        if memory is None or left is None or left < 2 or self._explaining:
            return False
        if memory.measurement.wall < BLOCK or memory.measurement.wall * left < 5 * SMALL:
            return False
        items = self._feed.peek()
        if not items:
            return False
        self._router.inspect(tuple(items[0]) if self._feed.star else (items[0],))
        if not self._router.watching:
            with self._dispatch.lock:
                self._review(clock())
        return self._dispatch.scheduler is not None

    # -- workers -------------------------------------------------------------------------------

    def _drive(self) -> Iterator[list[Any]]:
        """Turn the loop until all results are out."""
        dispatch = self._dispatch
        if self._out:
            yield self._flush()
        while True:
            dispatch.waker.clear()
            ready = dispatch.take()
            if ready:
                self._count(len(ready))
                yield ready
            if dispatch.fatal is not None:
                raise dispatch.fatal
            assert dispatch.scheduler is not None
            if dispatch.scheduler.failed is not None:
                self._failed_at = self._failed_at or clock()
                late = clock() > self._failed_at + GRACE
                error = dispatch.failure()
                if error is not None and (late or dispatch.scheduler.finished):
                    if ready := dispatch.take():
                        self._count(len(ready))
                        yield ready
                    raise error
            elif dispatch.scheduler.finished:
                if not (ready := dispatch.take()):
                    return
                self._count(len(ready))
                yield ready
            self._move_window()
            if dispatch.caller_task is not None:
                self._work()
            elif not dispatch.pull():
                self._router.stop_ticker()
                dispatch.wait(self._patience())

    def _work(self) -> None:
        """The caller's thread runs a chunk like any other worker."""
        dispatch, router = self._dispatch, self._router
        assert dispatch.caller_task is not None
        chunk, items = dispatch.caller_task
        dispatch.caller_task = None
        if self._forced is None and "processes" in dispatch.crews:
            router.start_ticker(self._on_tick)
        self._inside = items
        try:
            result = _inline.listed(self._call, items, 0)
        finally:
            with dispatch.lock:
                self._inside = None
        dispatch.post(Done(CALLER, chunk.id, result))
        if dispatch.caller_task is None:
            router.stop_ticker()

    def _patience(self) -> float | None:
        """How long the caller's thread may wait for events."""
        assert self._dispatch.scheduler is not None
        due = [
            moment
            for moment in (
                self._deadline,
                self._dispatch.scheduler.deadline(),
                None if self._failed_at is None else self._failed_at + GRACE,
            )
            if moment is not None
        ]
        if not due:
            return None
        left = min(due) - clock()
        if left > 0:
            return left
        if self._deadline is not None and clock() >= self._deadline:
            raise self._timed_out()
        self._dispatch.tick()
        return 0.01

    def _timed_out(self) -> TimeoutError:
        return TimeoutError(
            f"{self._delivered} items were finished when timeout={self._options.timeout:g} s "
            f"was over"
        )

    def _move_window(self) -> None:
        """Bound how far a stream runs ahead of its reader, by time and by bytes."""
        scheduler = self._dispatch.scheduler
        if not self._stream or self._options.buffersize is not None or scheduler is None:
            return
        crew = max(2, self._dispatch.wanted)
        window = 4.0 * crew
        if scheduler.mean:
            window = max(window, crew * WAITING_SECONDS / scheduler.mean)
        if self.report.bytes_out and self._delivered:
            window = min(window, WAITING_BYTES / (self.report.bytes_out / self._delivered))
        scheduler.window = int(max(2 * crew + 1, min(window, 1e6)))

    # -- plans ---------------------------------------------------------------------------------

    def _force(self) -> Route | None:
        """The route that the caller asked for, None for auto."""
        options, report = self._options, self.report
        backend = options.backend if isinstance(options.backend, str) else "executor"
        report.backend = backend
        if _chunk.level() > 0 and backend in {"auto", "processes"}:
            report.reason = "this call is made inside another one's worker: its cores are in use"
            return "loop"
        if options.item_timeout is not None:
            report.reason = "item_timeout needs workers that can be ended"
            return "processes"
        if backend == "auto":
            return None
        report.reason = f"backend={backend!r} was asked for"
        routes: dict[str, Route] = {"serial": "loop", "processes": "processes"}
        return routes.get(backend, "threads")

    def _forced_plan(self) -> Plan:
        route = self._forced or "loop"
        count = self._options.max_workers
        if count is None and route == "threads":
            count = min(32, self._cores + 4)
            if self.report.backend == "executor":
                count = getattr(self._options.backend, "_max_workers", self._cores)
        count = count or self._cores
        left = self._feed.left
        if left is not None:
            count = max(1, min(count, left))
        return Plan(route, count, self.report.reason, {}, left)

    def _on_tick(self, now: float) -> None:
        """In the ticker's thread, while the caller's is inside an item."""
        dispatch = self._dispatch
        if not self._may_overtake() or not dispatch.lock.acquire(blocking=False):
            return
        try:
            if self._closed or not self._may_overtake():
                return
            if dispatch.begun():
                dispatch.poll()
            elif now >= self._review_at:
                self._review(now)
        finally:
            dispatch.lock.release()

    def _may_overtake(self) -> bool:
        """Whether the caller's thread is inside items that others need not wait for."""
        return self._inside is not None

    def _on_turn(self) -> None:
        """Events were handled; the lock is held."""
        now = clock()
        if self._forced is None and now >= self._review_at and not self._closed:
            self._review(now)

    def _review(self, now: float) -> None:
        """Ask the router what should be done now, and do it. The lock is held."""
        router, dispatch = self._router, self._dispatch
        self._review_at = now + (REVIEW if dispatch.scheduler is not None else REVIEW / 5)
        left = self._left()
        if left is not None and left < 1:
            return
        self._judge(now)
        facts = self._facts()
        decided = router.plan(now, left, facts)
        if decided is None:
            self._start_early(now, left)
            return
        if decided[1].route == "processes" and router.payload is None and not router.stay:
            self._weigh()
            decided = router.plan(now, left, self._facts()) or decided
        seen, plan = decided
        self.report.measured = seen
        if router.verdict.limit == "loop" and threading.get_ident() == self._owner:
            router.warn()
        self._planned = self._planned or plan.settled
        self._follow(plan, now)

    def _facts(self) -> Facts:
        return Facts(
            cores=self._cores,
            max_workers=self._options.max_workers,
            process_start=self._process_start(),
            current=self._dispatch.route,
        )

    def _follow(self, plan: Plan, now: float) -> None:
        """Do what the plan says, as far as it differs from what is done."""
        dispatch = self._dispatch
        change = plan.route != dispatch.route
        little = plan.costs.get(dispatch.route, 1.0) < NOT_WORTH and dispatch.begun()
        if change and (
            little
            or self._changes >= MOST_CHANGES
            or now < self._hold_until
            or self._starting(now)
        ):
            return
        if change or not self.report.changes or plan.workers > dispatch.wanted:
            self._adopt(plan, now)
        if self._explaining:
            return
        if dispatch.scheduler is None:
            if plan.route != "loop":
                self._open(plan)
        elif change:
            self._changes += 1
            self._steady, self._directed_at = None, now
            self._hold_until = now + HOLD * 2**self._changes
            dispatch.direct(plan.route, plan.workers, self._crew(plan.route))
        elif plan.workers > dispatch.wanted and plan.route != "loop":
            self._steady = None
            dispatch.direct(plan.route, plan.workers, self._crew(plan.route))

    def _starting(self, now: float) -> bool:
        """Whether the present route has not had its chance yet."""
        dispatch = self._dispatch
        if dispatch.route == "loop":
            return False
        return dispatch.up(dispatch.route) == 0 and now < self._directed_at + PATIENT_START

    def _adopt(self, plan: Plan, now: float) -> None:
        change = plan.route != self._dispatch.route or not self.report.changes
        self.report.choose(plan, now - self._begin, change=change)

    def _open(self, plan: Plan) -> None:
        """Bring in the scheduler and the first crew. The lock is held, or there is no contest."""
        if not self.report.changes:
            self._adopt(plan, clock())
        dispatch = self._dispatch
        cost = self._router.meter.summary()
        seen = self.report.measured
        mean = cost.recent_wall if cost.items else (seen.wall if seen is not None else None)
        caller = self._forced in {None, "loop"}
        self._router.freeze()
        self._directed_at = clock()
        dispatch.begin(self._delivered, mean, caller=caller, inside=self._inside)
        dispatch.direct(plan.route, plan.workers, self._crew(plan.route))

    def _left(self) -> int | None:
        scheduler = self._dispatch.scheduler
        if scheduler is None:
            return self._feed.left
        left = scheduler.left()
        return None if left is None else max(0, left - scheduler.in_flight)

    def _judge(self, now: float) -> None:
        """Note how fast the present route really is, once that can be told."""
        dispatch, router, steady = self._dispatch, self._router, self._steady
        route = dispatch.route
        if steady is None or route == "loop":
            return
        speed = steady.speed(now, dispatch.under_way(now), dispatch.delay(route))
        if speed is not None:
            router.speeds[route] = speed
        cost = router.meter.summary()
        waits = cost.items and cost.cpu < 0.5 * cost.wall
        if route == "threads" and waits and steady.chunks >= 2:
            slower = steady.wall / steady.items / cost.wall
            if slower < 1.3 and dispatch.wanted >= router.thread_cap < MOST_THREADS:
                router.thread_cap *= 2
                router.speeds.pop(route, None)

    def _on_done(self, done: Done, route: Route) -> None:
        """A chunk came back; the lock is held."""
        report, dispatch, router, result = self.report, self._dispatch, self._router, done.result
        report.worked(route, result.wall, result.cpu)
        report.bytes_in += done.bytes_in
        report.bytes_out += done.bytes_out
        if route != dispatch.route or route == "loop":
            return
        router.worker_did(result, threads=route == "threads")
        if self._steady is None:
            if dispatch.up(route) >= dispatch.wanted:
                self._steady = Steady(
                    clock(), dispatch.wanted, self._cores, dispatch.delay(route)
                )
            return
        self._steady.add(clock(), result, router.equivalent(result, threads=route == "threads"))

    # -- crews ---------------------------------------------------------------------------------

    def _crew(self, route: Route) -> Crew | None:
        dispatch = self._dispatch
        if route == "loop":
            return None
        crew = dispatch.crews.get(route)
        if crew is not None:
            return crew
        if route == "threads":
            executor = self._options.backend
            if not isinstance(executor, str):
                return ExternalCrew(dispatch.post, self._call, executor, new_id=dispatch.new_id)
            return ThreadCrew(dispatch.post, self._call, new_id=dispatch.new_id)
        if self._encoded is None:
            self._encode()
        assert self._encoded is not None
        made = ProcessCrew(
            dispatch.post,
            dispatch.lock,
            self._encoded,
            pool=self._pool(),
            limit=max(self._cores, self._options.max_workers or 0),
            idle_timeout=self._options.idle_timeout,
            new_id=dispatch.new_id,
            wait=self._forced is not None,
        )
        mean = self._dispatch.scheduler.mean if self._dispatch.scheduler is not None else None
        made.eager = mean is not None and mean >= EAGER
        return made

    def _pool(self) -> Pool:
        return warm_pool(self._options.start_method)

    def _process_start(self) -> float:
        if self._dispatch.up("processes"):
            return 0.0
        most = self._options.max_workers
        start = self._pool().expected_start(
            most or self._cores, max(self._cores, most or 0), self._modules
        )
        cost = self._router.meter.summary()
        if start and cost.dear_first:
            # What made the first item dear (imports, tables) each new worker does once more.
            start += cost.first_wall
        return start

    def _encode(self) -> None:
        """Encode the callable for a crew that was asked for by name."""
        try:
            self._encoded = encode_call(self._call, [])
        except Exception as error:
            path, reason = culprit(self._call.fn, "callable")
            raise SerializationError("callable", None, path, reason) from error
        self._router.look_for_reads()
        values = [v for v in current_values(self._router.reads) if not stuck_value([v])]
        if values:
            self._encoded = encode_call(self._call, values)
        self._modules = modules_for(self._encoded)
        self._pool().prepare(self._modules)

    def _weigh(self) -> None:
        """Encode the callable, an item and a result, to know what sending costs."""
        router, feed, dispatch = self._router, self._feed, self._dispatch
        items = dispatch.next_items() or self._sample
        if not items and feed.anywhere:
            items = feed.peek()
        self._sample = []
        weighed = weigh(self._call, router.reads, items, self._out[-1:])
        if isinstance(weighed, str):
            router.stay = weighed
            return
        router.payload, self._encoded = weighed
        self._modules = modules_for(self._encoded)
        self._pool().prepare(self._modules)

    def _start_early(self, now: float, left: int | None) -> None:
        """Have the process machinery start while the verdict is still out."""
        router = self._router
        seen = router.measurement(now)
        if seen is None or left is None or router.verdict.limit != "free" or router.stay:
            return
        if router.payload is None and seen.wall * left > EARLY and seen.waiting < 0.5:
            self._weigh()

    def _on_trouble(self, event: Refused | Unable | Died) -> bool:
        """Something could not be done the way it was planned; True if there is another way."""
        dispatch, router = self._dispatch, self._router
        if isinstance(event, Died):
            return False
        if isinstance(event, Unable):
            self.report.note(f"workers: {event.reason}")
            if self._forced is not None:
                return False
            if event.fatal:
                router.stay = f"no worker process could be had: {event.reason}"
        else:
            if self._forced is not None:
                return False
            router.stay = f"the {event.path} does not travel between processes: {event.reason}"
            self.report.note(f"kept in this process: {router.stay}")
        self._steady = None
        self._changes += 1
        plan = Plan("loop", 1, router.stay or event.reason, {}, self._left())
        self._adopt(plan, clock())
        dispatch.direct("loop", 1, None)
        self._review_at = 0.0
        return True
