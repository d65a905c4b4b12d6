"""What is told of an executor: how the calls of each function are run, and why."""

from __future__ import annotations

from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.records import record
from parallax._reporting.recording import Recording
from parallax._reporting.reports import PLACES, Exports, shortened
from parallax._routing.planner import seconds

if TYPE_CHECKING:
    from parallax._routing.route_choice import RouteChoice


@record(frozen=True, slots=True)
class FunctionReport:
    """How the calls of one function are run.

    Attributes:
        name: the function's qualified name.
        route: "threads" or "processes"; None while that is not decided.
        reason: why, in words.
        threads: number of calls that ended in threads.
        processes: number of calls that ended in worker processes.
        seconds: what a call takes on the clock, weighted towards the latest; None before the first.
        cpu_seconds: the same on the CPU clock of its thread.
        changes: how often the route was changed.
    """

    name: str
    route: str | None
    reason: str
    threads: int
    processes: int
    seconds: float | None
    cpu_seconds: float | None
    changes: int

    def __str__(self) -> str:
        ended = {"threads": self.threads, "processes": self.processes}
        counts = [
            f"{count} call{'s' * (count > 1)} {PLACES[where]}"
            for where, count in ended.items()
            if count
        ]
        text = f"`{self.name}`: {' and '.join(counts) or 'no call has ended'}"
        if self.seconds is not None:
            text += f", about {seconds(self.seconds)} each"
        if self.route is None:
            return f"{text}; where further calls run is not decided: {self.reason}"
        text += f"; calls run {PLACES[self.route]}, because {self.reason}"
        if self.changes:
            text += f" (changed {self.changes} time{'s' * (self.changes > 1)})"
        return text


@record(frozen=True, slots=True)
class ExecutorReport(Exports):
    """What the method ``report`` of an executor returns.

    Attributes:
        backend: what was asked for.
        functions: one entry per function and kind of arguments, oldest first; empty unless the
            backend is "auto".
        work: what each worker did since ``options(record=True)`` was asked for; None before.
    """

    backend: str
    functions: tuple[FunctionReport, ...]
    work: Recording | None = None

    def __str__(self) -> str:
        lines = self._ways().split("\n")
        if (work := self.work) is not None and work.workers:
            shares = work.workers.values()
            calls, cpu = sum(w.items for w in shares), sum(w.cpu for w in shares)
            lines.append(
                f"recorded: {calls} calls by {len(shares)} workers in {seconds(work.span)}"
            )
            lines.append(f"cores kept busy: {cpu / max(work.span, 1e-9):.1f}")
            lines.append(f"slowest call: {seconds(max(work.slowest).seconds)}")
        return shortened(lines)

    def _ways(self) -> str:
        """Where calls run, and why; a line for each function."""
        if self.backend == "serial":
            return "every call runs in the calling thread, because backend='serial' was asked for"
        if self.backend in PLACES:
            where = PLACES[self.backend]
            return f"every call runs {where}, because backend={self.backend!r} was asked for"
        if self.backend != "auto":
            return f"every call runs in the {self.backend} that was passed as backend"
        return "\n".join(map(str, self.functions)) or "no call was submitted yet"


def executor_report(engine: Any, recording: Recording | None) -> ExecutorReport:
    backend = engine.backend
    choices = engine.functions.choices() if backend == "auto" else ()
    functions = tuple(map(function_report, choices))
    name = backend if isinstance(backend, str) else type(backend).__name__
    return ExecutorReport(name, functions, recording and recording.settled())


def function_report(choice: RouteChoice) -> FunctionReport:
    known = choice.calls > 0
    return FunctionReport(
        choice.name,
        choice.route,
        choice.stay or choice.reason,
        choice.ended["threads"],
        choice.ended["processes"],
        choice.wall if known else None,
        choice.cpu if known else None,
        choice.changes,
    )
