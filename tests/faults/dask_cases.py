"""A cluster of Dask on this machine as backend: by client, name, address and executor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from parallax import Executor, SerializationError, WorkerDiedError, parallel_imap, parallel_map

distributed = pytest.importorskip("distributed")

LIMIT = 60
SCATTERED = bytes(1_000_000)


def make_cluster(**given):
    given = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", **given}
    return distributed.LocalCluster(host="127.0.0.1", processes=True, **given)


@pytest.fixture(scope="module")
def cluster():
    with make_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def client(cluster):
    with distributed.Client(cluster) as made:
        yield made


@pytest.fixture(params=["client", "name", "address", "executor"])
def backend(request, cluster, client):
    named = {"client": client, "name": "dask", "address": cluster.scheduler_address}
    return named.get(request.param) or client.get_executor()


@pytest.fixture
def lone():
    """A cluster for one test, which may do to it what it wants."""
    with make_cluster() as cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield cluster, client


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


class Own:
    def __init__(self, value):
        self.value = value


def test_no_cluster_and_no_scheduler_are_told():  # the first one: there is no client yet
    with pytest.raises(ValueError, match="finds no cluster"):
        parallel_map(square, [1], backend="dask")
    with distributed.client.dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        for address in ("tcp://127.0.0.1:9", "nonsense://127.0.0.1:9"):
            with pytest.raises(ConnectionError, match="no scheduler of Dask answers"):
                parallel_map(square, [1], backend=address)


def test_items_results_and_their_errors(backend):
    got = parallel_map(square, range(200), backend=backend, timeout=LIMIT)
    assert got == [item * item for item in range(200)]
    assert got.report.route == "executor"
    base = 3
    assert parallel_map(lambda x: x + base, range(9), backend=backend, timeout=LIMIT)[8] == 11
    with pytest.raises(KeyError) as caught:
        parallel_map(fails, range(9), backend=backend, timeout=LIMIT)
    assert "in fails" in str(caught.value.__cause__)
    with pytest.raises(SerializationError) as caught:
        parallel_map(square, [1, 2, threading.Lock()], backend=backend, timeout=LIMIT)
    assert (caught.value.what, caught.value.index) == ("item", 2)
    given = {"backend": backend, "on_error": "return", "timeout": LIMIT}
    kept = parallel_map(lock_at_three, range(9), **given)
    assert kept.pop(3).what == "result"
    assert kept == [0, 1, 2, 4, 5, 6, 7, 8]
    streamed = parallel_imap(square, iter(range(50)), backend=backend, timeout=LIMIT)
    assert list(streamed) == [item * item for item in range(50)]
    assert type(parallel_map(Own, [1], backend=backend)[0]) is Own


def test_chunks_are_made_by_measured_times_and_run_in_the_workers(client):
    got = parallel_map(slow, range(100), backend=client, timeout=LIMIT)
    assert got == list(range(100))
    assert got.report.workers == 2
    places = parallel_map(lambda _: os.getpid(), range(500), backend=client, timeout=LIMIT)
    assert set(places) <= set(client.run(os.getpid).values())


def test_executor_on_the_cluster(client):
    with Executor(backend=client) as executor:
        assert list(executor.map(square, range(9))) == [item * item for item in range(9)]
        assert executor.submit(int, "ff", base=16).result(LIMIT) == 255
        with pytest.raises(KeyError):
            executor.submit(fails, 1).result(LIMIT)


def test_call_inside_a_task_is_a_loop(client):
    def inner(items):
        return parallel_map(square, items, backend="dask"), distributed.get_worker().address

    got, _ = client.submit(inner, [1, 2, 3]).result(LIMIT)
    assert list(got) == [1, 4, 9]
    assert "inside a thread of that executor" in got.report.reason
    assert parallel_map(lambda n: inner([n])[0], [3], backend=client) == [[9]]


def test_item_that_ends_its_worker_costs_the_item(lone):
    given = {"backend": lone[1], "on_error": "return", "timeout": LIMIT}
    kept = parallel_map(end_at_five, range(20), **given)
    died = kept.pop(5)
    assert isinstance(died, WorkerDiedError)
    assert died.index == 5
    assert "KilledWorker" in str(died)
    assert kept == [item for item in range(20) if item != 5]


@pytest.mark.parametrize("killed", [1, 2])
def test_worker_that_is_killed_costs_nothing_not_even_what_it_kept(lone, killed):
    client = lone[1]
    begun = []

    def kill():
        for pid in list(client.run(os.getpid).values())[:killed]:
            os.kill(pid, signal.SIGKILL)

    large = SCATTERED
    killer = threading.Thread(target=kill)
    for got in parallel_imap(
        lambda item: slow(item) + len(large), range(150), backend=client, timeout=LIMIT
    ):
        begun.append(got)
        if len(begun) == 20:
            killer.start()
    killer.join()
    assert begun == [item + len(large) for item in range(150)]


@pytest.mark.parametrize("what", ["scheduler", "client", "restart"])
def test_cluster_that_goes_away_ends_the_run(lone, what):
    cluster, client = lone
    end = {"scheduler": cluster.close, "client": client.close, "restart": client.restart}[what]
    ending = threading.Timer(0.5, end)
    ending.start()
    error = CancelledError if what == "restart" else ConnectionError
    with pytest.raises(error, match=None if what == "restart" else "scheduler of Dask"):
        parallel_map(slow, range(100_000), backend=client, timeout=LIMIT, retries=1)
    ending.join()


PROGRAM = """
import sys, time, threading
from parallax import parallel_map
def slow(item):
    time.sleep(0.02)
    return item
address = sys.argv[1]
assert parallel_map(slow, range(9), backend=address, timeout=50) == list(range(9))
print("up", flush=True)
try:
    parallel_map(slow, range(100_000), backend=address, timeout=50)
except ConnectionError as error:
    print(error, flush=True)
"""


def test_scheduler_that_is_killed_ends_the_run_and_not_later_the_program():
    scheduler = (
        "import asyncio, distributed\n"
        "async def main():\n"
        "    given = {'host': '127.0.0.1', 'port': 0, 'dashboard': False}\n"
        "    async with distributed.Scheduler(**given) as made:\n"
        "        print(made.address, flush=True)\n"
        "        async with distributed.Worker(made.address, nthreads=2):\n"
        "            await asyncio.sleep(200)\n"
        "asyncio.run(main())"
    )
    made = subprocess.Popen([sys.executable, "-c", scheduler], stdout=subprocess.PIPE, text=True)
    with made:
        address = made.stdout.readline().strip()
        program = [sys.executable, "-c", PROGRAM, address]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout.readline() == "up\n"
            time.sleep(0.3)
            made.kill()
            assert "cannot be reached" in running.stdout.readline()
            assert running.wait(20) == 0


def test_other_versions_are_told_before_anything_runs(lone):
    client = lone[1]

    def other():
        import parallax

        parallax.__version__ = "9.9"

    client.run(other)
    with pytest.raises(RuntimeError, match=r"Dask worker tcp:.* parallax 9\.9, and this program"):
        parallel_map(square, range(9), backend=client, timeout=LIMIT)


def test_workers_that_come_late_and_resources():
    with make_cluster(n_workers=0) as cluster, distributed.Client(cluster) as client:
        with pytest.raises(TimeoutError):
            parallel_map(square, range(9), backend=client, timeout=0.5)
        large = SCATTERED
        threading.Timer(0.5, cluster.scale, (1,)).start()
        got = parallel_map(lambda x: x + len(large), range(9), backend=client, timeout=LIMIT)
        assert got == [item + 1_000_000 for item in range(9)]
    with make_cluster(resources={"GPU": 1}) as cluster, distributed.Client(cluster) as client:
        given = {"backend": client, "resources": {"GPU": 1}, "timeout": LIMIT}
        assert parallel_map(square, range(9), **given) == [item * item for item in range(9)]
        with pytest.raises(TimeoutError):
            parallel_map(square, range(9), **{**given, "resources": {"GPU": 2}, "timeout": 1})
