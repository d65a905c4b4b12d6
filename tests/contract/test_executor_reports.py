"""Executors tell what their workers did, once they are asked to record it."""

from __future__ import annotations

import os
import threading
import time

import pytest
from helpers.report_schema import checked

from parallax import (
    Executor,
    ItemTimeoutError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    WorkerDiedError,
    options,
)

MAKERS = {
    "auto": lambda: Executor(2),
    "threads": lambda: Executor(2, backend="threads"),
    "processes": lambda: Executor(2, backend="processes"),
    "serial": lambda: Executor(backend="serial"),
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor(2),
    "ProcessPoolExecutor": lambda: ProcessPoolExecutor(2),
}


def work(x):
    time.sleep(0.002)
    return x


def refuse(x):
    raise LookupError(x)


@pytest.fixture(params=MAKERS)
def executor(request):
    with MAKERS[request.param]() as made:
        yield made


def recorded(executor, calls):
    """The report when the last of so many calls has been entered."""
    deadline = time.monotonic() + 5
    while sum(w["items"] for w in checked(executor.report())["by_worker"]) < calls:
        assert time.monotonic() < deadline, executor.report().to_dict()
        time.sleep(0.001)
    report = executor.report()
    for share in report.work.workers.values():
        end = 0.0
        for chunk in (c for c in report.work.chunks if c.worker == share.place):
            assert chunk.begin >= end - 1e-4
            end = chunk.begin + chunk.wall
    assert sum(c.items for c in report.work.chunks) == calls
    return checked(report)


def test_every_call_is_recorded(executor):
    """Those of a map that are sent several at a time, single ones, and those that fail."""
    assert checked(executor.report())["recorded"] is None
    assert executor.submit(abs, -1).result() == 1
    assert list(executor.map(work, range(20), record=True)) == list(range(20))
    assert list(executor.map(abs, range(100))) == list(range(100))
    view = executor.options(record=True, retries=1)
    with pytest.raises(LookupError):
        view.submit(refuse, 1).result()
    found = recorded(executor, 122)
    assert found["slowest"][0]["seconds"] >= 0.002
    assert sum(w["busy"] for w in found["by_worker"]) >= 20 * 0.002
    assert found["seconds"]["wall"] >= 20 * 0.002 / 2
    assert "recorded: 122 calls by" in str(executor.report())


def test_files(executor, tmp_path):
    list(executor.map(work, range(5), record=True))
    recorded(executor, 5)
    executor.report().to_html(tmp_path / "page.html")
    executor.report().to_perfetto(tmp_path / "trace.json")
    assert (tmp_path / "page.html").stat().st_size > 10_000
    with pytest.raises(ValueError, match="record=True"), ThreadPoolExecutor(1) as other:
        other.report().to_html(tmp_path / "none.html")


def test_a_default_counts_when_an_executor_is_made():
    with options(record=True), ThreadPoolExecutor(1) as executor:
        executor.submit(work, 1).result()
        recorded(executor, 1)
    with ThreadPoolExecutor(1) as executor, options(record=True):
        executor.submit(work, 1).result()
        assert executor.report().work is None


def test_wrong_values(executor):
    with pytest.raises(TypeError, match="record must be True or False, not 'yes'"):
        executor.options(record="yes")
    with pytest.raises(TypeError, match="record must be True or False, not 1"):
        executor.map(work, [1], record=1)
    assert executor.report().work is None


def test_calls_inside_of_calls_in_one_thread(tmp_path):
    """A thread that waits for a call of its own pool runs it: one bar is inside of another."""
    with ThreadPoolExecutor(1) as executor:
        view = executor.options(record=True)
        assert view.submit(lambda: view.submit(work, 3).result()).result() == 3
        inner, outer = executor.report().work.chunks
        assert outer.begin <= inner.begin
        assert inner.begin + inner.wall <= outer.begin + outer.wall
        executor.report().to_html(tmp_path / "page.html")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_records_nothing_of_its_parent():
    with ThreadPoolExecutor(1) as executor:
        list(executor.map(work, range(3), record=True))
        pid = os.fork()
        if not pid:
            os._exit(0 if executor.report().work is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_report_is_a_copy():
    """It stays as it was while calls go on, in any thread."""
    with ThreadPoolExecutor(2) as executor:
        stop = threading.Event()

        def go_on():
            while not stop.is_set():
                list(executor.map(abs, range(50), record=True))

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            for _ in range(30):
                report = executor.report()
                assert report.to_dict() == report.to_dict()
        finally:
            stop.set()
            thread.join()


def test_workers_that_died():
    """How many calls each had, and what became of them: lost, out of time, run again."""
    with ProcessPoolExecutor(1) as executor:
        view = executor.options(record=True)
        assert view.submit(work, 1).result() == 1
        for number, options_of in enumerate([{}, {"item_timeout": 0.2}], 1):
            call = executor.options(**options_of).submit([os._exit, time.sleep][number - 1], 30)
            with pytest.raises((WorkerDiedError, ItemTimeoutError)):
                call.result()
            deaths = checked(executor.report())["deaths"]
            assert len(deaths) == number
            assert (deaths[-1]["first"], deaths[-1]["items"], deaths[-1]["failed"]) == (None, 1, 1)
    assert deaths[0]["reason"].startswith("it exited with status 30")
    assert deaths[1]["reason"] == "ended because its call took longer than item_timeout=0.2"
    assert {d["worker"] for d in deaths} <= {
        w["name"] for w in executor.report().to_dict()["by_worker"]
    }
