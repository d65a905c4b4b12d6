"""Errors of executors that were passed as ``backend=``: what travels, what dies, what is theirs."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from jobs.no_copies import Stuck, Unreadable

from parallax import SerializationError, WorkerDiedError, parallel_map


class KilledWorker(Exception):  # noqa: N818 - its name there
    """As Dask's: the engine goes on."""


KilledWorker.__module__ = "distributed.scheduler"


class EngineError(Exception):
    pass


class Away(Executor):
    """Pickles calls and results as an engine of other processes does; raises errors of its own."""

    def __init__(self, *errors, early=False):
        self.sent = []
        self._errors, self._early = list(errors), early
        self._max_workers = 2
        self._pool = ThreadPoolExecutor(2)

    def submit(self, fn, /, *args, **kwargs):
        if self._early:
            self.sent.append(pickle.dumps((fn, args)))
            return self._pool.submit(self._run, self.sent[-1])
        return self._pool.submit(self._pack, fn, args)

    def _pack(self, *call):
        self.sent.append(pickle.dumps(call))
        return self._run(self.sent[-1])

    def _run(self, data):
        if self._errors:
            raise self._errors.pop()
        fn, args = pickle.loads(data)
        return pickle.loads(pickle.dumps(fn(*args)))

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._pool.shutdown(wait)


def stuck_at_three(item):
    return Stuck() if item == 3 else item


def unreadable_at_three(item):
    return Unreadable() if item == 3 else item


def fails_at_three(item):
    if item == 3:
        raise KeyError(item)
    return item


def same(item):
    return item


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("bad", [Stuck(), threading.Lock(), lambda: 0])
def test_item_that_does_not_pickle(bad, early):
    items = [0, 1, bad, 3, 4]
    with Away(early=early) as away:
        with pytest.raises(SerializationError) as caught:
            parallel_map(same, items, backend=away)
        assert (caught.value.what, caught.value.index) == ("item", 2)
        assert str(caught.value.__cause__) in str(caught.value)
        kept = parallel_map(same, items, backend=away, on_error="return")
    assert isinstance(kept.pop(2), SerializationError)
    assert kept == [0, 1, 3, 4]


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_callable_that_does_not_pickle(early, on_error):
    with Away(early=early) as away, pytest.raises(SerializationError) as caught:
        parallel_map(lambda item: item, range(5), backend=away, on_error=on_error)
    assert (caught.value.what, caught.value.index) == ("callable", None)


@pytest.mark.parametrize(
    ("fn", "words"), [(stuck_at_three, "no copies"), (unreadable_at_three, "invalid literal")]
)
def test_result_that_does_not_travel_costs_its_item(fn, words):
    with Away() as away:
        with pytest.raises(SerializationError, match=words) as caught:
            parallel_map(fn, range(9), backend=away)
        assert (caught.value.what, caught.value.index) == ("result", 3)
        kept = parallel_map(fn, range(9), backend=away, on_error="return")
    assert isinstance(kept.pop(3), SerializationError)
    assert kept == [0, 1, 2, 4, 5, 6, 7, 8]


def test_items_and_their_errors_in_an_engine():
    with Away() as away:
        got = parallel_map(same, range(9), backend=away)
        assert got == list(range(9))
        assert "in 2 workers of Away" in str(got.report)
        assert "Away was passed as backend" in str(got.report)
        assert (got.report.route, got.report.backend) == ("executor", "Away")
        with pytest.raises(KeyError) as caught:
            parallel_map(fails_at_three, range(9), backend=away)
    assert "fails_at_three" in str(caught.value.__cause__)  # the lines of the other process


@pytest.mark.parametrize("given", [{}, {"retries": 2}, {"on_error": "return"}])
def test_other_errors_of_an_engine_end_the_run_as_they_are(given):
    error = EngineError("the scheduler is gone")
    with Away(error) as away, pytest.raises(EngineError) as caught:
        parallel_map(same, range(9), backend=away, timeout=20, **given)
    assert caught.value is error


def test_worker_that_died_costs_its_item():
    with Away(KilledWorker("a"), KilledWorker("b")) as away:
        assert parallel_map(same, range(9), backend=away, retries=2, timeout=20) == [*range(9)]
    with Away(KilledWorker("gone")) as away:
        kept = parallel_map(
            same, range(9), backend=away, chunksize=1, on_error="return", timeout=20
        )
    died = [each for each in kept if isinstance(each, WorkerDiedError)]
    assert len(died) == 1
    assert "KilledWorker: gone" in str(died[0])
    assert sorted(each for each in kept if each is not died[0]) == sorted(
        set(range(9)) - {died[0].index}
    )


def test_call_of_threads_is_not_copied():
    lock = threading.Lock()

    class Bare(Executor):  # not one of the standard library's, and in this process
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    assert parallel_map(same, [lock] * 3, backend=Bare(), max_workers=2) == [lock] * 3


@pytest.mark.parametrize("name", ["_threads", "_max_workers", "_thread_name_prefix"])
def test_private_attributes_of_other_executors_mean_nothing(name):
    with Away() as away:
        setattr(away, name, object())
        assert parallel_map(same, range(9), backend=away) == list(range(9))
