"""What was seen of one thread of a program: over all samples, and in one of them.

Guarantees: sums only grow; bars of a thread are bounded.
"""

from __future__ import annotations

import opcode
from collections import deque

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._profiling.thread_states import RUNNING, UNKNOWN

if TYPE_CHECKING:
    import types

#: A thread that used less CPU time since the last look did not hold the GIL.
_MIN_USED_S = 0.00002
#: Bars of one thread that are kept; of more the oldest are dropped.
_MAX_BARS = 20_000

#: Threads that want the GIL at a place let go of it there by themselves if one was seen to do so
#: for so many that may have been made to. With more a single wrong look counts, with fewer calls
#: that are short compared to the wait after them are not known for what they are.
_MADE_TO = 8

#: Code that is a part of the function that it is written in.
PARTS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})

#: What a thread's time is made of; IDLE is the part of OTHER_WAIT that is for other threads.
HELD, NATIVE, GIL_WAIT, OTHER_WAIT, CORE_WAIT, IDLE = range(6)

#: Modules of the standard library in which a thread waits for another one: for work that is put
#: into a queue, for an event, for an end.
_MEETINGS = (
    "/threading.py",
    "/queue.py",
    "/concurrent/futures/thread.py",
    "/multiprocessing/pool.py",
)


class Tally:
    """Seconds of one thread, or of one function in it, by what was done in them."""

    def __init__(self) -> None:
        self.seconds = [0.0] * 6
        #: those of `HELD` for which it is not certain in which function.
        self.blurred = 0.0
        self.lines: dict[int, float] = {}

    def add(self, state: int, seconds: float, line: int) -> None:
        """Count what one sample stands for."""
        self.seconds[state] += seconds
        if line and state in (HELD, NATIVE):
            self.lines[line] = self.lines.get(line, 0.0) + seconds


class Bar:
    """A time in which a thread worked in one function, without a break that was seen."""

    def __init__(self, begin: float, code: types.CodeType) -> None:
        self.begin = self.end = begin
        self.code = code
        self.held = self.worked = 0.0


class ThreadTally(Tally):
    """One thread since it was first seen."""

    def __init__(self, number: int, cpu: float) -> None:
        super().__init__()
        self.name = ""
        self.main = False
        self.number = number
        self.looks = 0
        self.first_cpu = self.cpu = cpu
        self.state = UNKNOWN
        #: the outermost calls of its stack, and of the program's own functions in it: they tell who
        #: started the thread, and for what.
        self.roots: set[types.CodeType] = set()
        self.entries: dict[types.CodeType, float] = {}
        self.functions: dict[types.CodeType, Tally] = {}
        self.bars: deque[Bar] = deque(maxlen=_MAX_BARS)
        #: samples in which a function was made to let go of the GIL in a short turn.
        self.short: dict[types.CodeType, float] = {}

    def rate(self) -> float:
        """Which part of its work held the GIL so far."""
        held, free = self.seconds[HELD], self.seconds[NATIVE] + self.seconds[CORE_WAIT]
        return (held + 0.001) / (held + free + 0.002)


class SeenThread:
    """One thread in one sample."""

    def __init__(
        self,
        tally: ThreadTally,
        clock: int | None,
        cpu: float,
        top: types.FrameType,
        code: types.CodeType,
        line: int,
    ) -> None:
        self.tally, self.clock, self.top, self.code, self.line = tally, clock, top, code, line
        self.place = (top.f_code, top.f_lineno)
        self.used = cpu - tally.cpu
        self.now = cpu
        self.state = OTHER_WAIT
        self.holds = 0.0

    @property
    def waits_for_thread(self) -> bool:
        """Whether it waits for another thread of the program, and not for the world."""
        file = self.top.f_code.co_filename.replace("\\", "/")
        return self.state == OTHER_WAIT and file.endswith(_MEETINGS)


class Places:
    """At which places in the code threads let go of the GIL by themselves.

    There they are seen doing without it. A place is a line: of the calls in one, one may be too
    short to be seen.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[types.CodeType, int], tuple[int, int]] = {}

    def see(self, each: SeenThread, *, forced: bool) -> None:
        """Count a thread that does without the GIL, or wants it after it was taken by force."""
        by_itself, unclear = self._seen.get(each.place, (0, 0))
        if each.state in (NATIVE, OTHER_WAIT):
            self._seen[each.place] = by_itself + 1, unclear
        elif each.state == GIL_WAIT and forced:
            self._seen[each.place] = by_itself, unclear + 1

    def let_go(self, each: SeenThread) -> bool:
        """Whether who wants the GIL there gave it up by itself, and not in the midst of work."""
        code, at = each.top.f_code, each.top.f_lasti
        operation = opcode.opname[code.co_code[at]] if at >= 0 else ""
        by_itself, unclear = self._seen.get(each.place, (0, 0))
        return not operation.startswith(("JUMP", "RESUME")) and by_itself * _MADE_TO > unclear


def find_holder(seen: list[SeenThread], ended: float, places: Places, *, forced: bool) -> bool:
    """Share out who held the GIL until it was taken: who worked, and wants it back if forced.

    Threads that have ended since the last look used the CPU seconds ``ended``, and have their part.

    Returns whether it was certainly made to let go of it in the midst of its work.
    """
    # On a loaded machine the holder may wait for a core.
    worked = [e for e in seen if e.used > _MIN_USED_S or e.tally.state == RUNNING] or seen
    wanting = [each for each in worked if each.state == GIL_WAIT]
    inside = [each for each in wanting if not places.let_go(each)]
    wanting = inside or wanting
    able = (forced and wanting) or worked
    parts = [max(_MIN_USED_S, each.used) * each.tally.rate() for each in able]
    total = sum(parts) + (0.0 if forced and wanting else ended)
    for each, part in zip(able, parts, strict=True):
        each.holds = part / total
    return forced and bool(inside)
