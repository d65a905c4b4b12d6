"""What is kept of the work of each worker, and how it is written out."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import pytest
from helpers.report_schema import SCHEMAS, checked, faults

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.plans import Measurement, Plan
from parallax._reporting import recording
from parallax._reporting.recording import Recording, kept_columns
from parallax._reporting.reports import MAX_LINE, MAX_LINES, Report

HOSTILE = '</script><img src=x onerror="alert(1)">\u2028\ud800 & `\n<!--'


def recorded():
    """Two processes after the caller's thread, at a start of 100 s on the clock."""
    work = Recording(100.0, keep=True)
    work.meet(0, "the caller's thread", "loop", 100.0)
    work.add(0, 0, 2, (100.0, 0.5, 0.5), 100.5)
    work.meet(2, "worker process 12", "processes", 100.5)
    work.add(2, 2, 1, (101.0, 1.0, 0.9), 102.1, 10, 20)
    work.meet(1, "worker process 11", "processes", 100.4)
    work.add(1, 3, 4, (101.5, 4.0, 1.0), 105.6, 30, 40)
    return work


def test_totals():
    """Start-up runs to the first item of the first worker, idle time to the last one's end."""
    work = recorded()
    assert work.starting == pytest.approx(0.5)
    assert work.idle == pytest.approx((5.5 - 1.0 - 1.0) + 0.0)
    assert [(s.first, s.items) for s in sorted(work.slowest, reverse=True)] == [
        (3, 4),
        (2, 1),
        (0, 2),
    ]


def dead():
    """One more worker, which died with an item before it answered any, and one that had three."""
    work = recorded()
    work.meet(3, "worker process 13", "processes", 103.0)
    work.lose(3, 7, 1, 1, HOSTILE, 104.0)
    work.lose(1, 8, 3, 0, "why not", 106.0)
    return work


def test_a_death_makes_no_work(tmp_path):
    """A worker that has died before its first answer was neither busy nor idle."""
    before, work = recorded(), dead()
    assert (work.idle, work.span) == (before.idle + 1.5, before.span)  # that of the last end
    report_of(work).to_html(tmp_path / "page.html")
    deaths = data_of(tmp_path / "page.html")["deaths"]
    assert [(d["worker"], d["at"], d["first"], d["items"], d["failed"]) for d in deaths] == [
        (3, 4.0, 7, 1, 1),
        (1, 6.0, 8, 3, 0),
    ]
    report_of(work).to_perfetto(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    marks = [e for e in events if e["name"] == "worker died"]
    assert [(m["ph"], m["s"], m["tid"], m["ts"]) for m in marks] == [
        ("i", "t", 4, 4e6),
        ("i", "t", 3, 6e6),
    ]
    assert marks[0]["args"]["reason"] == HOSTILE
    checked(report_of(work))


def test_only_the_slowest_are_kept():
    work = Recording(0.0)
    work.meet(0, "it", "loop", 0.0)
    for index in range(100):
        seconds = 1.0 + (index * 37) % 100
        work.add(0, index, 1, (0.0, seconds, seconds), 1000.0)
    assert sorted(s.seconds for s in work.slowest) == [96, 97, 98, 99, 100]
    assert work.chunks is None


def test_lanes_are_in_order_of_start():
    columns = kept_columns(recorded())
    assert columns["worker"] == [0, 1, 2]
    assert columns["first"] == [0, 3, 2]
    assert columns["begin"] == [0, 1_500_000, 1_000_000]
    assert columns["bytes_in"] == [0, 30, 10]


@pytest.mark.parametrize("begun", [0.0, 3.0, 99.0, 103.0, 1e9])
def test_a_clock_that_cannot_be_right_is_not_believed(begun):
    """A worker of another machine, or one that tells none: the arrival says when it was."""
    work = Recording(100.0, keep=True)
    work.meet(1, "it", "processes", 100.0)
    work.add(1, 0, 1, (begun, 1.0, 1.0), 102.0)
    work.add(1, 1, 1, (begun, 1.0, 1.0), 102.0)  # read late, too
    assert [chunk.begin for chunk in work.chunks] == [1.0, 2.0]
    assert all(chunk.begin + chunk.wall <= chunk.arrived for chunk in work.chunks)
    assert work.placed == (2 if begun else 0)


def test_the_oldest_are_dropped(monkeypatch):
    monkeypatch.setattr(recording, "MAX_KEPT", 3)
    work = Recording(0.0, keep=True)
    work.meet(0, "it", "loop", 0.0)
    for index in range(5):
        work.add(0, index, 1, (0.0, 1.0, 1.0), 9.0)
    assert ([c.first for c in work.chunks], work.dropped) == ([2, 3, 4], 2)


def report_of(work, **fields):
    made = Report(callable=HOSTILE, items=7, seconds=5.6, work=work, **fields)
    made.choose(Plan("loop", 1, HOSTILE, {"loop": 9.0}, 7), 0.0, change=True)
    costs = {"loop": 9.0, "processes": float("inf")}
    made.choose(Plan("processes", 2, "many <b>", costs, 5), 0.5, change=True)
    made.note(HOSTILE)
    return made


def test_every_field_is_in_the_schema():
    report = report_of(recorded(), measured=Measurement(3, 0.5, 0.1, 0.15, 0.1))
    found = checked(report)
    assert found["estimates"]["processes"] is None
    assert found["measured"]["free_of_gil"] == pytest.approx(0.05)
    assert found["measured"]["waiting"] == pytest.approx(0.8)
    assert found["changes"][0]["predicted"] == 9.0
    assert found["recorded"] == {"chunks": 3, "dropped": 0, "placed": 0}


def test_the_checker_finds_faults():
    found = checked(report_of(recorded()))
    for wrong in (
        {**found, "more": 1},
        {key: found[key] for key in found if key != "notes"},
        {**found, "workers": True},
        {**found, "reason": None},
        {**found, "notes": [1]},
        {**found, "seconds": {**found["seconds"], "wall": "1"}},
    ):
        assert faults(wrong, SCHEMAS["map"])


def test_text_is_at_most_eight_lines():
    report = report_of(recorded(), workers_lost=1, retried=2, bytes_in=5, looking=1.0, start="x")
    for index in range(20):
        report.note(f"note {index}")
    lines = str(report).split("\n")
    assert len(lines) == MAX_LINES
    assert re.fullmatch(r"  and \d+ more: see to_dict\(\)", lines[-1])
    assert len(str(Report()).split("\n")) < MAX_LINES


def test_a_huge_name_is_cut():
    report = Report(callable="<" * 10**6, reason="x\n" * 10**5)
    assert max(map(len, str(report).split("\n"))) == MAX_LINE
    assert len(report._repr_html_()) < 10 * MAX_LINE
    assert len(report.to_dict()["callable"]) == 10**6


def test_a_notebook_shows_no_markup_of_the_program():
    html = report_of(recorded())._repr_html_()
    assert "<img" not in html
    assert "<!--" not in html
    assert "&lt;img" in html


def data_of(path):
    page = path.read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    assert "<img" not in page
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found.group(1))


def test_page(tmp_path):
    """One file that loads nothing; what the program named cannot leave its place."""
    path = tmp_path / "page.html"
    report_of(recorded()).to_html(path)
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|import\(|fetch\(", page)
    data = data_of(path)
    assert data["chunks"]["first"] == [0, 3, 2]
    assert [w["name"] for w in data["workers"]][1:] == ["worker process 11", "worker process 12"]
    assert [change["route"] for change in data["changes"]] == ["loop", "processes"]


def test_files_of_data_are_packaged():
    """What is not Python is in the wheel only if pyproject.toml names it."""
    root = Path(__file__).parents[3]
    package, listed = root / "src" / "parallax", (root / "pyproject.toml").read_text("utf-8")
    data = [p for p in package.rglob("*") if p.is_file() and p.suffix not in {".py", ".pyc"}]
    assert package / "_reporting" / "timeline.html" in data
    for path in data:
        assert f'"{path.relative_to(package).as_posix()}"' in listed


def test_page_of_nothing(tmp_path):
    Report(work=Recording(0.0, keep=True)).to_html(tmp_path / "page.html")
    assert data_of(tmp_path / "page.html")["chunks"]["first"] == []


def test_trace(tmp_path):
    path = tmp_path / "trace.json"
    report_of(recorded()).to_perfetto(path)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    for event in events:
        assert {"name", "ph", "pid", "tid"} <= event.keys()
        assert event["ph"] in "XMiC"
        assert event["ph"] == "M" or event["ts"] >= 0
        assert event["ph"] != "X" or event["dur"] >= 0
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    items = {e["name"]: threads[e["tid"]] for e in events if e["ph"] == "X"}
    assert items == {
        "0 to 1": "the caller's thread",
        "2": "worker process 12",
        "3 to 6": "worker process 11",
    }
    cores = [e["args"]["cores"] for e in events if e["ph"] == "C"]
    assert max(cores) == pytest.approx(0.9 + 0.25, abs=0.01)
    assert cores[-1] == 0


@pytest.mark.parametrize("method", ["to_html", "to_perfetto"])
def test_files_that_cannot_be_written(method, tmp_path):
    write = getattr(report_of(recorded()), method)
    paths = [tmp_path / "none" / "page", tmp_path]
    if Path("/dev/full").exists():
        paths.append("/dev/full")
    for path in paths:
        with pytest.raises(OSError, match=re.escape(os.fspath(path))) as raised:
            write(path)
        assert raised.value.filename == os.fspath(path)
    with pytest.raises(ValueError, match=f"{method} needs a record.*record=True"):
        getattr(Report(), method)(tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_a_report_travels_with_the_error():
    """From nested calls it reaches other processes."""
    report = report_of(recorded())
    error = ValueError("x")
    report.cut(error)
    back = pickle.loads(pickle.dumps(error)).parallax_report
    assert back.to_dict() == report.to_dict()
    assert back.ended == "ValueError"


def test_errors_that_take_no_attributes():
    class RefusingError(Exception):
        def __setattr__(self, name, value):
            raise RuntimeError

    report = Report()
    report.cut(RefusingError())
    assert report.ended == "RefusingError"


def test_failures_are_counted():
    report = Report()
    report.work.meet(0, "it", "loop", 0.0)
    failed = ChunkResult([1, None], (Failure(1, ValueError()),), 0.1, 0.1)
    report.add(0, 0, failed, 1.0)
    assert (report.raised, report.cpu_seconds) == (1, 0.1)
