"""When a stall is reported, and in which words.

A stall is a time in which something runs and nothing ends. Each is reported once: the next one
begins when something has ended.

Guarantees: pure; the time is a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

from parallax._core.light_stdlib import NamedTuple

#: Workers whose stacks are in the message. More fill the log, and nobody reads them.
MAX_REPORTED_WORKERS = 8

#: Checks per limit while nothing is known to be due. More cost wake-ups, fewer report later.
CHECKS_PER_LIMIT = 4


class WorkerSnapshot(NamedTuple):
    """What a worker is doing."""

    #: for example "worker process 123".
    who: str
    #: of all its threads; "" if unknown.
    stack: str = ""
    #: finished items of its chunk; None if unknown.
    done: int | None = None


class InFlight(NamedTuple):
    """Something that has begun and has not ended."""

    #: for example "item 3" in "worker process 123".
    what: str
    who: str
    #: seconds since it began.
    age: float
    #: "" if unknown.
    stack: str = ""


class StallDetector:
    """Decides when a stall is reported: ``limit`` seconds, above 0, without an end make one."""

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit
        self._since: float | None = None
        self._reported = False
        #: when to check next.
        self.due = now + limit

    def is_stalled(self, quiet: float | None, now: float) -> bool:
        """Whether to report a stall now, if ``quiet`` since then; see ``StallView``."""
        self.due = now + self._limit / CHECKS_PER_LIMIT
        if quiet is None:
            self._since, self._reported = None, False
            return False
        since = self._since
        if self._reported and since is not None and quiet < since + self._limit:
            return False  # what had ended since would have done so after the report
        self._since, self._reported = quiet, False
        due = quiet + self._limit
        if now < due:
            self.due = due
            return False
        self._reported = True
        return True


def stall_message(name: str, silent: float, running: Sequence[InFlight], queued: int | None) -> str:
    """The message for a stall.

    ``name`` is, for example, "item of `work`"; ``silent`` seconds have passed since something
    ended; ``queued`` items or calls have not begun, None if unknown.
    """
    lines = [f"no {name} has finished for {_seconds(silent)}; still running:"]
    for each in sorted(running, key=lambda each: -each.age)[:MAX_REPORTED_WORKERS]:
        lines.append(f"  {each.what} in {each.who}, for {_seconds(each.age)}")
        lines += [f"    {line}" for line in each.stack.splitlines()]
    if len(running) > MAX_REPORTED_WORKERS:
        lines.append(f"  and {len(running) - MAX_REPORTED_WORKERS} more")
    if queued:
        lines.append(f"  {queued} more {'is' if queued == 1 else 'are'} waiting to start")
    lines.append("  (stall_warn sets the seconds until this warning; stall_warn=0 turns it off)")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
