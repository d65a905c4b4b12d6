"""Every call leaves a report that is complete up to its end, however it ended."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from helpers.report_schema import checked

import parallax._api.map as map_module
from parallax import explain, options, parallel, parallel_imap, parallel_map


def work(x):
    time.sleep(0.002)
    return x


def refuse(x):
    if x == 30:
        raise LookupError(x)
    return x


def assert_recorded(report, items):
    """Each item is in one bar of a worker, bars of a worker do not overlap, and all fits."""
    chunks = report.work.chunks
    indices = [i for c in chunks for i in range(c.first, c.first + c.items)]
    assert sorted(indices) == list(range(items))
    for share in report.work.workers.values():
        end = 0.0
        for chunk in sorted((c for c in chunks if c.worker == share.place), key=lambda c: c.begin):
            assert chunk.begin >= end - 1e-4
            end = chunk.begin + chunk.wall
            assert end <= chunk.arrived + 0.002 <= report.seconds + 0.1
    assert report.work.placed == 0


def test_a_finished_call(backend):
    results = parallel_map(work, range(60), backend=backend, record=True, max_workers=2)
    found = checked(results.report)
    assert found["items"] == {"finished": 60, "run": 60, "raised": 0, "run_again": 0}
    assert sum(each["items"] for each in found["by_worker"]) == 60
    assert found["slowest"][0]["seconds"] >= 0.002
    assert found["ended"] == ""
    assert_recorded(results.report, 60)
    assert len(str(results.report).split("\n")) <= 8


@pytest.mark.sampled(3)
def test_not_recorded_unless_asked(backend):
    report = parallel_map(work, range(8), backend=backend).report
    assert checked(report)["recorded"] is None
    assert report.work.chunks is None


@pytest.mark.sampled(2)
def test_a_call_that_failed(backend):
    with pytest.raises(LookupError) as raised:
        parallel_map(refuse, range(60), backend=backend)
    found = checked(raised.value.parallax_report)
    assert found["ended"] == "LookupError"
    assert found["items"]["raised"] == 1
    assert found["items"]["run"] >= 31
    assert found["seconds"]["wall"] > 0
    assert "ended early by LookupError" in str(raised.value.parallax_report)


@pytest.mark.variants("serial", "threads")
def test_a_callable_that_raises_stop_iteration(backend):
    def stop(x):
        raise StopIteration(x)

    with pytest.raises(StopIteration) as raised:
        parallel_map(stop, range(3), backend=backend)
    assert checked(raised.value.parallax_report)["ended"] == "StopIteration"


@pytest.mark.sampled(3)
def test_an_input_that_failed(backend):
    def source():
        yield from range(20)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more") as raised:
        parallel_map(work, source(), backend=backend)
    found = checked(raised.value.parallax_report)
    assert (found["ended"], found["items"]["finished"]) == ("OSError", 20)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent to the own process")
@pytest.mark.variants("serial", "threads", "processes", "auto")
def test_a_call_that_was_interrupted(backend):
    ticks = []

    def tick(count):
        ticks.append(count)
        if sum(ticks) >= 20:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as raised:
        parallel_map(work, iter(range(10**6)), backend=backend, record=True, progress=tick)
    report = raised.value.parallax_report
    found = checked(report)
    assert found["ended"] == "KeyboardInterrupt"
    assert found["items"]["finished"] == sum(ticks) >= 20
    assert found["items"]["run"] >= 20
    assert found["seconds"]["wall"] > 0.0


def test_an_interrupt_between_two_results(monkeypatch):
    """Ctrl-C may come while results are put into the list, outside of the run."""

    class Interrupted(map_module.Results):
        def extend(self, batch):
            raise KeyboardInterrupt

    monkeypatch.setattr(map_module, "Results", lambda: Interrupted([0]))
    with pytest.raises(KeyboardInterrupt) as raised:
        parallel_map(work, range(10), backend="serial")
    found = checked(raised.value.parallax_report)
    assert found["ended"] == "KeyboardInterrupt"
    assert found["seconds"]["wall"] > 0


@pytest.mark.sampled(2)
def test_a_stream(backend):
    stream = parallel_imap(work, iter(range(200)), backend=backend, record=True, max_workers=2)
    assert checked(stream.report)["items"]["finished"] == 0
    for _ in range(10):
        next(stream)
    first = checked(stream.report)
    assert 10 <= first["items"]["finished"] < 200
    assert first["seconds"]["wall"] > 0
    assert list(stream) == list(range(10, 200))
    assert checked(stream.report)["items"]["finished"] == 200
    assert_recorded(stream.report, 200)


@pytest.mark.sampled(3)
def test_a_stream_that_was_closed(backend):
    stream = parallel_imap(work, iter(range(1000)), backend=backend)
    next(stream)
    stream.close()
    found = checked(stream.report)
    assert found["ended"] == "its reader"
    assert found["items"]["finished"] >= 1


def test_a_lost_worker():
    def leave(x):
        if x == 3:
            os._exit(5)
        return x

    results = parallel_map(leave, range(6), backend="processes", on_error="return", record=True)
    found = checked(results.report)
    assert found["losses"]["died"] == len(found["deaths"]) >= 1
    # The last of its workers had this item alone, and it failed by that.
    (last,) = [each for each in found["deaths"] if each["failed"]]
    assert (last["first"], last["items"], last["failed"]) == (3, 1, 1)
    assert last["reason"].startswith("it exited with status 5")
    assert last["worker"] in {each["name"] for each in found["by_worker"]}
    assert found["seconds"]["idle"] >= 0


def test_a_lost_worker_whose_item_is_run_again(tmp_path):
    def leave_once(x):
        if x == 3 and not (tmp_path / "left").exists():
            (tmp_path / "left").touch()
            os.kill(os.getpid(), 9)
        return x

    settings = {"backend": "processes", "retries": 1, "chunksize": 1, "record": True}
    results = parallel_map(leave_once, range(6), **settings)
    assert list(results) == list(range(6))
    (death,) = checked(results.report)["deaths"]
    assert (death["first"], death["items"], death["failed"]) == (3, 1, 0)
    assert "SIGKILL" in death["reason"]
    results.report.to_perfetto(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    (mark,) = [each for each in events if each["name"] == "worker died"]
    names = {each["tid"]: each["args"]["name"] for each in events if each["name"] == "thread_name"}
    assert names[mark["tid"]] == mark["args"]["worker"] == death["worker"]


def test_ways_to_ask_for_a_record():
    @parallel(record=True)
    def mapped(x):
        return x

    assert mapped.map(range(5)).report.work.chunks
    assert mapped.options(record=False).map(range(5)).report.work.chunks is None
    assert parallel(work).map(range(2), record=True).report.work.chunks
    with options(record=True):
        assert parallel_map(abs, range(5)).report.work.chunks
        assert parallel_map(abs, range(5), record=False).report.work.chunks is None
    with pytest.raises(TypeError, match="record must be True or False, not 1"):
        parallel_map(abs, range(5), record=1)


def test_what_the_code_reads_and_changes():
    log = []

    def note(x):
        time.sleep(0.001)
        log.append(THRESHOLD + x)

    found = checked(parallel_map(note, range(50)).report)
    assert any("appends to" in each and "`log`" in each for each in found["writes"])
    assert any(each.endswith(".THRESHOLD") for each in found["reads"])


THRESHOLD = [1][0]


def test_an_explanation():
    found = checked(explain(work, range(1000)))
    assert found["explained"]
    assert found["estimates"]


def test_times_of_one_item_that_opened_the_run_count_once():
    """The sampler may open the run inside the caller's first item, which then comes as a chunk."""
    report = parallel_map(time.sleep, [0.1] * 6, record=True).report
    assert_recorded(report, 6)
    assert sum(each.items for each in report.work.workers.values()) == 6
