"""Items that wait behind a long one are taken back from its worker and run elsewhere, once."""

from __future__ import annotations

import functools

import jobs
import pytest

from parallax import parallel_imap, parallel_map
from parallax._backends.processes.common import protocol

pytestmark = [
    pytest.mark.variants("processes", "spawn"),
    pytest.mark.skipif(protocol.RECALL is None, reason="there are no signals between processes"),
]

ITEMS = 400


def ran(folder):
    """Which items were run, each as often as it was."""
    return sorted(int(line) for line in (folder / "log").read_bytes().split())


def work_in(folder, waiter, other, job=jobs.waits_for):
    return functools.partial(job, waiter, other, str(folder))


@pytest.mark.parametrize(("waiter", "other"), [(30, 31), (30, 36), (30, ITEMS - 1), (300, 301)])
def test_an_item_that_waits_for_a_later_one_does_not_wait_for_ever(
    backend, tmp_path, waiter, other
):
    """Wherever the other one is: in the same chunk, in the next one, or not sent yet."""
    work = work_in(tmp_path, waiter, other)
    results = parallel_map(work, range(ITEMS), backend=backend, max_workers=2)
    assert results == list(range(ITEMS))
    assert ran(tmp_path) == list(range(ITEMS))
    assert (results.report.retried, results.report.workers_lost) == (0, 0)


def test_with_chunks_of_a_fixed_size(backend, tmp_path):
    """They are taken apart too."""
    work = work_in(tmp_path, 30, 49)
    results = parallel_map(work, range(100), backend=backend, max_workers=2, chunksize=50)
    assert results == list(range(100))
    assert ran(tmp_path) == list(range(100))


def test_in_a_stream(backend, tmp_path):
    """In order, with the window that a stream has."""
    work = work_in(tmp_path, 30, 40)
    stream = parallel_imap(work, range(ITEMS), backend=backend, max_workers=2, chunksize=20)
    assert list(stream) == list(range(ITEMS))
    assert ran(tmp_path) == list(range(ITEMS))


def test_tuples_of_arguments(backend, tmp_path):
    """They go through another loop in the worker."""
    work = work_in(tmp_path, 30, 49)
    call = functools.partial(jobs.first_of, work)
    results = parallel_map(
        call, range(100), range(100), backend=backend, max_workers=2, chunksize=50
    )
    assert results == list(range(100))
    assert ran(tmp_path) == list(range(100))


def test_the_item_that_was_waited_for_may_fail(backend, tmp_path):
    """Its error stands at its index; what was taken back is there."""
    work = work_in(tmp_path, 30, 49, jobs.waits_and_fails)
    results = parallel_map(
        work, range(100), backend=backend, max_workers=2, chunksize=50, on_error="return"
    )
    assert [i for i, value in enumerate(results) if value != i] == [30]
    assert type(results[30]) is KeyError
    assert ran(tmp_path) == list(range(100))


def test_retries_go_on(backend, tmp_path):
    """An item that failed runs again, the ones behind it do not."""
    work = work_in(tmp_path, 30, 49, jobs.waits_and_fails)
    results = parallel_map(
        work, range(100), backend=backend, max_workers=2, chunksize=50, on_error="return", retries=2
    )
    assert [i for i, value in enumerate(results) if value != i] == [30]
    assert ran(tmp_path) == sorted([*range(100), 30, 30])


def test_together_with_a_limit_on_items(backend, tmp_path):
    """What is given back does not count as run, and finds a worker though others have left."""
    for number in range(4):  # the later calls have workers that are worn
        folder = tmp_path / str(number)
        folder.mkdir()
        work = work_in(folder, 30, 49)
        results = parallel_map(
            work, range(100), backend=backend, max_workers=2, chunksize=50, max_tasks_per_child=40
        )
        assert results == list(range(100))
        assert ran(folder) == list(range(100))


def test_a_worker_that_was_recalled_serves_the_next_call(backend, tmp_path):
    """Its next chunk is whole."""
    work = work_in(tmp_path, 30, 49)
    for _ in range(3):
        (tmp_path / "flag").unlink(missing_ok=True)
        (tmp_path / "log").unlink(missing_ok=True)
        results = parallel_map(work, range(100), backend=backend, max_workers=2, chunksize=50)
        assert results == list(range(100))
        assert ran(tmp_path) == list(range(100))
    assert parallel_map(jobs.square, range(50), backend=backend) == [x * x for x in range(50)]
