"""An executor that was passed as ``backend=`` and breaks, or is shut down, during a run."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from parallax import parallel_imap, parallel_map


def end_at_five(item):
    if item == 5:
        os._exit(3)
    return item


@pytest.mark.full  # a pool of spawned processes takes a second; the test below has the same cases
@pytest.mark.parametrize("given", [{}, {"retries": 2}, {"on_error": "return"}])
def test_broken_process_pool_ends_the_run_with_its_own_error(given):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        with pytest.raises(BrokenProcessPool):
            parallel_map(end_at_five, range(10), backend=pool, timeout=20, **given)
        with pytest.raises(BrokenProcessPool):
            parallel_map(end_at_five, range(4), backend=pool, timeout=20, **given)


class Breaking(ThreadPoolExecutor):
    """Runs three calls, then is broken: at once, or by the futures that it has given."""

    def __init__(self, late):
        super().__init__(2)
        self._left, self._late = 3, late

    def submit(self, fn, /, *args, **kwargs):
        self._left -= 1
        if self._left >= 0:
            return super().submit(fn, *args, **kwargs)
        if not self._late:
            raise BrokenProcessPool("gone")
        future = Future()
        future.set_exception(BrokenProcessPool("gone"))
        return future


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("given", [{}, {"retries": 2}, {"on_error": "return"}])
def test_results_from_before_the_break_are_handed_out(late, given):
    got = []
    with Breaking(late) as pool, pytest.raises(BrokenProcessPool, match="gone"):
        stream = parallel_imap(abs, range(8), backend=pool, chunksize=1, timeout=20, **given)
        got.extend(iter(stream))
    assert got == list(range(len(got)))


def test_executor_that_cancels_ends_the_run():
    begun, go = threading.Event(), threading.Event()

    def wait(item):
        begun.set()
        assert go.wait(20)
        return item

    pool = ThreadPoolExecutor(1)

    def cancel():
        assert begun.wait(20)
        pool.shutdown(wait=False, cancel_futures=True)
        go.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    # The second worker's chunk is queued behind the first one's.
    with pytest.raises((CancelledError, RuntimeError)):
        parallel_map(wait, range(50), backend=pool, max_workers=2, chunksize=1, timeout=20)
    canceller.join()
    pool.shutdown()
