"""What would make a profiled program faster: one sentence for each thing that runs in it.

Guarantees: pure; a sentence is made of what was seen, and names the function, the figure and the
change. Assumption: work that is shared out does not depend on its neighbours, which is for the
reader to judge.
"""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.records import record
from parallax._profiling.program_profile import by_function
from parallax._routing.planner import PROCESS_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from parallax._profiling.program_profile import FunctionProfile, ThreadGroup

#: A gain that is worth a change of the program.
_WORTH = 1.15
#: Shares of a group's time from which one thing explains it.
_MOST, _MUCH = 0.8, 0.2
#: Seconds, and share of the run, of work from which a loop is hot.
_HOT_S, _HOT_SHARE = 0.05, 0.3
#: CPU seconds of child processes per second of the run from which they are told, and how many are.
_CHILD_SHARE, _TOLD_CHILDREN = 0.1, 8

#: What to write instead.
_REMEDIES = {
    "ThreadPoolExecutor": "change `ThreadPoolExecutor` to `parallax.Executor`",
    "ThreadPool": "change `ThreadPool(...).map` to `parallax.parallel_map`",
    "Thread": "give its work to a `parallax.Executor` instead of a `Thread`",
    "asyncio event loop": "call it by `loop.run_in_executor(parallax.Executor(), ...)`",
    "main": "call `parallax.parallel_map` where it is called in a loop",
}
_HELPERS = {"ProcessPoolExecutor", "multiprocessing.Pool", "multiprocessing queue"}


@record
class Advice:
    """One sentence, with its figures."""

    kind: str
    subject: str
    text: str
    speed_up: float = 1.0  #: how many times as fast the change would make this part, 1: not at all


def advise(
    groups: list[ThreadGroup],
    *,
    span: float,
    children: float,
    cores: int,
    gil: bool,
    by_child: Mapping[int, float] | None = None,
) -> list[Advice]:
    """What was seen and what would help, the largest part of the program first."""
    found = [
        advice
        for group in groups
        if (advice := _of_main(group, span, cores, gil=gil)
            if group.kind in {"main", "asyncio event loop"}
            else _of_threads(group, cores, gil=gil))
    ]  # fmt: skip
    helpers = [group.kind for group in groups if group.kind in _HELPERS - {"multiprocessing queue"}]
    many = children > max(_HOT_S, _CHILD_SHARE * span)
    if helpers or many:
        each = [cpu / span for cpu in (by_child or {}).values()]
        place = 0 if many else len(found)
        found.insert(place, _of_processes(helpers, children / span, sorted(each), cores))
    if gil and cores > 1 and not any(advice.speed_up > 1.0 for advice in found):
        found[:0] = _of_all(groups)
    if not found:
        found.append(Advice("program", "", "nothing in this program worked long enough to tell."))
    return found


def _of_threads(group: ThreadGroup, cores: int, *, gil: bool) -> Advice | None:
    spent, many = group.spent, group.threads
    if group.kind in _HELPERS or spent.busy < _HOT_S:
        return None
    busiest = _busiest(group)
    name = f"`{busiest.name}` ({busiest.place})" if busiest else f"`{group.entry or group.kind}`"
    whose = f"{group.kind}, {many} thread{'s' if many > 1 else ''}"
    busy = spent.busy
    held, waits = spent.held / busy, 1.0 - spent.work / busy
    processes = _speed_up(group, cores, many)
    if waits > _MOST and spent.gil_wait < _MUCH * busy:
        text = (
            f"{whose}: waits {waits:.0%} of its time, and not for the GIL: threads are right, more "
            "of them wait for more things at once, if that is not one lock."
        )
        return Advice(group.kind, group.entry, text)
    if gil and held > _MUCH and processes > _WORTH:
        change = _REMEDIES.get(group.kind, _REMEDIES["Thread"])
        text = (
            f"{whose}: {name} holds the GIL {held:.0%} of its time: processes would make this "
            f"{processes:.1f} times as fast on {cores} cores; {change}."
        )
        return Advice(group.kind, group.entry, text, processes)
    if gil and held > _MUCH:
        if cores > 1 and spent.gil_wait > _MUCH * busy:
            return None  # not by itself
        text = f"{whose}: {name} holds the GIL {held:.0%} of its time, "
        text += (
            "but there is only one core: nothing here makes it faster."
            if cores == 1
            else "but is at work too little for processes to gain much."
        )
        return Advice(group.kind, group.entry, text)
    used = spent.ran / group.wall if group.wall else 0.0
    busiest = max(group.functions, key=lambda f: f.spent.work - f.spent.held, default=None)
    name = f"`{busiest.name}` ({busiest.place})" if busiest else name
    free = f"works without the GIL {1 - held:.0%} of its time" if gil else "runs without any GIL"
    text = f"{whose}: {name} {free}: threads are right, and kept {used:.1f} of {cores} cores busy"
    more = cores / many if many < cores else 1.0
    if more > _WORTH:
        text += f"; {cores} threads would make this up to {more:.1f} times as fast"
    elif spent.core_wait > _MUCH * busy:
        text += "; it waited for a core, which other work had"
    return Advice(group.kind, group.entry, text + ".", more)


def _of_main(group: ThreadGroup, span: float, cores: int, *, gil: bool) -> Advice | None:
    function = _busiest(group)
    if function is None:
        return None
    spent = function.spent
    work = max(spent.work, spent.held)
    if max(group.spent.work, group.spent.held) < max(_HOT_S, _HOT_SHARE * span):
        return None
    if work < max(_HOT_S, _HOT_SHARE * span):
        return _of_many(group, function, gil=gil)
    held = spent.held / work
    gain = 1.0 / (1.0 - work / span * (1.0 - 1.0 / (PROCESS_SHARE * cores)))
    where = "the event loop's thread" if group.kind != "main" else "one thread"
    text = f"hot loop: `{function.name}` ({function.place}) kept {where} busy for {work:.1f} s"
    text += f" and held the GIL {held:.0%} of that" if gil else ""
    if gain < _WORTH:
        return Advice(group.kind, function.name, text + "; there is only one core to use.")
    means = "processes" if gil and held > _MUCH else "threads"
    text += (
        f": {means} would make the program {gain:.1f} times as fast on {cores} cores if its turns "
        f"do not depend on each other; {_REMEDIES[group.kind]}."
    )
    return Advice(group.kind, function.name, text, gain)


def _of_many(group: ThreadGroup, function: FunctionProfile, *, gil: bool) -> Advice:
    work = max(group.spent.work, group.spent.held)
    held = f" and held the GIL {group.spent.held / work:.0%} of that" if gil else ""
    text = (
        f"main thread: many functions kept it busy for {work:.1f} s{held}, none of them long: "
        f"`{function.name}` ({function.place}) has {function.spent.work / work:.0%}. No one loop "
        "is to be changed; parts of the program that do not depend on each other could run in "
        "processes of their own."
    )
    return Advice(group.kind, function.name, text)


def _of_all(groups: list[ThreadGroup]) -> list[Advice]:
    """Threads of several kinds take turns, none of them worth a change by itself."""
    work = sum(group.spent.work for group in groups)
    waited = sum(group.spent.gil_wait for group in groups)
    functions = by_function(f for group in groups for f in group.functions)
    if waited < max(_HOT_S, _MOST * work) or not functions:
        return []
    first = max(functions, key=lambda each: each.spent.held)
    held = first.spent.held / max(1e-9, sum(group.spent.held for group in groups))
    text = (
        f"all threads: they worked for {work:.1f} s and waited {waited:.1f} s for the GIL, which "
        f"one at a time can hold; `{first.name}` ({first.place}) had it most, {held:.0%} of the "
        "time that it was held. More threads change nothing: run more processes of this program, "
        "or such functions in processes."
    )
    return [Advice("program", first.name, text)]


def _of_processes(helpers: list[str], used: float, each: list[float], cores: int) -> Advice:
    kind = helpers[0] if helpers else "processes"
    text = f"{kind}: child processes kept {used:.1f} of {cores} cores busy on average"
    if len(each) > 1:
        told = [f"{share:.2f}" for share in each[: -_TOLD_CHILDREN - 1 : -1]]
        rest = len(each) - len(told)
        text += f" (one by one: {', '.join(told)}{f' and {rest} more' if rest else ''})"
    if used > _MOST * cores:
        text += "; that is nearly all there are."
    else:
        text += "; the rest of the time they waited or had ended."
        if helpers:
            text += (
                " Larger pieces for each call (`chunksize`), or `parallax.parallel_map`, which "
                "sizes them by time, would help."
            )
    return Advice(kind, "", f"{text} Functions in child processes are not sampled.")


def _busiest(group: ThreadGroup) -> FunctionProfile | None:
    """Who used the GIL most; who worked most, if nobody did."""
    held = sum(each.spent.held for each in group.functions)
    if held > _MUCH * group.spent.work:
        return max(group.functions, key=lambda each: each.spent.held, default=None)
    return max(group.functions, key=lambda each: each.spent.work, default=None)


def _speed_up(group: ThreadGroup, cores: int, many: int) -> float:
    """How many times as fast worker processes would be: as many as there are threads, or cores."""
    work, wait = group.spent.work, group.spent.busy - group.spent.work
    work = max(work, group.spent.held)
    alone = max((work + wait) / max(many, cores), work / cores) / PROCESS_SHARE
    return min(group.wall / alone, PROCESS_SHARE * cores) if alone else 1.0
