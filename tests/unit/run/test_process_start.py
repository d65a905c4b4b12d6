"""What a run spends on the thought of worker processes."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from parallax import parallel_map
from parallax._backends.processes.start import fork_safety
from parallax._run.process_start import WAITING_ITEM_S, ProcessStart


def compute(seconds: float) -> float:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks programs")
def test_a_short_job_does_not_ask_whether_the_program_may_be_forked(monkeypatch):
    """Counting the threads of native libraries takes longer than some jobs."""
    asked = []
    monkeypatch.setattr(fork_safety, "unsafe_reason", lambda _: asked.append(1) or "it is a test")
    found = parallel_map(compute, [0.001] * 10)
    assert found == [0.001] * 10
    assert found.report.route == "loop"
    assert not asked


@pytest.mark.parametrize(
    ("took", "waits", "left", "awaited"),
    [
        (0.0, True, 9, True),  # not clear yet whether it waits
        (WAITING_ITEM_S, True, 9, False),
        (WAITING_ITEM_S, False, 9, True),
        (60.0, False, 9, False),  # the others' cores have idled for long enough
        (60.0, False, 1000, True),
        (60.0, True, 1000, False),
    ],
)
def test_the_end_of_an_item_is_awaited_where_a_fork_is_hoped_for(took, waits, left, awaited):
    """Between two items the program can be forked; threads need no fork."""
    start = object.__new__(ProcessStart)
    start._caller = SimpleNamespace(block=(100.0, 1, ()))
    start._fork_wanted, start._unforkable = True, ""
    start.may_fork = lambda: True
    assert start.awaits_item(100.0 + took, left, lambda now: waits) is awaited
