"""The report of `parallax profile`: as text for people, as JSON for programs.

Guarantees: plain ASCII within 100 columns, apart from names of the program; figures that this
system does not tell are said to be missing.
"""

from __future__ import annotations

import functools

from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.records import record

if TYPE_CHECKING:
    import textwrap
    from collections.abc import Callable
    from typing import Any

    from parallax._cli.profile_advice import Advice
    from parallax._profiling.program_profile import FunctionProfile, Spent, ThreadProfile
else:
    textwrap = lazy_module("textwrap")

#: Of the bars in the page.
_COLUMNS = (
    *("worker", "begin", "wall", "cpu", "first", "items", "arrived", "bytes_in", "bytes_out"),
    "label",
)
#: Rows of a table at most.
_ROWS = 12
#: Figures of cores over time that fit a line.
_FIGURES = 10


@record
class ProgramReport:
    """One run of a program."""

    program: str
    python: str
    seconds: float
    cpu_seconds: float
    child_cpu_seconds: float
    by_child: dict[int, float]  #: CPU seconds of each child process, by its id
    cores: int
    cores_over_time: list[tuple[float, float]]  #: end of each span in seconds, cores used in it
    gil: bool
    gil_held: float | None  #: share of the time in which some thread held it
    gil_error: float
    threads: list[ThreadProfile]
    functions: list[FunctionProfile]
    advice: list[Advice]
    missing: list[str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; docs/profile.md has the schema."""
        return {
            "schema": 1,
            "program": self.program,
            "python": self.python,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "child_cpu_seconds": self.child_cpu_seconds,
            "children": [{"pid": pid, "cpu_seconds": cpu} for pid, cpu in self.by_child.items()],
            "cores": self.cores,
            "cores_used": self.cores_used,
            "cores_over_time": self.cores_over_time,
            "gil": {"enabled": self.gil, "held": self.gil_held, "error": self.gil_error},
            "threads": [
                {"name": each.name, "kind": each.kind, "entry": each.entry, **_seconds(each.spent)}
                for each in self.threads
            ],
            "functions": [
                {"name": f.name, "file": f.file, "line": f.line, **_seconds(f.spent)}
                for f in self.functions
            ],
            "advice": [
                {"kind": a.kind, "subject": a.subject, "text": a.text, "speed_up": a.speed_up}
                for a in self.advice
            ],
            "missing": self.missing,
        }

    def to_page(self) -> dict[str, Any]:
        """For the page of timelines: a lane for each thread, a bar where it worked."""
        threads = sorted((t for t in self.threads if t.bars), key=lambda t: (not t.main, t.bars[0]))
        workers: list[dict[str, Any]] = []
        chunks: dict[str, list[int]] = {name: [] for name in _COLUMNS}
        labels: dict[str, int] = {}
        for lane, each in enumerate(threads):
            begin, end = each.bars[0][0], each.bars[-1][1]
            place: dict[str, Any] = {"name": each.name, "route": "loop" if each.main else "threads"}
            busy = {"busy": each.spent.work, "cpu": each.spent.ran, "items": len(each.bars)}
            workers.append({**place, "started": begin, "begin": begin, "end": end, **busy})
            for number, (start, stop, worked, held, name) in enumerate(each.bars):
                share = held / worked if worked else 0.0
                label = f"{name}, {share:.0%} with the GIL" if self.gil else name
                wall, at = round((stop - start) * 1e6), round(start * 1e6)
                values = (lane, at, wall, round(worked * 1e6), number, 1, at + wall, 0, 0)
                for column, value in zip(
                    _COLUMNS, (*values, labels.setdefault(label, len(labels))), strict=True
                ):
                    chunks[column].append(value)
        head, *lines = self.text(str).split("\n")
        return {
            "title": head,
            "lines": lines[: lines.index("", 3)],
            "seconds": self.seconds,
            "cores": self.cores,
            "noun": "function",
            "workers": workers,
            "chunks": chunks,
            "labels": list(labels),
            "changes": [],
            "dropped": 0,
            "placed": 0,
        }

    @property
    def cores_used(self) -> float:
        """On average."""
        return (self.cpu_seconds + self.child_cpu_seconds) / max(self.seconds, 1e-9)

    def text(self, bold: Callable[[str], str]) -> str:
        """For people; ``bold`` makes a heading."""
        held = "this Python has no GIL"
        if self.gil:
            held = "GIL: not told"
            if self.gil_held is not None:
                held = f"GIL held {self.gil_held:.0%} of the time"
        lines = [
            bold(f"parallax profile: {self.program}: {self.seconds:.1f} s"),
            f"{self.cores_used:.1f} of {self.cores} cores used, {held}",
            *self._curve(),
            "",
            bold("What would help"),
        ]
        for each in self.advice:
            # Paths are kept whole, to be clicked at.
            lines += textwrap.TextWrapper(
                98, "- ", "  ", break_long_words=False, break_on_hyphens=False
            ).wrap(each.text)
        lines += ["", *_table("thread", _threads(self.threads), gil=self.gil)]
        functions = [(f"{f.name}  {f.place}", f.spent) for f in self.functions]
        lines += ["", *_table("function", functions, gil=self.gil)]
        if self.missing:
            lines += ["", f"Not told by this system: {', '.join(self.missing)}."]
        return "\n".join(lines)

    def _curve(self) -> list[str]:
        if len(self.cores_over_time) < 2:
            return []
        end = self.cores_over_time[-1][0]
        sums, spans, before = [0.0] * _FIGURES, [1e-9] * _FIGURES, 0.0
        for at, cores in self.cores_over_time:
            place = min(_FIGURES - 1, int((before + at) / 2 / end * _FIGURES))
            sums[place] += cores * (at - before)
            spans[place] += at - before
            before = at
        figures = " ".join(f"{s / t:.1f}" for s, t in zip(sums, spans, strict=True) if t > 1e-6)
        return [f"cores used over time, {end / _FIGURES:.2f} s each:  {figures}"]


def _threads(threads: list[ThreadProfile]) -> list[tuple[str, Spent]]:
    """A row for each thread; one for all that are alike if there are many of them."""
    alike: dict[tuple[str, str], list[ThreadProfile]] = {}
    for each in threads:
        alike.setdefault((each.kind, each.entry), []).append(each)
    rows = []
    for (kind, entry), members in alike.items():
        if len(members) <= _ROWS:
            rows += [(each.name, each.spent) for each in members]
        else:
            spent = functools.reduce(lambda a, b: a.plus(b), (each.spent for each in members))
            rows.append((f"{len(members)} of {kind}({entry})", spent))
    return rows


def _seconds(spent: Spent) -> dict[str, float]:
    return {
        "ran_seconds": spent.ran,
        "held_gil_seconds": spent.held,
        "waited_for_gil_seconds": spent.gil_wait,
        "waited_for_other_seconds": spent.other_wait,
        "waited_for_threads_seconds": spent.idle,
        "waited_for_core_seconds": spent.core_wait,
    }


def _table(head: str, rows: list[tuple[str, Spent]], *, gil: bool) -> list[str]:
    """Seconds by what was done in them, the rows that were at work longest."""
    if not rows:
        return []
    columns = [("ran", 8), *([("held GIL", 10)] if gil else []), ("no core", 9)]
    columns += [("wait GIL", 10)] if gil else []
    columns += [("wait else", 11)]
    lines = [f"{head:<52}" + "".join(f"{name:>{width}}" for name, width in columns)]
    rows = sorted(rows, key=lambda row: -max(row[1].work, row[1].held))
    for name, spent in rows[:_ROWS]:
        values = [spent.ran, spent.core_wait, spent.other_wait]
        if gil:
            values = [spent.ran, spent.held, spent.core_wait, spent.gil_wait, spent.other_wait]
        short = name if len(name) <= 51 else f"{name[:20]}...{name[-28:]}"
        figures = (f"{v:>{w - 2}.2f} s" for v, (_, w) in zip(values, columns, strict=True))
        lines.append(f"{short:<52}" + "".join(figures))
    if len(rows) > _ROWS:
        lines.append(f"and {len(rows) - _ROWS} more")
    return lines
