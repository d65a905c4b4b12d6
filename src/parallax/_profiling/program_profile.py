"""What the samples of a program say: seconds per thread and function, and groups of like threads.

Guarantees: pure; `settle_all`, for once, is the only way from tallies to figures. Seconds of a
thread add up to the time that it was seen; ``held`` is a part of ``ran`` and ``core_wait``,
``idle`` one of ``other_wait``.
"""

from __future__ import annotations

import os

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.records import field, record
from parallax._profiling.thread_tally import (
    CORE_WAIT,
    GIL_WAIT,
    HELD,
    IDLE,
    NATIVE,
    OTHER_WAIT,
    PARTS,
)

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable

    from parallax._profiling.program_sampler import ProgramSampler
    from parallax._profiling.thread_tally import ThreadTally

#: Outermost functions of the standard library, by the end of their file's name, and what has
#: started them: the first that is found counts.
_STARTERS = (
    ("concurrent/futures/thread.py", "_worker", "ThreadPoolExecutor"),
    ("multiprocessing/pool.py", "worker", "ThreadPool"),
    ("multiprocessing/pool.py", "_handle_workers", "multiprocessing.Pool"),
    ("multiprocessing/pool.py", "_handle_tasks", "multiprocessing.Pool"),
    ("multiprocessing/pool.py", "_handle_results", "multiprocessing.Pool"),
    ("multiprocessing/queues.py", "_feed", "multiprocessing queue"),
    ("concurrent/futures/process.py", "run", "ProcessPoolExecutor"),
    ("asyncio/base_events.py", "run_forever", "asyncio event loop"),
    ("threading.py", "_bootstrap_inner", "Thread"),
)
#: Samples that a thread's own CPU clock needs to be better than the count of samples.
MIN_LOOKS = 5
#: A thread is short if the program ran so many times as long.
_FEW = 5
#: Short turns that all other samples count as, where these do not tell which function had the GIL.
_SEEN_AS_SHORT = 1.0


@record
class Spent:
    """Seconds, by what was done in them."""

    ran: float = 0.0  #: on a core
    held: float = 0.0  #: with the GIL
    gil_wait: float = 0.0
    other_wait: float = 0.0  #: for anything but the GIL or a core
    core_wait: float = 0.0  #: ready to run, while all cores were taken
    idle: float = 0.0  #: for another thread of the program: for work, an event, an end

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.ran + self.gil_wait + self.other_wait + self.core_wait

    @property
    def work(self) -> float:
        """Seconds that a core would have been used for, had there been one."""
        return self.ran + self.core_wait

    @property
    def busy(self) -> float:
        """Seconds that it would have taken by itself: work, and waits for the world."""
        return self.work + self.other_wait - self.idle

    def plus(self, other: Spent) -> Spent:
        """The sum of both."""
        return Spent(*(getattr(self, n) + getattr(other, n) for n in Spent.__match_args__))


@record
class FunctionProfile:
    """One function of the program."""

    name: str
    file: str
    line: int  #: where most of its time was seen
    spent: Spent

    @property
    def place(self) -> str:
        """File and line, short."""
        file = os.path.relpath(self.file) if os.path.isabs(self.file) else self.file
        return f"{file if len(file) <= len(self.file) else self.file}:{self.line}"


@record
class ThreadProfile:
    """One thread of the program."""

    name: str
    kind: str  #: what has started it: "main", "Thread", "ThreadPoolExecutor", ...
    entry: str  #: the program's outermost function in it
    main: bool
    spent: Spent
    functions: list[FunctionProfile] = field(default_factory=list)
    #: begin and end, in seconds since the start; seconds at work in between, and with the GIL;
    #: the function.
    bars: list[tuple[float, float, float, float, str]] = field(default_factory=list)


@record
class ThreadGroup:
    """Threads that do the same: of one kind, with one entry."""

    kind: str
    entry: str
    threads: int
    wall: float  #: seconds in which there was at least one that had something to do
    spent: Spent
    functions: list[FunctionProfile]


def settle_all(sampler: ProgramSampler, span: float) -> list[ThreadProfile]:
    """The figures of all threads that were seen in so many seconds."""
    tallies = list(sampler.threads.values())
    # What ended unseen is taken to have been as those of the short threads that were seen.
    brief = [each for each in tallies if each.looks < MIN_LOOKS and not each.main]
    held = sum(each.seconds[HELD] for each in brief)
    for each in brief if held else ():
        for tally in (each, *each.functions.values()):
            tally.seconds[HELD] *= 1.0 + sampler.ended / held
            tally.blurred *= 1.0 + sampler.ended / held
    scale = span / sampler.weight if sampler.weight else 0.0
    return [_settle(each, scale) for each in tallies if each.name]


def _settle(tally: ThreadTally, scale: float) -> ThreadProfile:
    """The figures of one thread; `scale`: seconds for one second of the samples."""
    raw = [seconds * scale for seconds in tally.seconds]
    held, waits = raw[HELD], (raw[GIL_WAIT], raw[OTHER_WAIT])
    able = held + raw[NATIVE] + raw[CORE_WAIT]
    ran = held + raw[NATIVE]
    cpu = tally.cpu - tally.first_cpu
    if tally.looks >= MIN_LOOKS and cpu > 0.0:
        ran = min(cpu, able + sum(waits))
        able = max(able, ran)
    # Time on a core cannot have been a wait.
    left = max(0.0, sum(raw[:IDLE]) - able) / sum(waits) if sum(waits) else 0.0
    kind = _kind(tally)
    waited = waits[0] * left, waits[1] * left
    spent = Spent(ran, min(held, able), *waited, able - ran, raw[IDLE] * left)
    entry = max(tally.entries, key=lambda code: tally.entries[code], default=None)
    return ThreadProfile(
        tally.name,
        kind,
        "" if entry is None else entry.co_name,
        tally.main,
        spent,
        _functions(tally, scale),
        [(bar.begin, bar.end, bar.worked, bar.held, _name(bar.code)) for bar in tally.bars],
    )


def by_function(functions: Iterable[FunctionProfile]) -> list[FunctionProfile]:
    """Sums of those that are the same, the longest at work first."""
    found: dict[tuple[str, str], FunctionProfile] = {}
    for each in functions:
        key = (each.name, each.file)
        same = found.get(key)
        line, spent = each.line, each.spent
        if same is not None:
            line = line if spent.work > same.spent.work else same.line
            spent = spent.plus(same.spent)
        found[key] = FunctionProfile(each.name, each.file, line, spent)
    return sorted(found.values(), key=lambda each: -max(each.spent.work, each.spent.held))


def grouped(threads: Iterable[ThreadProfile], span: float) -> list[ThreadGroup]:
    """Threads that are alike as one, the busiest first."""
    found: dict[tuple[str, str], list[ThreadProfile]] = {}
    for each in threads:
        found.setdefault((each.kind, each.entry), []).append(each)
    groups = []
    for (kind, entry), members in found.items():
        spent = Spent()
        for each in members:
            spent = spent.plus(each.spent)
        # Threads that are short follow each other, others are there together.
        longest = max(each.spent.seconds - each.spent.idle for each in members)
        wall = max(longest, min(span, spent.held))  # one at a time holds the GIL
        if longest * _FEW < span:
            wall = max(wall, min(span, spent.busy))
        functions = by_function(f for each in members for f in each.functions)
        groups.append(ThreadGroup(kind, entry, len(members), wall, spent, functions))
    return sorted(groups, key=lambda group: -max(group.spent.work, group.spent.held))


def _kind(tally: ThreadTally) -> str:
    for file, name, kind in _STARTERS:
        for code in tally.roots:
            if code.co_name == name and code.co_filename.replace("\\", "/").endswith(file):
                return kind
    return "main" if tally.main else "thread"


def _functions(tally: ThreadTally, scale: float) -> list[FunctionProfile]:
    # Who lets go of the GIL by itself is seen in the function that does; short turns tell more.
    short = sum(tally.short.values()) + _SEEN_AS_SHORT
    functions = []
    for code, each in tally.functions.items():
        mine = each.seconds[HELD] * scale
        if tally.blurred:
            told = tally.short.get(code, 0.0) + _SEEN_AS_SHORT * each.blurred / tally.blurred
            mine += (tally.blurred * told / short - each.blurred) * scale
        free, core = each.seconds[NATIVE] * scale, each.seconds[CORE_WAIT] * scale
        gil, other = each.seconds[GIL_WAIT] * scale, each.seconds[OTHER_WAIT] * scale
        line = max(each.lines, key=lambda at: each.lines[at], default=code.co_firstlineno)
        spent = Spent(mine + free, mine, gil, other, core, each.seconds[IDLE] * scale)
        functions.append(FunctionProfile(_name(code), code.co_filename, line, spent))
    return functions


def _name(code: types.CodeType) -> str:
    name: str = getattr(code, "co_qualname", code.co_name)
    for part in PARTS:
        name = name.removesuffix(f".{part}")
    return name.replace("<locals>.", "")
