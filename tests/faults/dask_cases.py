"""A cluster of Dask on this machine, by ``Client.get_executor()``, as backend."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import CancelledError

import pytest

from parallax import SerializationError, WorkerDiedError, parallel_map

distributed = pytest.importorskip("distributed")

LIMIT = 30


@pytest.fixture
def cluster():
    given = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(host="127.0.0.1", processes=True, **given) as made:
        yield made


@pytest.fixture
def executor(cluster):
    with distributed.Client(cluster) as client:
        yield client.get_executor()


def square(item):
    return item * item


def slow(item):
    time.sleep(0.02)
    return item


def fails(item):
    raise KeyError(item)


def lock_at_three(item):
    return threading.Lock() if item == 3 else item


def end_at_five(item):
    if item == 5:
        os._exit(3)
    return item


def test_items_results_and_their_errors(executor):
    got = parallel_map(square, range(200), backend=executor, timeout=LIMIT)
    assert got == [item * item for item in range(200)]
    assert "of ClientExecutor" in str(got.report)
    base = 3
    assert parallel_map(lambda x: x + base, range(9), backend=executor, timeout=LIMIT)[8] == 11
    with pytest.raises(KeyError) as caught:
        parallel_map(fails, range(9), backend=executor, timeout=LIMIT)
    assert "in fails" in str(caught.value.__cause__)
    with pytest.raises(SerializationError) as caught:
        parallel_map(square, [1, 2, threading.Lock()], backend=executor, timeout=LIMIT)
    assert (caught.value.what, caught.value.index) == ("item", 2)
    given = {"backend": executor, "on_error": "return", "timeout": LIMIT}
    kept = parallel_map(lock_at_three, range(9), **given)
    assert kept.pop(3).what == "result"
    assert kept == [0, 1, 2, 4, 5, 6, 7, 8]


def test_item_that_ends_its_worker_costs_the_item(executor):
    given = {"backend": executor, "on_error": "return", "timeout": LIMIT}
    kept = parallel_map(end_at_five, range(20), **given)
    died = kept.pop(5)
    assert isinstance(died, WorkerDiedError)
    assert died.index == 5
    assert "KilledWorker" in str(died)
    assert kept == [item for item in range(20) if item != 5]


def test_cluster_that_goes_away_ends_the_run(cluster, executor):
    ends = threading.Timer(0.5, lambda: cluster.close(timeout=5))
    ends.start()
    with pytest.raises(CancelledError):
        parallel_map(slow, range(100_000), backend=executor, timeout=LIMIT)
    ends.join()
