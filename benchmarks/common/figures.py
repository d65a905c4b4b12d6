"""The parts of a benchmark that compares parallax with a peer figure by figure, and its table.

A cell is what is measured together, a figure one of its values, a row a figure with its goal. The
ratio of a row is the median of parallax over that of the peer, or the other way round where more
is better, of samples that were measured to the end. A goal is reached on the right side of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.command import aligned, underlined
from benchmarks.common.launch import Sample
from benchmarks.common.pools import PARALLAX, PEER

Samples = dict[str, list[Sample]]  # by cell


@dataclass(frozen=True)
class Cell:
    """What is measured together, on each of its sides."""

    name: str
    sides: tuple[str, ...] = (PEER, PARALLAX)
    more: int = 1
    """Samples per round: short measurements vary more, and cost less."""


@dataclass(frozen=True)
class Figure:
    """One measured value, and how it is shown."""

    cell: str
    fact: str
    unit: str  # of _UNITS


@dataclass(frozen=True)
class Note:
    """A figure without a goal, printed under its row."""

    text: str
    fact: str
    """In the unit of the row."""
    side: str = ""
    """Whose value is shown; without one both values are, and their ratio."""
    cell: str = ""
    """Where it is measured; without one, where the row is."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    what: str
    against: str
    figure: Figure
    goal: float
    notes: tuple[Note, ...] = ()
    peers: tuple[str, ...] = (PEER,)
    """The best of these sides is what the row is compared with."""
    absolute: bool = False
    """The goal is for the value of parallax itself, and not for the ratio."""
    goal_text: str = ""
    """The goal as a reader knows it; default its number."""

    @property
    def more_is_better(self) -> bool:
        return self.figure.unit == "/s"

    def cells(self) -> list[str]:
        return list(
            dict.fromkeys([self.figure.cell, *(note.cell for note in self.notes if note.cell)])
        )

    def figure_of(self, note: Note) -> Figure:
        return Figure(note.cell or self.figure.cell, note.fact, self.figure.unit)


# From seconds, bytes or multiples to what is shown.
_UNITS = {
    "/s": lambda seconds: f"{1 / seconds:,.0f}/s",
    "us": lambda seconds: f"{seconds * 1e6:.1f} us",
    "ms": lambda seconds: f"{seconds * 1e3:.2f} ms",
    "MB": lambda number: f"{number / 1e6:.0f} MB",
    "copies": lambda multiple: f"{multiple:.2f} copies",
}

_WIDTHS = (54, 12, 12, 7, 13, 8, 7)
_TITLES = ("what", "peer", "parallax", "ratio", "by round", "goal", "reached")


@dataclass(frozen=True)
class Table:
    """The rows of a benchmark, and how samples become text.

    Args:
        cells: those that are not measured on the usual sides, or more than once a round.
        rows: what is shown, in this order.
        digits: decimals of a ratio.
    """

    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    digits: int = 2

    def cell(self, name: str) -> Cell:
        return next((cell for cell in self.cells if cell.name == name), Cell(name))

    def header(self) -> str:
        return underlined(aligned(_TITLES, _WIDTHS))

    def lines(self, found: dict[str, Any]) -> str:
        """A row with its peer and its notes below."""
        return "\n".join(
            [aligned(self._columns(found), _WIDTHS), *(f"  {text}" for text in self._below(found))]
        )

    def markdown(self, content: dict[str, Any]) -> str:
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
            what, *rest = self._columns(found)
            out.append(f"| {what} | {found['against']} | {' | '.join(rest)} |")
        notes = [
            f"- {found['what']}: {text}"
            for found in content["rows"]
            for text in self._below(found)[1:]
        ]
        return "\n".join([*out, "", *notes])

    def _columns(self, found: dict[str, Any]) -> tuple[str, ...]:
        reached = {True: "yes", False: "NO", None: "-"}[found["reached"]]
        ratio, ratios = found["ratio"], found["ratios"]
        by_round = "-"
        if ratios:
            by_round = f"{min(ratios):.{self.digits}f}..{max(ratios):.{self.digits}f}"
        return (
            found["what"],
            found["peer"],
            found["parallax"],
            self._times(ratio),
            by_round,
            found["goal"],
            reached,
        )

    def _below(self, found: dict[str, Any]) -> list[str]:
        texts = [f"peer: {found['against']}"]
        for note in found["notes"]:
            shown = note["value"] if "value" in note else f"{note['peer']}, {note['parallax']}"
            texts.append(f"{note['text']}: {shown}, {self._times(note['ratio'])}")
        return texts

    def _times(self, ratio: float | None) -> str:
        return "-" if ratio is None else f"{ratio:.{self.digits}f}x"


def result(row: Row, samples: Samples) -> dict[str, Any]:
    """Everything the table shows of a row, in plain values."""
    compared = _compare(row.figure, row.peers, samples)
    unit = f" {row.figure.unit}" if row.absolute else "x"
    value = _median(row.figure, PARALLAX, samples) if row.absolute else compared["ratio"]
    reached = None
    if value is not None:
        reached = value >= row.goal if row.more_is_better else value <= row.goal
    return {
        "name": row.name,
        "what": row.what,
        "against": row.against,
        "goal": f"{'>=' if row.more_is_better else '<='} {row.goal_text or f'{row.goal:g}'}{unit}",
        **compared,
        "notes": [{"text": note.text, **_note(note, row, samples)} for note in row.notes],
        "reached": reached,
    }


def _note(note: Note, row: Row, samples: Samples) -> dict[str, Any]:
    figure = row.figure_of(note)
    if not note.side:
        return _compare(figure, row.peers, samples)
    value = _median(figure, note.side, samples)
    peer = _best([_median(figure, side, samples) for side in row.peers])
    return {"value": _show(figure, value), "ratio": _ratio(figure, peer, value)}


def _compare(figure: Figure, peers: Sequence[str], samples: Samples) -> dict[str, Any]:
    peer = _best([_median(figure, side, samples) for side in peers])
    ours = _median(figure, PARALLAX, samples)
    theirs = [values for side in peers if (values := _values(figure, side, samples))]
    # Not strict: the last round may not have got to all.
    rounds = zip(_values(figure, PARALLAX, samples), *theirs, strict=False) if theirs else ()
    ratios = [_ratio(figure, _best(others), value) for value, *others in rounds]
    return {
        "peer": _show(figure, peer),
        "parallax": _show(figure, ours),
        "ratio": _ratio(figure, peer, ours),
        "ratios": [ratio for ratio in ratios if ratio is not None],
    }


def _best(values: Sequence[float | None]) -> float | None:
    """Of seconds or bytes, also where "/s" is shown."""
    return min((value for value in values if value is not None), default=None)


def _ratio(figure: Figure, peer: float | None, ours: float | None) -> float | None:
    if peer is None or ours is None:
        return None
    return peer / ours if figure.unit == "/s" else ours / peer


def _values(figure: Figure, side: str, samples: Samples) -> list[float | None]:
    """In the order of the rounds; None where a sample failed."""
    return [
        sample.facts.get(figure.fact) if sample.status == "ok" else None
        for sample in samples.get(figure.cell, ())
        if sample.side == side
    ]


def _median(figure: Figure, side: str, samples: Samples) -> float | None:
    values = [value for value in _values(figure, side, samples) if value is not None]
    return statistics.median(values) if values else None


def _show(figure: Figure, value: float | None) -> str:
    return "-" if value is None else _UNITS[figure.unit](value)


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
                found.append(f"{cell}, {sample.side}: {wrong}")
    return list(dict.fromkeys(found))
