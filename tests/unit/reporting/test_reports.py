"""The report reads like a person's answer."""

from __future__ import annotations

from parallax import explain, parallel_map
from parallax._core.chunks import ChunkResult
from parallax._core.plans import Measurement, Plan
from parallax._reporting.reports import Report

SEEN = Measurement(items=3, wall=0.01, cpu=0.01, held=0.98, error=0.01)


def test_words():
    """What was measured, the route and its reason, the other routes' costs, the cores."""
    report = Report(callable="crunch", items=100, seconds=0.5, cpu_seconds=0.9, measured=SEEN)
    report.choose(
        Plan("processes", 2, "threads would take turns", {"loop": 1.0, "processes": 0.5}),
        0.03,
        change=True,
    )
    text = str(report)
    assert "`crunch`: 100 items in 500 ms, in 2 worker processes" in text
    assert "holds Python's global lock (GIL) 98% of the time" in text
    assert "why: threads would take turns" in text
    assert "1 s in a plain loop" in text
    assert "1.8" in text
    assert report.cores_busy == 1.8


def test_changes_and_notes():
    """Changes of mind are told in order; a note is told once."""
    report = Report(callable="f", items=0)
    report.choose(Plan("loop", 1, "a"), 0.0, change=True)
    report.items = 50
    report.choose(Plan("threads", 8, "b"), 0.2, change=True)
    report.choose(Plan("threads", 16, "c"), 0.3, change=False)
    report.note("a sentence")
    report.note("a sentence")
    assert [c.route for c in report.changes] == ["loop", "threads"]
    assert report.workers == 16
    report.items = 70
    report.choose(Plan("loop", 1, "d"), 0.5, change=True)
    text = str(report)
    told = "in a plain loop, then in threads after 50 items (200 ms), then in a plain loop after 70"
    assert f"where it ran: {told} items (500 ms)" in text
    assert text.count("a sentence") == 1


def test_what_an_item_took():
    """The mean of the whole run, told in the report; threads may have waited for each other."""
    report = Report()
    assert report.item_seconds() is None
    for route, first in (("loop", 0), ("processes", 2), ("threads", 4)):
        report.choose(Plan(route, 2, "a"), 0.0, change=True)
        report.work.meet(first, route, route, 0.0)
        report.add(first, first, ChunkResult([1, 2], (), 0.2, 0.2), 1.0)
        report.items += 2
        assert report.item_seconds() == (None if route == "threads" else 0.1)


def test_losses_and_bytes():
    """Lost workers and moved bytes are told only where there were some."""
    assert "died" not in str(Report())
    assert "data sent" not in str(Report())
    text = str(Report(workers_lost=2, retried=3, bytes_in=1_500_000, bytes_out=20))
    assert "worker processes that died: 2, items run again: 3" in text
    assert "1.5 MB" in text
    assert "20 B" in text


def test_the_slowest_item():
    """It is told where it is unlike the others; of a chunk that was timed as a whole, the chunk."""
    report = Report(items=100)
    report.work.meet(0, "it", "loop", 0.0)
    report.work.add(0, 0, 90, (0.0, 0.9, 0.9), 9.0)
    assert "slowest" not in str(report)
    report.work.add(0, 90, 1, (1.0, 0.5, 0.5), 9.0)
    assert "slowest: item 90 took 500 ms" in str(report)
    report.work.add(0, 91, 4, (2.0, 4.0, 4.0), 9.0)
    assert "slowest: items 91 to 94 took 1 s each" in str(report)


def test_what_was_predicted():
    """Beside what it took; not of a run that was cut short."""
    report = Report(callable="f", items=10, seconds=2.0)
    report.choose(Plan("processes", 2, "a", {"processes": 1.5}, 10), 0.25, change=True)
    assert "10 items in 2 s (1.8 s predicted), in 2 worker processes" in str(report)
    report.ended = "ValueError"
    assert "predicted" not in str(report)


def test_report_of_a_real_run():
    """A trivial run reports that a loop did it, and why."""
    results = parallel_map(abs, range(1000))
    assert results.report.route == "loop"
    assert results.report.items == 1000
    assert results.report.reason
    assert results.report.callable == "abs"
    assert "a plain loop" in str(results.report)


def test_report_of_a_forced_run():
    """What was asked for is the reason."""
    for backend in ("serial", "threads", "processes"):
        report = parallel_map(abs, range(20), backend=backend).report
        assert report.backend == backend
        assert f"backend='{backend}' was asked for" in str(report)


def test_explain():
    """An explanation says what would be done, and runs only the first items."""
    taken = []

    def source():
        for x in range(10_000_000):
            taken.append(x)
            yield x

    report = explain(abs, source())
    assert report.explained
    assert "would run in a plain loop" in str(report)
    assert len(taken) < 10_000_000


def test_empty_report():
    """Even without items it can be printed."""
    assert "0 items" in str(parallel_map(abs, []).report)
