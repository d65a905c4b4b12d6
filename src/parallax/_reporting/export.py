"""Reports for machines and browsers: plain values, JSON, a table, a timeline, trace events.

The schema is in docs/reports.md; ``SCHEMA_VERSION`` grows when a key goes or changes its meaning.

Guarantees: text of the program (names, reasons, notes) is escaped wherever it is shown.
"""

from __future__ import annotations

import json
import math
import os
import pkgutil
from html import escape
from typing import Any

from parallax._core.cores import usable_cores
from parallax._reporting import recording

SCHEMA = "parallax.report"
SCHEMA_VERSION = 1

#: Points of the curve of busy cores in a trace.
TRACE_POINTS = 500


def as_dict(report: Any) -> dict[str, Any]:
    kind = "map" if hasattr(report, "callable") else "executor"
    head = {"schema": SCHEMA, "version": SCHEMA_VERSION, "kind": kind}
    found = _map_fields(report) if kind == "map" else _executor_fields(report)
    return _finite({**head, **found})  # type: ignore[no-any-return]


def _map_fields(report: Any) -> dict[str, Any]:
    seen, last = report.measured, report.changes[-1:]
    return {
        "callable": report.callable,
        "backend": report.backend,
        "route": report.route,
        "workers": report.workers,
        "reason": report.reason,
        "explained": report.explained,
        "ended": report.ended,
        "cores_busy": report.cores_busy,
        "seconds": {
            "wall": report.seconds,
            "predicted": last[0].predicted if last else None,
            "cpu": report.cpu_seconds,
            "starting": report.work.starting,
            "packing": report.packing,
            "idle": report.work.idle,
            "looking": report.looking,
        },
        "items": {
            "finished": report.items,
            "run": sum(each.items for each in list(report.work.workers.values())),
            "raised": report.raised,
            "run_again": report.retried,
        },
        "bytes": {
            "sent": report.bytes_in,
            "received": report.bytes_out,
            "shared": report.bytes_once,
            "spared": report.bytes_spared,
        },
        "losses": {"died": report.workers_lost, "recycled": report.workers_recycled},
        "measured": None if seen is None else _measured(seen),
        "estimates": dict(report.costs),
        "changes": [_fields(each) for each in report.changes],
        "reads": list(report.reads),
        "writes": list(report.writes),
        "start": report.start,
        "notes": list(report.notes),
        **_work(report.work),
    }


def _executor_fields(report: Any) -> dict[str, Any]:
    functions = [_fields(each) for each in report.functions]
    found: dict[str, Any] = {"backend": report.backend, "functions": functions, "seconds": None}
    if (work := report.work) is not None:
        cpu = sum(each.cpu for each in work.workers.values())
        found["seconds"] = {"wall": work.span, "cpu": cpu, "idle": work.idle}
    return {**found, **_work(work)}


def _measured(seen: Any) -> dict[str, Any]:
    waiting, held = seen.waiting, seen.held
    return {
        "items": seen.items,
        "wall": seen.wall,
        "cpu": seen.cpu,
        "waiting": waiting,
        "holding_gil": held,
        "free_of_gil": None if held is None else max(0.0, 1.0 - waiting - held),
        "gil_error": seen.error,
        "remembered": seen.remembered,
    }


def _work(work: recording.Recording | None) -> dict[str, Any]:
    work = work and work.settled()
    if work is None:
        return {"slowest": [], "by_worker": [], "deaths": [], "recorded": None}
    kept, shares = work.chunks, list(work.workers.values())
    return {
        "slowest": [each._asdict() for each in sorted(work.slowest, reverse=True)],
        "by_worker": [_worker(each) for each in shares],
        "deaths": [_death(each, shares[each.worker].name) for each in work.deaths],
        "recorded": None
        if kept is None
        else {"chunks": len(kept), "dropped": work.dropped, "placed": work.placed},
    }


def _worker(share: recording.WorkerShare) -> dict[str, Any]:
    shown = ("name", "route", "started", "begin", "end", "busy", "cpu", "items")
    return {name: getattr(share, name) for name in shown}


def _death(death: recording.WorkerDeath, worker: str | int) -> dict[str, Any]:
    first = None if death.first < 0 else death.first
    return {**death._asdict(), "worker": worker, "first": first}


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__match_args__}


def _finite(value: Any) -> Any:
    """The same, with None for figures that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(report: Any, indent: int | None = None) -> str:
    return json.dumps(as_dict(report), indent=indent)


def as_html(report: Any) -> str:
    """A report as a table for notebooks: a row for each line of its text."""
    head, *lines = str(report).split("\n")
    rows = []
    for line in lines:
        name, colon, text = line.strip().partition(": ")
        cells = (name, text) if colon and len(name) < 40 else ("", line.strip())
        texts = "".join(f"<td style='text-align:left'>{escape(each)}</td>" for each in cells)
        rows.append(f"<tr>{texts}</tr>")
    return f"<div><strong>{escape(head)}</strong><table>{''.join(rows)}</table></div>"


# -- files -----------------------------------------------------------------------------------------


def write_page(report: Any, path: str | os.PathLike[str]) -> None:
    """Write the timeline of what was recorded as one page."""
    work = _recorded(report, "to_html")
    lane_of = recording.lane_numbers(work)
    head, *lines = [line.strip() for line in str(report).split("\n")]
    if not hasattr(report, "callable"):
        calls = sum(each.items for each in work.workers.values())
        lines = [head, *lines]
        many = "s" * (len(work.workers) != 1)
        head = f"{calls} calls by {len(work.workers)} worker{many} of an executor"
    shown = {
        "title": head,
        "lines": lines,
        "seconds": getattr(report, "seconds", 0.0),
        "cores": usable_cores(),
        "noun": "item" if hasattr(report, "callable") else "call",
        "workers": [_worker(each) for each in recording.lanes(work)],
        "chunks": recording.kept_columns(work),
        "changes": [_fields(each) for each in getattr(report, "changes", ())],
        "deaths": [_death(each, lane_of[each.worker]) for each in work.deaths],
        "dropped": work.dropped,
        "placed": work.placed,
    }
    write_shown(shown, path)


def write_shown(shown: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the page for what the script in it reads; with ``labels``, ``chunks`` name theirs."""
    page = (pkgutil.get_data(__package__, "timeline.html") or b"").decode()
    # No text of the program can end the element that the data is in.
    data = json.dumps(_finite(shown), separators=(",", ":")).replace("<", "\\u003c")
    _write(path, page.replace("__TITLE__", escape(shown["title"]), 1).replace("__DATA__", data, 1))


def write_trace(report: Any, path: str | os.PathLike[str]) -> None:
    """Write what was recorded as Chrome trace events."""
    work = _recorded(report, "to_perfetto")
    name = getattr(report, "callable", "") or "calls"
    trace: list[dict[str, Any]] = [_meta("process_name", 0, f"parallax: {name}")]
    shares = list(work.workers.values())
    trace += [_meta("thread_name", each.place + 1, each.name) for each in shares]
    for chunk in work.chunks or ():
        share = shares[chunk.worker]
        last = chunk.first + chunk.items - 1
        label = f"{chunk.first}" if chunk.items == 1 else f"{chunk.first} to {last}"
        args = {"items": chunk.items, "route": share.route, "cpu_ms": chunk.cpu * 1e3}
        if chunk.bytes_in or chunk.bytes_out:
            args |= {"bytes_in": chunk.bytes_in, "bytes_out": chunk.bytes_out}
        event = {"name": label, "cat": share.route, "ph": "X", "args": args}
        times = {"ts": chunk.begin * 1e6, "dur": chunk.wall * 1e6}
        trace.append({**event, **times, "pid": 1, "tid": chunk.worker + 1})
    for death in work.deaths:
        args = _death(death, shares[death.worker].name)
        event = {"name": "worker died", "ph": "i", "s": "t", "args": args}
        trace.append({**event, "ts": death.at * 1e6, "pid": 1, "tid": death.worker + 1})
    for change in getattr(report, "changes", ()):
        args = {"reason": change.reason, "workers": change.workers}
        event = {"name": f"route: {change.route}", "ph": "i", "s": "g", "args": args}
        trace.append({**event, "ts": change.at * 1e6, "pid": 1, "tid": 0})
    for at, cores in _cores_over_time(work):
        event = {"name": "cores busy", "ph": "C", "args": {"cores": cores}}
        trace.append({**event, "ts": at * 1e6, "pid": 1, "tid": 0})
    _write(path, json.dumps(_finite({"traceEvents": trace, "displayTimeUnit": "ms"})))


def _meta(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": thread, "args": {"name": name}}


def _cores_over_time(work: recording.Recording) -> list[tuple[float, float]]:
    """When, and how many cores were busy from then on."""
    kept = work.chunks or ()
    end = max((chunk.begin + chunk.wall for chunk in kept), default=0.0)
    if end <= 0.0:
        return []
    step, busy = end / TRACE_POINTS, [0.0] * (TRACE_POINTS + 1)
    for chunk in kept:
        if chunk.wall <= 0.0:
            continue
        share = chunk.cpu / chunk.wall
        first, last = int(chunk.begin / step), int((chunk.begin + chunk.wall) / step)
        for at in range(first, min(last, TRACE_POINTS - 1) + 1):
            inside = min((at + 1) * step, chunk.begin + chunk.wall) - max(at * step, chunk.begin)
            busy[at] += share * max(0.0, inside) / step
    return [(at * step, round(each, 3)) for at, each in enumerate(busy)]


def _recorded(report: Any, method: str) -> recording.Recording:
    work = report.work
    if work is None or work.chunks is None:
        raise ValueError(
            f"{method} needs a record of what each worker did, and there is none. "
            f"Make the call with record=True"
        )
    return work.settled()  # type: ignore[no-any-return]


def _write(path: str | os.PathLike[str], text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        if error.filename is None:  # the disk is full
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
