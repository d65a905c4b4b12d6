"""What a run spends on the thought of worker processes."""

from __future__ import annotations

import sys
import time

import pytest

from parallax import parallel_map
from parallax._backends.processes.start import fork_safety


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
    found = parallel_map(compute, [0.001] * 20)
    assert found == [0.001] * 20
    assert found.report.route == "loop"
    assert not asked
