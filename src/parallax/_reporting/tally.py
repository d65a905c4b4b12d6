"""What an executor tells about the functions that it was given."""

from __future__ import annotations

from dataclasses import dataclass

from parallax._routing.planner import seconds
from parallax._routing.route_choice import RouteChoice

__all__ = ["ExecutorReport", "FunctionReport", "function_report"]


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """How the calls of one function are run.

    Attributes:
        name: the function's qualified name.
        route: "threads" or "processes"; None before the verdict.
        reason: why, in words.
        threads: calls that ended in threads.
        processes: calls that ended in worker processes.
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
        calls = " and ".join(f"{count} in {where}" for where, count in ended.items() if count)
        text = f"{self.name}: {calls or 'no call has ended'}"
        if self.seconds is not None:
            text += f", about {seconds(self.seconds)} each"
        route = self.route or "not decided"
        text += f"; {route}: {self.reason}"
        if self.changes:
            text += f" ({self.changes} change{'s' * (self.changes > 1)} of route)"
        return text


@dataclass(frozen=True, slots=True)
class ExecutorReport:
    """What ``Executor.report`` returns.

    Attributes:
        backend: what was asked for.
        functions: one entry per function and kind of arguments, oldest first; empty unless the
            backend is "auto".
    """

    backend: str
    functions: tuple[FunctionReport, ...]

    def __str__(self) -> str:
        if self.backend != "auto":
            return f"every call goes to {self.backend}: backend={self.backend!r} was asked for"
        if not self.functions:
            return "nothing was submitted yet"
        return "\n".join(map(str, self.functions))


def function_report(choice: RouteChoice) -> FunctionReport:
    """What is to be said of one function.

    Args:
        choice: its choice.
    """
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
