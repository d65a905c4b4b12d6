"""Big data through processes: equal there and back, writable, and nobody sees another's writes."""

from __future__ import annotations

import array
import functools
import pickle

import numpy as np
import pandas as pd
import pytest
from jobs import data as data_jobs
from jobs.data import BIG, MIDDLE, Record, describe

from parallax import ProcessPoolExecutor, parallel_imap, parallel_map

pytestmark = pytest.mark.sampled(2)

STRUCTURE = np.dtype([("id", "<i4"), ("at", "<f8", (3,)), ("name", "S5")])


def structured():
    made = np.zeros(BIG // 4, STRUCTURE)
    made["id"] = np.arange(len(made))
    made["at"] = 2.5
    made["name"] = b"abc"
    return made


def read_only(made):
    made.flags.writeable = False
    return made


def table():
    rows = 30_000
    return pd.DataFrame(
        {
            "whole": np.arange(rows),
            "real": np.linspace(0, 1, rows),
            "more": np.linspace(2, 3, rows),
            "most": np.linspace(4, 5, rows),
            "flag": np.arange(rows) % 2 == 0,
            "text": ["one", "two", "three"] * (rows // 3),
            "when": pd.date_range("2020-01-01", periods=rows, freq="min"),
            "kind": pd.Categorical(["a", "b", "c"] * (rows // 3)),
            "lists": pd.Series([[1], ["x"], None] * (rows // 3), dtype=object),
        },
        index=pd.Index(range(7, rows + 7), name="key"),
    )


def grid():
    return np.arange(BIG, dtype=float).reshape(500, 600)


#: Makers of objects; each is sent, described there, and comes back.
OBJECTS = {
    "C order": grid,
    "Fortran order": lambda: np.asfortranarray(grid()),
    "three axes, Fortran": lambda: np.asfortranarray(grid().reshape(5, 100, 600)),
    "middle": lambda: np.arange(MIDDLE),
    "just below the border": lambda: np.arange((1 << 18) - 1, dtype=np.uint8),
    "just at the border": lambda: np.arange(1 << 18, dtype=np.uint8),
    "an odd number of bytes": lambda: np.arange(1_234_567, dtype=np.uint8),
    "one byte more than a page": lambda: np.arange((1 << 21) + 1, dtype=np.uint8),
    "structured": structured,
    "one field": lambda: structured()["at"],
    "record array": lambda: structured().view(np.recarray),
    "big-endian": lambda: np.arange(BIG, dtype=">f8"),
    "times": lambda: np.arange(BIG).astype("M8[s]"),
    "complex": lambda: np.arange(BIG) * (1 + 2j),
    "strings": lambda: np.arange(BIG).astype("U7"),
    "NaN": lambda: np.full(BIG, np.nan),
    "read-only": lambda: read_only(grid()),
    "a slice": lambda: grid()[100:400],
    "every other row": lambda: grid()[::2],
    "reversed": lambda: grid()[::-1, ::-1],
    "transposed": lambda: grid().T,
    "broadcast": lambda: np.broadcast_to(np.arange(600.0), (500, 600)),
    "a subclass": lambda: grid().view(data_jobs.Tagged),
    "masked": lambda: np.ma.masked_less(grid(), 10).filled(3),
    "0-d": lambda: np.array(3.5),
    "zero-length": lambda: np.zeros((0, 5)),
    "no elements but axes": lambda: np.zeros((3, 0, 1 << 20)),
    "of no bytes": lambda: np.zeros(BIG, "V0"),
    "objects": lambda: np.array([{"a": [i]} for i in range(5_000)] + [None], dtype=object),
    "DataFrame": table,
    "one dtype": lambda: pd.DataFrame(grid().reshape(-1, 6)),
    "part of a DataFrame": lambda: table().iloc[10:-10:3, 1:5],
    "Series": lambda: table()["real"],
    "empty DataFrame": lambda: table().iloc[:0],
    "bytes": lambda: bytes(range(256)) * 9000,
    "bytearray": lambda: bytearray(range(256)) * 9000,
    "array.array": lambda: array.array("d", range(BIG)),
    "empty ones": lambda: (b"", bytearray(), array.array("i")),
    "big pickle": lambda: list(range(1_000_000)),
    "long text": lambda: "grüße " * 900_000,
    "tuple": lambda: (grid(), 1, b"x" * 2_000_000, grid().T, None),
    "dict": lambda: {
        "a": grid(),
        ("b", 1): [structured(), np.array(1)],
        3: {"c": bytearray(1 << 20)},
    },
    "dataclass": lambda: Record("r", grid(), {"m": np.arange(MIDDLE), "t": ()}),
    "many parts": lambda: [np.full(MIDDLE, float(i)) for i in range(40)],
    "many small parts": lambda: [np.full(i % 7, float(i)) for i in range(300)],
}

MEMORYVIEWS = {
    "memoryview": lambda: memoryview(bytes(range(256)) * 9000),
    "writable memoryview": lambda: memoryview(bytearray(range(256)) * 9000)[7:-7],
    "memoryview of numbers": lambda: memoryview(grid()),
    "empty memoryview": lambda: (memoryview(b""), memoryview(np.zeros((0, 3)))),
}


class Through:
    """A way for items through worker processes."""

    def __init__(self, name):
        self.name = name
        self._executor = None

    def __call__(self, fn, items, *, chunksize=1):
        if self.name == "map":
            return parallel_map(fn, items, backend="processes", max_workers=2, chunksize=chunksize)
        if self.name == "imap":
            kwargs = {"backend": "processes", "max_workers": 2, "chunksize": chunksize}
            return list(parallel_imap(fn, items, **kwargs))
        if self._executor is None:
            self._executor = ProcessPoolExecutor(2)
        return list(self._executor.map(fn, items, chunksize=chunksize))

    def close(self):
        if self._executor is not None:
            self._executor.shutdown()


@pytest.fixture
def through(request):
    """Each public way in turn."""
    made = Through(request.param)
    yield made
    made.close()


def pytest_generate_tests(metafunc):
    if "through" in metafunc.fixturenames:
        metafunc.parametrize("through", ["map", "imap", "pool"], indirect=True)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("names", [list(OBJECTS)[i::6] for i in range(6)], ids=lambda n: n[0])
def test_equal_there_and_back(through, names):
    """Whatever it is, it is the same in the worker, and again the same when it comes back."""
    objects = [OBJECTS[name]() for name in names]
    wanted = [describe(obj) for obj in objects]
    for name, want, (there, back) in zip(
        names, wanted, through(data_jobs.describe_and_return, objects), strict=True
    ):
        assert there == want, name
        assert describe(back) == want, name
    assert [describe(obj) for obj in objects] == wanted


def test_memoryviews(through):
    """They show the same bytes in the same shape; plain pickle does not know them."""
    made = {name: make() for name, make in MEMORYVIEWS.items()}
    found = through(data_jobs.describe_and_return, list(made.values()))
    for (name, one), (there, back) in zip(made.items(), found, strict=True):
        assert there == describe(one), name
        assert describe(back) == describe(one), name


def test_order_in_memory(through):
    """What lies in one piece lies in the same order there and back."""
    names = ["C order", "Fortran order", "three axes, Fortran", "transposed", "a slice", "0-d"]
    objects = [OBJECTS[name]() for name in names]
    for made, (there, back) in zip(
        objects, through(data_jobs.layout_and_return, objects), strict=True
    ):
        assert there == data_jobs.layout(back) == data_jobs.layout(made)


@pytest.mark.parametrize(
    "name", ["C order", "Fortran order", "middle", "a slice", "structured", "one field"]
)
def test_writable_there_and_back(through, name):
    """Arrays come writable to the worker and back."""
    made = OBJECTS[name]()
    (there, back), (again, _) = through(data_jobs.writeable, [made, made])
    assert (there, again, back.flags.writeable) == (True, True, True)
    back[...] = back[0]
    assert describe(made) == describe(OBJECTS[name]())


def test_what_is_read_only_is_so_whatever_its_size(through):
    """As with pickle's own protocol 5."""
    for length in (10, 10_000, MIDDLE, BIG):
        made = read_only(np.arange(length, dtype=float))
        as_usual = pickle.loads(pickle.dumps(made, 5)).flags.writeable
        ((there, back),) = through(data_jobs.writeable, [made])
        assert (there, back.flags.writeable) == (as_usual, as_usual)


def test_writable_bytes_stay_what_they_are(through):
    """A bytearray can be written to and resized, bytes stay hashable."""
    (_, mutable), (_, fixed) = through(
        data_jobs.describe_and_return, [bytearray(b"x") * 2_000_000, b"x" * 2_000_000]
    )
    mutable[0] = 7
    mutable += b"more"
    del mutable[:1000]
    assert len(mutable) == 2_000_000 + 4 - 1000
    assert hash(fixed) == hash(b"x" * 2_000_000)


def test_items_with_the_same_array_do_not_see_each_others_writes(through):
    """One array as the argument of many items that overwrite it: each sees the caller's."""
    made = np.arange(BIG, dtype=float)
    before = through(data_jobs.overwrite, [made] * 12)
    assert before == [(0.0, BIG - 1.0)] * 12
    assert np.array_equal(made, np.arange(BIG))


def test_the_same_memory_under_several_names(through):
    """Views of one array in one item, and the array itself: all are right."""
    made = np.arange(BIG, dtype=float)
    item = (made, made[:], made[: BIG // 2], made[BIG // 2 :], made.reshape(500, 600), made)
    for there, back in through(data_jobs.describe_and_return, [item] * 6):
        assert there == describe(item)
        assert describe(back) == describe(item)


@pytest.mark.parametrize("kind", [bytes, bytearray, np.frombuffer])
def test_parts_of_one_buffer_are_told_apart(through, kind):
    """Parts of the same length of one object are not taken for each other."""
    size = 1 << 20
    raw = b"".join(bytes([65 + n]) * size for n in range(4))
    whole = np.frombuffer(raw, np.uint8) if kind is np.frombuffer else kind(raw)
    places = [0, 1, 2, 3, 0, 2, 1]
    items = [data_jobs.Slice(whole, n * size, (n + 1) * size) for n in places]
    found = [back for _, back in through(data_jobs.describe_and_return, items)]
    assert found == [bytes([65 + n]) * size for n in places]


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "argument"])
def test_two_workers_do_not_see_each_others_writes(through, tmp_path, captured):
    """Two items that overwrite the same array at once, in two workers."""
    made = np.full(BIG, 1.0)
    if captured:
        job, items = functools.partial(data_jobs.write_and_meet, str(tmp_path), made), [0, 1]
    else:
        job = functools.partial(data_jobs.meet_with, str(tmp_path))
        items = [(made, 0), (made, 1)]
    (first, second) = through(job, items)
    assert first[:3] == (1.0, 10.0, 10.0)
    assert second[:3] == (1.0, 11.0, 11.0)
    assert first[3] != second[3]
    assert made.min() == made.max() == 1.0


def test_what_changed_between_two_calls_is_sent_anew(through):
    """As an argument and captured, in the same object."""
    made = np.full(BIG, 1.0)
    for value in (1.0, 2.0, 3.0):
        made[:] = value
        assert through(data_jobs.total, [made] * 3) == [value * BIG] * 3
        assert through(functools.partial(data_jobs.at, made), [0, BIG - 1]) == [value] * 2
    mutable = bytearray(b"a") * 2_000_000
    for letter in b"abc":
        mutable[:] = bytes([letter]) * len(mutable)
        (there, _), _ = through(data_jobs.describe_and_return, [mutable] * 2)
        assert there == describe(mutable)


def test_other_arrays_at_the_same_address(through):
    """Memory that is used again for another array of the same size is not taken for the first."""

    def items():
        for value in range(40):
            yield np.full(BIG, float(value))

    assert through(data_jobs.total, items()) == [float(value) * BIG for value in range(40)]


def test_an_argument_that_a_worker_keeps(through):
    """What an item keeps in a global stays right, whatever is sent later."""
    made = np.full(BIG, 3.0)
    keepers = set(through(data_jobs.keep, [made] * 2))
    for value in range(20):
        others = [np.full(BIG, float(value))] * 4
        assert through(data_jobs.total, others) == [float(value) * BIG] * 4
        made[:] = -value  # the caller's own use of it does not matter either
    found = {pid: kept for pid, kept in through(data_jobs.kept_total, range(40)) if pid in keepers}
    assert set(found.values()) == {3.0 * BIG}
    # So that this worker gives it back.
    through(data_jobs.keep, [np.zeros(1)] * 40)


def test_a_result_that_is_the_argument(through):
    """Changed, or a part of it."""
    made = [np.arange(BIG) * float(n) for n in range(6)]
    for n, back in enumerate(through(data_jobs.doubled, made)):
        assert np.array_equal(back, np.arange(BIG) * (2.0 * n))
    for n, back in enumerate(through(data_jobs.tail, made)):
        assert np.array_equal(back, np.arange(BIG // 2, BIG) * float(n))
        assert back.flags.writeable


def test_a_result_that_is_kept(through):
    """It stays right while hundreds of others come, are written to, and go."""
    first = through(data_jobs.filled, [7, 8])
    for _ in range(6):
        for value, back in enumerate(through(data_jobs.filled, range(40))):
            assert back[0] == back[-1] == value
            back[:] = -1.0
    assert [(r.min(), r.max()) for r in first] == [(7.0, 7.0), (8.0, 8.0)]


@pytest.mark.parametrize("what", ["argument", "captured"])
def test_sent_once(what):
    """What fifty items use is sent once, and the report says so."""
    made = np.arange(BIG, dtype=float)
    if what == "captured":
        found = parallel_map(lambda i: made[i], range(50), backend="processes", chunksize=1)
    else:
        found = parallel_map(data_jobs.total, [made] * 50, backend="processes", chunksize=1)
    assert found == (list(range(50)) if what == "captured" else [made.sum()] * 50)
    report = found.report
    assert (report.bytes_once, report.bytes_spared) == (made.nbytes, 49 * made.nbytes)
    assert "2.4 MB sent once, not 50 times" in str(report)


def test_different_arrays_are_not_said_to_be_sent_once():
    """Nothing is counted that was not spared."""
    report = parallel_map(
        data_jobs.total, [np.ones(BIG) for _ in range(10)], backend="processes"
    ).report
    assert (report.bytes_once, report.bytes_spared) == (0, 0)
    assert "sent once" not in str(report)
