"""Memory that is shared by name: put once, used by many calls, and really shared for ``"rw"``."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import pickle
import sys
from concurrent.futures import wait

import numpy as np
import pandas as pd
import pytest
from jobs import data as data_jobs
from jobs.data import BIG, Record, describe, in_memory

from parallax import (
    ProcessPoolExecutor,
    options,
    parallel_imap,
    parallel_map,
    share,
    shared_copy,
    shared_empty,
)
from parallax._guard.effects import except_shared, judge, scan

pytestmark = pytest.mark.sampled(2)


def table():
    return pd.DataFrame({"a": np.arange(BIG), "b": np.linspace(0, 1, BIG), "c": 1j})


OBJECTS = {
    "C order": lambda: np.arange(BIG, dtype=float).reshape(500, 600),
    "Fortran order": lambda: np.asfortranarray(np.arange(BIG).reshape(500, 600)),
    "a slice": lambda: np.arange(BIG)[1000:-1000],
    "every other row": lambda: np.arange(BIG).reshape(500, 600)[::2],
    "read-only": lambda: np.broadcast_to(np.arange(600), (500, 600)).copy(),
    "small": lambda: np.arange(5),
    "empty": lambda: np.zeros((0, 5)),
    "0-d": lambda: np.array(2.5),
    "structured": lambda: np.ones(50_000, [("a", "i4"), ("b", "f8", (2,))]),
    "DataFrame": table,
    "Series": lambda: table()["b"],
    "nested": lambda: {"a": [np.arange(BIG), "text"], "r": Record("n", np.ones(BIG), {"k": (1,)})},
    "memoryview": lambda: memoryview(bytearray(b"ab" * BIG)),
    "memoryview of numbers": lambda: memoryview(np.arange(BIG).reshape(500, 600)),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("mode", ["r", "rw"])
@pytest.mark.parametrize("name", OBJECTS)
def test_equal_here_and_there(name, mode):
    """It is an equal object of the same type, captured and as an argument."""
    made = OBJECTS[name]()
    held = share(made, mode=mode)
    assert type(held) is type(made)
    assert describe(held) == describe(made)
    if "memoryview" in name:  # only what it shows is compared: it cannot be pickled as such
        held, made = np.asarray(held), np.asarray(made)
    for _ in range(2):
        found = parallel_map(data_jobs.describe_and_return, [held] * 2, backend="processes")
        assert [there for there, _ in found] == [describe(made)] * 2
        assert [describe(back) for _, back in found] == [describe(made)] * 2
    assert (
        parallel_map(lambda _: data_jobs.describe(held), range(2), backend="processes")
        == [describe(made)] * 2
    )


def test_nothing_is_moved():
    """Whole or in parts, captured or as an argument, call after call, by every way."""
    held = share(np.arange(BIG, dtype=float))
    whole = [held] * 20
    parts = [held[n * 1000 : (n + 1) * 1000] for n in range(20)]
    columns = [held.reshape(500, 600)[n] for n in range(20)]
    for items in (whole, parts, columns):
        found = parallel_map(data_jobs.total, items, backend="processes")
        assert found == [item.sum() for item in items]
        assert found.report.bytes_in < 100_000
        assert "sent once" not in str(found.report)
    found = parallel_map(lambda i: float(held[i]), range(20), backend="processes")
    assert found == list(range(20))
    before = in_memory()
    with ProcessPoolExecutor(2) as executor:
        assert list(executor.map(data_jobs.total, whole)) == [held.sum()] * 20
        assert in_memory() <= before
    assert list(parallel_imap(data_jobs.total, whole, backend="processes")) == [held.sum()] * 20


def test_nobody_writes_to_what_is_read_only():
    """Neither here nor in a worker; and what is shared is a copy."""
    made = np.full(BIG, 2.0)
    held = share(made)
    made[:] = 3.0
    assert held[0] == held[-1] == 2.0
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 1.0
    with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
        held.flags.writeable = True
    found = parallel_map(data_jobs.try_to_write, [held] * 4, backend="processes")
    assert found == [(False, 2.0)] * 4
    assert held[0] == 2.0


def test_what_is_really_shared():
    """What a worker writes is seen here, and what is written here is seen by the next call."""
    image = shared_empty((60, 1000))
    assert (image == 0).all()
    assert image.dtype == float
    assert parallel_map(
        functools.partial(data_jobs.fill_row, image), range(60), backend="processes"
    )
    assert [set(row) for row in image] == [{float(n)} for n in range(60)]
    image[:] = -1.0
    rows = [image[n] for n in range(60)]
    assert parallel_map(data_jobs.total, rows, backend="processes") == [-1000.0] * 60
    with ProcessPoolExecutor(2) as executor:
        wait([executor.submit(data_jobs.add_at, image[n], slice(None)) for n in range(60)])
    assert (image == 0).all()


PARTS = {
    "a row": lambda image, n: image[n],
    "a column": lambda image, n: image[:, n],
    "every other": lambda image, n: image[n, ::2],
    "reversed": lambda image, n: image[::-1, n],
    "transposed": lambda image, n: image.T[n],
    "a block": lambda image, n: image[n : n + 1, 3:7],
    "one element": lambda image, n: image[n, n : n + 1],
    "a view of another type": lambda image, n: image[n].view("i8"),
}


@pytest.mark.parametrize("name", PARTS)
def test_writes_to_a_part_are_seen(name):
    """Also to one that is not in one piece, or small; captured, and as an argument."""
    image, wanted = shared_empty((60, 700)), np.zeros((60, 700))
    parts = [PARTS[name](image, n) for n in range(60)]
    for n in range(60):
        PARTS[name](wanted, n)[...] += 1
    parallel_map(lambda n: data_jobs.add_at(parts[n], ...), range(60), backend="processes")
    assert np.array_equal(image, wanted)
    image[:] = 0.0
    job = functools.partial(data_jobs.add_at, place=...)
    parallel_map(job, parts, backend="processes")
    assert np.array_equal(image, wanted)


def test_workers_see_each_others_writes(tmp_path):
    """Two items that run at once, in two workers."""
    held = shared_copy(np.full(BIG, 1.0))
    job = functools.partial(data_jobs.write_and_meet, str(tmp_path), held)
    first, second = parallel_map(job, [0, 1], backend="processes", max_workers=2, chunksize=1)
    assert first[3] != second[3]
    assert held[0] in {10.0, 11.0}
    assert {first[1], second[1]} <= {10.0, 11.0}


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_it_outlives_the_workers(cold_pool, method):
    """Workers that are started later map it, too."""
    if method == "zygote" and not sys.platform.startswith("linux"):
        pytest.skip("the zygote is for Linux")
    held, free = share(np.full(BIG, 2.0)), shared_empty(BIG)
    with options(start_method=method):
        for turn in range(3):
            free[:] = turn
            found = parallel_map(data_jobs.total, [held, free], backend="processes")
            assert found == [2.0 * BIG, float(turn * BIG)]
            others = [np.full(BIG, float(n)) for n in range(5)]
            assert parallel_map(data_jobs.total, others, backend="processes") == [
                n * BIG for n in range(5)
            ]
            cold_pool()
    if method == "spawn":
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            assert executor.submit(data_jobs.total, held).result() == 2.0 * BIG


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_it_goes_with_its_last_reference(cold_pool):
    """A part of it keeps it; nothing else does."""
    start = in_memory()
    held = share({"a": np.ones(BIG), "b": np.zeros(BIG)})
    assert parallel_map(lambda i: held["a"][i] + held["b"][i], [3], backend="processes") == [1.0]
    part = held["a"][5:7]
    held = None
    gc.collect()
    cold_pool()
    assert in_memory() <= start + BIG * 8 + (1 << 17)
    assert parallel_map(data_jobs.total, [part], backend="processes") == [2.0]
    part = None
    cold_pool()
    assert in_memory() <= start


def test_a_worker_that_keeps_it():
    """It stays right there when the caller has dropped it and shares other things."""
    held = share(np.full(BIG, 5.0))
    with ProcessPoolExecutor(1) as executor:
        executor.submit(data_jobs.keep, held).result()
        del held
        gc.collect()
        more = [share(np.full(BIG, float(n))) for n in range(10)]
        totals = [executor.submit(data_jobs.total, one).result() for one in more]
        assert totals == [n * BIG for n in range(10)]
        assert executor.submit(data_jobs.kept_total, 0).result()[1] == 5.0 * BIG


def test_waiting_calls_keep_it():
    """An executor's queue refers to it after the caller does not."""
    with ProcessPoolExecutor(1) as executor:
        futures = [
            executor.submit(data_jobs.total, share(np.full(BIG, float(n)))) for n in range(30)
        ]
        assert [future.result() for future in futures] == [float(n * BIG) for n in range(30)]


def test_results_are_not_shared():
    """What comes back is the caller's own, also where it is a part of what is shared."""
    held = shared_copy(np.arange(BIG, dtype=float))
    (back,) = parallel_map(data_jobs.tail, [held], backend="processes")
    back[:] = 0.0
    assert np.array_equal(held, np.arange(BIG))
    copy = pickle.loads(pickle.dumps(held))
    copy[:] = 0.0
    assert held[1] == 1.0


def test_inside_an_item():
    """Calls inside calls get it, and a worker may share what it has made."""

    def nested(level):
        own = shared_copy(np.full(BIG, float(level)))
        rows = [own[:1000], own[1000:]]
        parallel_map(lambda n: data_jobs.add_at(rows[n], slice(None)), range(2))
        inner = parallel_map(data_jobs.total, [held, own], backend="processes")
        return list(inner), float(own[0]), float(own[-1])

    held = share(np.full(BIG, 2.0))
    found = parallel_map(nested, range(3), backend="processes")
    assert found == [
        ([2.0 * BIG, (level + 1.0) * BIG], level + 1.0, level + 1.0) for level in range(3)
    ]


@pytest.mark.parametrize(
    "obj",
    [
        b"bytes" * 100_000,
        bytearray(100_000),
        "text",
        3,
        None,
        {"a": 1},
        [1, 2],
        (),
        np.array([object()], object),
    ],
)
def test_what_cannot_be_shared(obj):
    """It is refused, with a word on what to do."""
    with pytest.raises(ValueError, match="can be shared"):
        share(obj)


def test_wrong_arguments():
    with pytest.raises(ValueError, match='must be "r" or "rw"'):
        share(np.ones(5), mode="w")
    with pytest.raises(ValueError, match="object"):
        shared_empty(5, object)
    with pytest.raises(ValueError, match="object"):
        shared_copy(np.array([None]))
    with pytest.raises(ValueError, match="negative"):
        shared_empty((3, -1))


@pytest.mark.parametrize("shape", [0, (), (0, 5), (3, 0), 7, (2, 3), np.int64(4)])
def test_shapes(shape):
    """Arrays of no elements, of one, and of few."""
    made = shared_empty(shape, "i4")
    assert made.shape == np.empty(shape).shape
    assert made.flags.writeable
    assert (made == 0).all()
    copy = shared_copy(np.ones(shape, "u1"))
    assert (copy.dtype, copy.shape) == (np.uint8, made.shape)
    found = parallel_map(data_jobs.describe, [made, copy], backend="processes")
    assert found == [describe(made), describe(copy)]
    if made.size and made.ndim:
        parallel_map(functools.partial(data_jobs.add_at, made), [0, 0], backend="processes")
        assert made.ravel()[0] > 0


def test_zeros_after_other_data():
    """Memory that was used before is empty again."""
    for _ in range(5):
        made = [np.full(BIG, 7.0) for _ in range(4)]
        parallel_map(data_jobs.total, made, backend="processes")
        assert not shared_empty(BIG).any()
        assert not shared_empty((BIG // 2, 3)).any()


def test_counting_in_shared_memory_is_not_sent_to_processes():
    """They would race for it, as threads would; so it does not tell to ask for them."""
    counts = shared_empty(4, int)

    def count(n):
        counts[n % 4] += 1

    verdict = judge(except_shared(scan(count, (0,)), count, (0,)), [])
    assert verdict.limit == "loop"
    assert "processes would race for it as well" in verdict.reason
    parallel_map(count, range(100))
    assert counts.tolist() == [25] * 4


def test_a_memoryview_of_any_format_can_be_shared():
    for view in (memoryview(np.arange(9, dtype=">i4")), memoryview(np.ones((2, 3), "F"))):
        shared = share(view)
        assert (shared.format, shared.shape, shared.readonly) == (view.format, view.shape, True)
        assert shared.tobytes() == view.tobytes()
