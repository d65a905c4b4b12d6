"""Libraries that take executors, with ours in them."""

from __future__ import annotations

import operator
import os

import jobs
import pytest
from helpers.executor_kinds import CONCURRENT, KINDS

import parallax


@pytest.fixture(params=CONCURRENT)
def executor(request):
    """Each kind of executor in turn."""
    with KINDS[request.param](2) as executor:
        yield executor


# -- tqdm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("thread_map", "ThreadPoolExecutor"), ("process_map", "ProcessPoolExecutor")]
)
def test_tqdm(name, kind, monkeypatch):
    """Its own map functions, by changing one import line."""
    import concurrent.futures

    from tqdm.contrib import concurrent as contrib

    made = []

    class Spy(KINDS[kind]):
        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(concurrent.futures, kind, Spy)
    run = getattr(contrib, name)
    kwargs = {"max_workers": 2, "disable": True}
    if name == "process_map":
        kwargs["chunksize"] = 3
    assert run(jobs.square, range(40), **kwargs) == [n * n for n in range(40)]
    assert len(made) == 1


def test_tqdm_around_map(executor, capsys):
    """A bar over lazy results."""
    from tqdm import tqdm

    bar = tqdm(executor.map(jobs.square, range(30)), total=30)
    assert list(bar) == [n * n for n in range(30)]
    assert "30/30" in capsys.readouterr().err


# -- dask ------------------------------------------------------------------------------------------


def inc(x):
    return x + 1


def whose(x):
    return os.getpid()


@pytest.mark.sampled(2)
def test_dask_delayed(executor):
    """A graph of calls, with ``dask.config.set`` and with ``scheduler=``."""
    dask = pytest.importorskip("dask")
    squares = [dask.delayed(jobs.square)(n) for n in range(20)]
    total = dask.delayed(sum)([dask.delayed(inc)(square) for square in squares])
    expected = sum(n * n + 1 for n in range(20))
    with dask.config.set(scheduler=executor):
        assert total.compute() == expected
        assert dask.compute(*squares) == tuple(n * n for n in range(20))
    assert total.compute(scheduler=executor) == expected
    wrong = dask.delayed(jobs.oops_at)({3}, 3)
    with pytest.raises(jobs.Oops):
        dask.delayed(inc)(wrong).compute(scheduler=executor)


def test_dask_runs_where_the_executor_runs():
    """Not in threads of its own."""
    dask = pytest.importorskip("dask")
    with parallax.ProcessPoolExecutor(2) as executor:
        pids = dask.compute(*[dask.delayed(whose)(n) for n in range(8)], scheduler=executor)
    assert os.getpid() not in pids


@pytest.mark.sampled(2)
def test_dask_array(executor):
    """Blocks of an array."""
    pytest.importorskip("dask")
    array = pytest.importorskip("dask.array")
    ones = array.ones((200, 200), chunks=(50, 50))
    assert (ones + ones.T).sum().compute(scheduler=executor) == 80_000


def test_dask_bag(executor):
    """Partitions of a bag."""
    pytest.importorskip("dask")
    bag = pytest.importorskip("dask.bag").from_sequence(range(100), npartitions=5)
    found = bag.map(jobs.square).filter(lambda x: x % 2).fold(operator.add)
    assert found.compute(scheduler=executor) == sum(n * n for n in range(1, 100, 2))
