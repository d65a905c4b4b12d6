"""What every thread of a program does with its time, and in which functions: sampled.

How it works: the thread of a `GilSampler` wakes up at random times, sees whether the GIL was held,
and has it afterwards. While it has the GIL, a thread whose CPU clock moves works without it. Of the
others the system tells whether they wait for the GIL or for something else (`thread_states`). If
the GIL was held, its holder is a thread that has used CPU time since the last look and now wants
the GIL again, or has just let go of it. Each sample stands for the time since the one before of
its kind: with a GIL that was held, or free.

Guarantees: nothing of the program is changed, no file stays open, looks take at most
`LOOK_BUDGET` of the time. Assumption: `finish` is called in the process of `start`.
"""

from __future__ import annotations

import threading
import time

from parallax._core.cores import gil_enabled
from parallax._core.current_frames import current_frames
from parallax._core.fork_pauses import COUNTS_LATE
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._profiling.child_clocks import ChildClocks
from parallax._profiling.gil_estimate import GilReading, estimate
from parallax._profiling.gil_sampler import GilSampler, core_switches
from parallax._profiling.short_turns import ShortTurns
from parallax._profiling.thread_states import (
    FOR_GIL,
    RUNNING,
    UNKNOWN,
    ThreadStates,
    clock_of,
)
from parallax._profiling.thread_tally import (
    CORE_WAIT,
    GIL_WAIT,
    HELD,
    IDLE,
    NATIVE,
    OTHER_WAIT,
    PARTS,
    Bar,
    Places,
    SeenThread,
    Tally,
    ThreadTally,
    find_holder,
)

if TYPE_CHECKING:
    import types

    from parallax._profiling.gil_sampler import Mark

#: Share of the time that looks at threads may take. More slows the program down; with less, a
#: program of hundreds of threads is seen too rarely.
LOOK_BUDGET = 0.015
#: Seconds of looks before the budget counts.
_LOOK_ALLOWANCE_S = 0.005
#: How long a clock must have stood still, or moved, to tell. Shorter mistakes a thread that is on
#: its way to wait for the GIL for one that works, longer keeps the program waiting.
_CLOCK_SPAN_S = 0.00003
#: Points of the curve of cores over time; when there are twice as many, neighbours are joined.
_POINTS = 60
#: A deeper stack is cut: the innermost frames matter most.
_MAX_DEPTH = 200
#: If there are more threads, those that have used no CPU time are taken to wait as before: asking
#: takes 15 us each. They may only have been given no core.
_ALWAYS_ASKED = 16
#: So many threads that have ended show that the program's threads are short.
_MANY_ENDED = 10
#: A smaller part of the time between two looks with the GIL has no bar.
_MIN_DRAWN = 0.1
#: Outermost frames that are kept to tell what a thread is for.
_ROOTS = 8

#: Looks for one short turn. With fewer threads would take turns more often than they do in the
#: program, with more it is not seen which functions of a thread hold the GIL.
_LOOKS_PER_SHORT_TURN = 2


class ProgramSampler:
    """Samples all threads from `start` to `finish`."""

    def __init__(self, outside: types.CodeType, library: tuple[str, ...]) -> None:
        """Watch what is called by ``outside``, and all other threads.

        Functions in files below the folders of ``library`` are not to blame, their callers are.
        """
        self._outside = outside.co_filename, outside.co_name
        self._folders = library
        self._library: dict[str, bool] = {}  # by file name
        self._sampler = GilSampler(self._look, on_wake=self._awake, starts=False)
        self._places = Places()
        self._states = ThreadStates()
        self._children = ChildClocks()
        self._first = self._before = self._sampler.mark()
        self.weight = 0.0
        #: seconds that no look stands for yet, in which the GIL was free, and held.
        self._due = [0.0, 0.0]
        #: seconds in which the GIL was held by threads that had ended when they were looked for.
        self.ended = 0.0
        #: of the latest look: CPU seconds of the program until then, and its time.
        self._looked = (self._first.process, 0.0)
        #: seconds that looks have taken at a free GIL, and at one that was held.
        self._spent = [0.0, 0.0]
        self.short_turns = ShortTurns(self._sampler)
        #: of the latest wake-up: whether it ended a short turn, and how often its thread had slept.
        self._woken = (False, 0)
        self.threads: dict[int, ThreadTally] = {}
        #: seconds since the start and CPU seconds of the program and its children up to then.
        self.curve: list[tuple[float, float]] = [(0.0, 0.0)]
        self.looks = 0
        self.had_gil = gil_enabled()

    @property
    def waits_told(self) -> bool:
        """Whether this system tells what threads wait for."""
        return self._states.told

    def start(self) -> None:
        self._first = self._before = self._sampler.mark()
        self.short_turns.hide()
        self._sampler.start()

    def after_fork(self) -> None:
        """Go on after a fork where threads that start again at once would be counted."""
        if COUNTS_LATE:
            self._sampler.resume()

    def finish(self) -> Mark:
        """Stop; returns the state of the clocks at the end."""
        self._sampler.stop()
        self.short_turns.end()
        end = self._sampler.mark()
        self._add_point(end, last=True)
        return end

    def gil(self, end: Mark) -> GilReading:
        """How the GIL was held, by whom ever, from start to end."""
        samples = end.samples.since(self._first.samples)
        if not gil_enabled():
            return GilReading(samples.ticks, 0, 0.0, 0.0, end.at - self._first.at)
        return estimate(samples, end.at - self._first.at)

    @property
    def children(self) -> float:
        """CPU seconds of child processes so far."""
        return self._children.seconds

    @property
    def by_child(self) -> dict[int, float]:
        """CPU seconds of each child process, as far as it was seen."""
        return self._children.by_child

    def _awake(self) -> None:
        # At once: who waits for the GIL in a short turn would have it back before all is seen.
        self._woken = self.short_turns.end(), core_switches()

    def _look(self, now: float) -> None:
        # On a loaded machine a look takes long because it gets no core, which costs the program
        # nothing. Without a GIL all threads are stopped for it meanwhile.
        clock = time.thread_time if self.had_gil else time.perf_counter
        began = clock()
        mark, before = self._sampler.mark(), self._before
        self._before = mark
        samples = mark.samples.since(before.samples)
        late, short = samples.late > 0 and gil_enabled(), self._woken[0]
        self._due[late] += samples.weight + samples.waited
        self._add_point(mark)
        budget = _LOOK_ALLOWANCE_S + LOOK_BUDGET * (now - self._first.at)
        # Looks at a free GIL are many in a program that waits, and must leave some for the others.
        over = sum(self._spent) > budget or (not late and self._spent[False] > budget / 2)
        if over and not short:
            return
        cpu = mark.process - mark.samples.cpu
        blurred = self._look_at_threads(
            self._due[late], cpu - self._looked[0], late=late, short=short
        )
        if blurred is None:
            self._spent[late] += clock() - began
            return
        self._looked = (cpu, now - self._first.at)
        self.weight += self._due[late]
        self._due[late] = 0.0
        self.looks += 1
        if blurred and self.looks % _LOOKS_PER_SHORT_TURN == 0:
            self.short_turns.begin()
        self._spent[late] += clock() - began

    def _look_at_threads(
        self, weight: float, cpu: float, *, late: bool, short: bool
    ) -> bool | None:
        """Add one sample, before which the program used so many CPU seconds.

        Tells whether in some thread it is unclear which function has the GIL; None: it was not
        seen all at one moment.
        """
        began = time.perf_counter()
        me = threading.get_ident()
        seen = [
            each
            for ident, frame in current_frames().items()
            if ident != me and (each := self._see(ident, frame))
        ]
        moved = self._move(seen, began)
        asked = time.perf_counter()
        for each, on_core in zip(seen, moved, strict=True):
            fresh = each.used > 0.0 or len(seen) <= _ALWAYS_ASKED
            known = on_core and not late
            each.state = NATIVE if known else self._state_of(each, late=late, fresh=fresh)
        if late and any(moved):  # the holder may only have been on its way to wait
            while time.perf_counter() < asked + _CLOCK_SPAN_S:
                pass
            for each, on_core in zip(seen, self._move(seen, asked), strict=True):
                each.state = NATIVE if on_core else each.state
        if gil_enabled() and core_switches() != self._woken[1]:
            return None  # somebody had the GIL meanwhile
        for each in seen:
            each.tally.cpu = each.now
        forced, clear = self._sampler.by_force, False
        if late:
            churn = len(self.threads) - len(seen) > _MANY_ENDED
            ended = max(0.0, cpu - sum(each.used for each in seen)) if churn else 0.0
            clear = find_holder(seen, ended, self._places, forced=forced)
            self.ended += weight * (1.0 - sum(each.holds for each in seen))
        for each in seen:
            tally = each.tally
            tally.looks += 1
            self._places.see(each, forced=forced)
            if each.holds and short and clear:
                tally.short[each.code] = tally.short.get(each.code, 0.0) + each.holds
            function = tally.functions.get(each.code)
            if function is None:
                function = tally.functions[each.code] = Tally()
            self._draw(each, began)
            for sum_ in (tally, function):
                sum_.add(HELD, weight * each.holds, each.line)
                sum_.blurred += 0.0 if clear else weight * each.holds
                sum_.add(each.state, weight * (1.0 - each.holds), each.line)
                if each.waits_for_thread:
                    sum_.add(IDLE, weight * (1.0 - each.holds), 0)
        return any(each.tally.blurred > 0.2 * each.tally.seconds[HELD] for each in seen)

    def _draw(self, each: SeenThread, now: float) -> None:
        """Make the thread's latest bar longer, or begin another; time that it waits has none."""
        if each.holds < _MIN_DRAWN and each.state != NATIVE:
            return
        bars, since, until = each.tally.bars, self._looked[1], now - self._first.at
        if not bars or bars[-1].code is not each.code or bars[-1].end < since:
            bars.append(Bar(since, each.code))
        bars[-1].end = until
        bars[-1].held += (until - since) * each.holds
        bars[-1].worked += (until - since) * (1.0 if each.state == NATIVE else each.holds)

    def _move(self, seen: list[SeenThread], since: float) -> list[bool]:
        """Which threads have been on a core since then, while this one held the GIL."""
        moved = []
        for each in seen:
            cpu = _read(each.clock)
            span = time.perf_counter() - since
            moved.append(cpu - each.now > 0.6 * min(span, _CLOCK_SPAN_S))
            each.used, each.now = each.used + cpu - each.now, cpu
        return moved

    def _state_of(self, each: SeenThread, *, late: bool, fresh: bool) -> int:
        """What a thread does that is not on a core."""
        tally = each.tally
        if fresh or tally.state in (RUNNING, UNKNOWN):
            tally.state = self._states.look(tally.number)
        if tally.state == FOR_GIL:
            return GIL_WAIT
        if tally.state == RUNNING:  # has been woken up, and gets no core yet
            return GIL_WAIT if late else CORE_WAIT
        return OTHER_WAIT

    def _see(self, ident: int, frame: types.FrameType | None) -> SeenThread | None:
        clock, number = clock_of(ident) or (None, ident)
        cpu = _read(clock)
        stack: list[types.CodeType] = []
        code, entry, line, top = None, None, 0, frame
        while frame is not None and len(stack) < _MAX_DEPTH:
            here = frame.f_code
            if (here.co_filename, here.co_name) == self._outside:
                break
            if not self._in_library(here.co_filename) and here.co_name not in PARTS:
                if code is None:
                    code, line = here, frame.f_lineno
                entry = here
            stack.append(here)
            frame = frame.f_back
        if top is None or not stack:
            return None  # the program has ended, or not begun
        if code is None:
            code, line = top.f_code, top.f_lineno
        main = ident == threading.main_thread().ident
        tally = self.threads.get(number)
        if tally is None:
            tally = ThreadTally(number, self._first.watched or 0.0 if main else 0.0)
            tally.main = main
            self.threads[number] = tally
        if entry is not None:
            tally.entries[entry] = tally.entries.get(entry, 0.0) + 1.0
        if len(stack) < _MAX_DEPTH and len(tally.roots) < _MAX_DEPTH:
            tally.roots.update(stack[-_ROOTS:])
        if not tally.name or not tally.looks:
            thread = threading._active.get(ident)  # type: ignore[attr-defined]
            tally.name = getattr(thread, "name", "") or f"thread {number}"
        return SeenThread(tally, clock, cpu, top, code, line)

    def _in_library(self, file: str) -> bool:
        known = self._library.get(file)
        if known is None:
            known = file.startswith(self._folders) and "-packages" not in file
            self._library[file] = known
        return known

    def _add_point(self, mark: Mark, *, last: bool = False) -> None:
        at, step = mark.at - self._first.at, 0.05
        if len(self.curve) > 1:
            step = max(step, self.curve[-1][0] / _POINTS)
        if at - self.curve[-1][0] < step and not last:
            return
        cpu = mark.process - self._first.process - mark.samples.cpu + self._children.read()
        self.curve.append((at, max(cpu, self.curve[-1][1])))
        if len(self.curve) > 2 * _POINTS:
            self.curve = self.curve[::2]


def _read(clock: int | None) -> float:
    try:
        return 0.0 if clock is None else time.clock_gettime(clock)
    except OSError:
        return 0.0  # it has ended
