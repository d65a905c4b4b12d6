"""The rows of the engine benchmark as data, and how samples become its table.

The ratio of a row is the median of parallax over that of the peer, or the other way round where
more is better, of samples that were measured to the end. A goal is reached on the right side of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._engine_measure import NAMES, PARALLAX, PEER, SOCKET
from ._launch import Sample


@dataclass(frozen=True)
class Cell:
    """What is measured together, on each of its sides."""

    name: str
    sides: tuple[str, ...] = (PEER, PARALLAX)
    more: int = 1
    """Samples per round: short measurements vary more, and cost less."""


@dataclass(frozen=True)
class Figure:
    """One measured value, in seconds, and how it is shown."""

    cell: str
    fact: str
    unit: str  # of _UNITS


@dataclass(frozen=True)
class Note:
    """A figure without a goal, printed under its row; with no side, both and their ratio."""

    text: str
    figure: Figure
    side: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    what: str
    against: str
    figure: Figure
    goal: float
    notes: tuple[Note, ...] = ()

    @property
    def more_is_better(self) -> bool:
        return self.figure.unit == "/s"

    def cells(self) -> list[str]:
        return list(dict.fromkeys([self.figure.cell, *(note.figure.cell for note in self.notes)]))


CELLS = {
    cell.name: cell
    for cell in (
        Cell("burst"),
        Cell("latency", (PEER, PARALLAX, SOCKET)),
        Cell("map"),
        Cell("cold_first", more=3),
        Cell("cold_all", more=3),
        Cell("cold_pandas"),
        Cell("second_short", more=3),
        Cell("import", (PEER, PARALLAX, NAMES), more=4),
    )
}

_FORKSERVER = "ProcessPoolExecutor (forkserver)"
ROWS = (
    Row(
        "submits",
        "submits per second of a no-op, 20,000 at once",
        _FORKSERVER,
        Figure("burst", "per_task", "/s"),
        6.0,
    ),
    Row(
        "latency",
        "median submit().result()",
        _FORKSERVER,
        Figure("latency", "median", "us"),
        0.5,
        (Note("a pickled round trip on a socket pair", Figure("latency", "median", "us"), SOCKET),),
    ),
    Row(
        "map",
        "map of 100,000 no-ops, processes forced",
        "multiprocessing.Pool.map (fork)",
        Figure("map", "call", "ms"),
        1.0,
        (Note("first call, with the start of the pool", Figure("map", "cold", "ms")),),
    ),
    Row(
        "cold",
        "cold pool to first result, two workers",
        _FORKSERVER,
        Figure("cold_first", "seconds", "ms"),
        0.6,
        (Note("until both workers have answered", Figure("cold_all", "seconds", "ms")),),
    ),
    Row(
        "pandas",
        "four workers cold, each having used pandas once",
        _FORKSERVER,
        Figure("cold_pandas", "seconds", "ms"),
        0.6,
    ),
    Row(
        "short",
        "second parallel_map of 4 short items, processes forced",
        "creating ProcessPoolExecutor (fork)",
        Figure("second_short", "second", "ms"),
        0.1,
        (
            Note("first", Figure("second_short", "first", "ms")),
            Note("third and later", Figure("second_short", "later", "ms")),
        ),
    ),
    Row(
        "import",
        "import parallax",
        "import concurrent.futures.process",
        Figure("import", "seconds", "ms"),
        1.0,
        (
            Note(
                "lazy; with parallel_map, ProcessPoolExecutor",
                Figure("import", "seconds", "ms"),
                NAMES,
            ),
        ),
    ),
    Row(
        "parent_cpu",
        "parent CPU per no-op task",
        _FORKSERVER,
        Figure("burst", "parent_cpu", "us"),
        0.25,
    ),
)

# From seconds to what is shown.
_UNITS = {
    "/s": lambda seconds: f"{1 / seconds:,.0f}/s",
    "us": lambda seconds: f"{seconds * 1e6:.1f} us",
    "ms": lambda seconds: f"{seconds * 1e3:.2f} ms",
}

Samples = dict[str, list[Sample]]  # by cell


def choose(names: Sequence[str]) -> list[Row]:
    """Rows in the order of the table; an unknown name is a ValueError that lists them."""
    known = [row.name for row in ROWS]
    if unknown := set(names) - set(known):
        raise ValueError(f"unknown row {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return [row for row in ROWS if not names or row.name in names]


def result(row: Row, samples: Samples) -> dict[str, Any]:
    """Everything the table shows of a row, in plain values."""
    found = {
        "name": row.name,
        "what": row.what,
        "against": row.against,
        "goal": f"{'>=' if row.more_is_better else '<='} {row.goal:g}x",
        **_compare(row.figure, samples),
        "notes": [{"text": note.text, **_note(note, samples)} for note in row.notes],
    }
    ratio = found["ratio"]
    found["reached"] = (
        None if ratio is None else ratio >= row.goal if row.more_is_better else ratio <= row.goal
    )
    return found


def _note(note: Note, samples: Samples) -> dict[str, Any]:
    if not note.side:
        return _compare(note.figure, samples)
    value = _median(note.figure, note.side, samples)
    peer = _median(note.figure, PEER, samples)
    return {"value": _show(note.figure, value), "ratio": _ratio(note.figure, peer, value)}


def _compare(figure: Figure, samples: Samples) -> dict[str, Any]:
    peer, ours = (_median(figure, side, samples) for side in (PEER, PARALLAX))
    pairs = zip(
        _values(figure, PEER, samples),
        _values(figure, PARALLAX, samples),
        strict=False,  # the last round may not have got to both
    )
    ratios = [_ratio(figure, *pair) for pair in pairs]
    return {
        "peer": _show(figure, peer),
        "parallax": _show(figure, ours),
        "ratio": _ratio(figure, peer, ours),
        "ratios": [ratio for ratio in ratios if ratio is not None],
    }


def _ratio(figure: Figure, peer: float | None, ours: float | None) -> float | None:
    if peer is None or ours is None:
        return None
    return peer / ours if figure.unit == "/s" else ours / peer


def _values(figure: Figure, side: str, samples: Samples) -> list[float | None]:
    """In the order of the rounds; None where a sample failed."""
    return [
        sample.facts.get(figure.fact) if sample.status == "ok" else None
        for sample in samples.get(figure.cell, ())
        if sample.way == side
    ]


def _median(figure: Figure, side: str, samples: Samples) -> float | None:
    values = [value for value in _values(figure, side, samples) if value is not None]
    return statistics.median(values) if values else None


def _show(figure: Figure, seconds: float | None) -> str:
    return "-" if seconds is None else _UNITS[figure.unit](seconds)


def faults(samples: Samples) -> list[str]:
    """What could not be measured as it should be, in words."""
    found = []
    for cell, taken in samples.items():
        for sample in taken:
            wrong = None
            if sample.status != "ok":
                wrong = f"{sample.status}: {sample.facts.get('error', '')}"
            elif sample.facts["exit"] is None:
                wrong = "its interpreter does not end"
            elif sample.facts.get("workers_seen", 2) < 2:
                wrong = "one of its two workers did nothing in the warm-up"
            if wrong:
                found.append(f"{cell}, {sample.way}: {wrong}")
    return list(dict.fromkeys(found))


_WIDTHS = (54, 12, 12, 7, 13, 8, 7)
_TITLES = ("what", "peer", "parallax", "ratio", "by round", "goal", "reached")


def header() -> str:
    titles = _cells(_TITLES)
    return titles + "\n" + "-" * len(titles)


def lines(found: dict[str, Any]) -> str:
    """A row with its peer and its notes below."""
    return "\n".join([_cells(_columns(found)), *(f"  {text}" for text in _below(found))])


def _columns(found: dict[str, Any]) -> tuple[str, ...]:
    reached = {True: "yes", False: "NO", None: "-"}[found["reached"]]
    ratio, ratios = found["ratio"], found["ratios"]
    return (
        found["what"],
        found["peer"],
        found["parallax"],
        _times(ratio),
        f"{min(ratios):.2f}..{max(ratios):.2f}" if ratios else "-",
        found["goal"],
        reached,
    )


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _below(found: dict[str, Any]) -> list[str]:
    texts = [f"peer: {found['against']}"]
    for note in found["notes"]:
        shown = note["value"] if "value" in note else f"{note['peer']}, {note['parallax']}"
        texts.append(f"{note['text']}: {shown}, {_times(note['ratio'])}")
    return texts


def _cells(texts: Sequence[str]) -> str:
    parts = [
        text.rjust(width) if number else text.ljust(width)
        for number, (text, width) in enumerate(zip(texts, _WIDTHS, strict=True))
    ]
    return " ".join(parts).rstrip()


def markdown(content: dict[str, Any]) -> str:
    """The table of a run's JSON for a document."""
    machine = content["machine"]
    quick = ", a quick run" if content["quick"] else ""
    out = [
        f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}.",
        f"Medians, {content['rounds']} rounds{quick}; {content['disturbance']}.",
        "",
        "| what | against | peer | parallax | ratio | by round | goal | reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in content["rows"]:
        what, *rest = _columns(found)
        out.append(f"| {what} | {found['against']} | {' | '.join(rest)} |")
    notes = [
        f"- {found['what']}: {text}" for found in content["rows"] for text in _below(found)[1:]
    ]
    return "\n".join([*out, "", *notes])
