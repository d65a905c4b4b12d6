"""Large objects that pickle would copy into its stream travel beside it, and come back the same."""

from __future__ import annotations

import array
import sys
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from parallax import _bulk, _codec

ENCODERS = (_codec.encode, _codec.encode_by_value, _codec.encode_reply)
BLOCK = bytes(range(256)) * 1200


@dataclass
class Pair:
    first: Any
    second: Any = None


def there_and_back(obj: Any, encode: Any = _codec.encode) -> Any:
    encoded = encode(obj)
    return _codec.decode(encoded.payload, [bytearray(b) for b in encoded.buffers])


def beside(obj: Any, encode: Any = _codec.encode) -> int:
    return sum(b.nbytes for b in encode(obj).buffers)


def make_large(kind: str) -> Any:
    return {
        "bytes": BLOCK,
        "bytearray": bytearray(BLOCK),
        "array": array.array("d", range(40_000)),
        "memoryview": memoryview(BLOCK),
        "memoryview of numbers": memoryview(np.arange(60_000.0).reshape(300, 200)),
        "every second": np.arange(80_000.0)[::2],
        "backwards": np.arange(40_000)[::-1],
        "turned and cut": np.arange(90_000.0).reshape(300, 300).T[:, 20:],
        "dates": np.arange("2001", "2201", dtype="datetime64[D]")[::2],
        "dates in one piece": np.arange(40_000).astype("m8[s]"),
        "dates in columns": np.arange(40_000).astype("M8[s]").reshape(200, 200).T,
        "big end first": np.arange(80_000, dtype=">i4")[::2],
        "structured": np.zeros(20_000, [("x", "f8"), ("y", "i2")])[::2],
        "spread out": np.broadcast_to(np.arange(300.0), (200, 300)),
    }[kind]


KINDS = (
    *("bytes", "bytearray", "array", "memoryview", "memoryview of numbers", "every second"),
    *("backwards", "turned and cut", "dates", "big end first", "structured", "spread out"),
    *("dates in one piece", "dates in columns"),
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return (
            type(other) is np.ndarray
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, memoryview):
        return (one.format, one.shape) == (other.format, other.shape) and one == other
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("encode", ENCODERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_large_objects_go_beside_the_pickle(kind: str, encode: Any) -> None:
    large = make_large(kind)
    for obj in (large, (1, large), [large], {"k": large}, Pair(large), SimpleNamespace(x=[large])):
        encoded = encode(obj)
        # Classes of this file may travel by value, which is a few kilobytes.
        assert len(encoded.payload) < 10_000
        size = large.nbytes if hasattr(large, "nbytes") else memoryview(large).nbytes
        assert sum(b.nbytes for b in encoded.buffers) == size
    assert same(large, there_and_back(large, encode))
    assert same(large, there_and_back([0, {"k": (large,)}], encode)[1]["k"][0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_met_twice_is_one_afterwards(kind: str) -> None:
    large = make_large(kind)
    one, (two,) = there_and_back((large, [large]))
    assert one is two
    assert beside((large, [large])) == beside(large)
    first, second = there_and_back((large, make_large("bytearray")))
    assert same(large, first)
    assert second == BLOCK


@pytest.mark.parametrize("kind", ["bytearray", "array", "every second", "backwards"])
def test_what_comes_back_can_be_written_to(kind: str) -> None:
    back = there_and_back(make_large(kind))
    back[0] = 7
    assert back[0] == 7


def test_a_memoryview_of_any_size_stays_one() -> None:
    for view in (
        memoryview(b"abc"),
        memoryview(b""),
        memoryview(bytearray(b"abc")),
        memoryview(b"abcdef")[::2],
        memoryview(array.array("h", [1, 2, 3])),
        memoryview(np.arange(6.0).reshape(2, 3)),
    ):
        for encode in ENCODERS:
            back = there_and_back({"view": view}, encode)["view"]
            assert type(back) is memoryview
            assert same(view, back)
            assert back.readonly == view.readonly


def test_small_objects_are_pickled_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_codec, "anything", lambda: False)  # shared by name
    for obj in (b"x" * 1000, [1, 2.0, "x"], np.arange(100)[::2], array.array("i", [1])):
        encoded = _codec.encode(obj)
        assert encoded.payload[0] == 0x80
        assert encoded.buffers == []


def test_what_the_look_misses_arrives_all_the_same() -> None:
    deep: Any = BLOCK
    for _ in range(200):
        deep = [deep]
    back = there_and_back(deep)
    for _ in range(200):
        (back,) = back
    assert back == BLOCK
    hidden = OrderedDict(x=array.array("u", "a" * 60_000) if sys.version_info < (3, 13) else "a")
    assert there_and_back(hidden) == hidden


def test_dates_deep_inside_of_a_data_frame() -> None:
    import pandas as pd

    dates = pd.date_range("2001", periods=50_000, freq="min")
    frame = pd.DataFrame({"when": dates, "much": range(50_000)}, index=dates)
    for encode in ENCODERS[::2]:
        encoded = encode([frame])
        assert len(encoded.payload) < 10_000
        pd.testing.assert_frame_equal(there_and_back([frame], encode)[0], frame, check_freq=False)


def test_a_list_that_holds_itself() -> None:
    itself: list[Any] = [BLOCK]
    itself.append(itself)
    back = there_and_back(itself)
    assert back[1] is back
    assert back[0] == BLOCK
    ring: list[Any] = []
    ring.append(ring)
    assert not _bulk.has_bulk(ring)


def test_arrays_of_objects_and_subclasses_are_left_to_themselves() -> None:
    objects = np.array([{"a": 1}, None] * 10_000, dtype=object)[::2]
    assert (there_and_back(objects) == objects).all()
    masked = np.ma.masked_array(np.arange(40_000.0), mask=np.arange(40_000) % 2 == 0)[::2]
    back = there_and_back(masked)
    assert type(back) is np.ma.MaskedArray
    assert (back.mask == masked.mask).all()


def test_the_look_runs_nobodys_code() -> None:
    class Nosy:
        def __len__(self) -> int:
            raise AssertionError("asked")

        def __iter__(self) -> Any:
            raise AssertionError("asked")

    assert not _bulk.has_bulk([Nosy(), (Nosy(),), {"k": Nosy()}])


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.arange(40_000.0),
        torch.arange(40_000).to(torch.bfloat16),
        torch.arange(40_000.0).reshape(200, 200).T,
        torch.zeros(40_000, dtype=torch.bool),
    ):
        back = there_and_back([tensor])[0]
        assert torch.equal(back, tensor)
        assert back.dtype == tensor.dtype
        assert beside([tensor]) == tensor.nelement() * tensor.element_size()


SIZES = st.sampled_from([0, 1, 63, 64, 65, 200])
LEAVES = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=5),
    SIZES.map(lambda n: bytes(n)),
    SIZES.map(lambda n: bytearray(b"ab" * (n // 2))),
    SIZES.map(lambda n: array.array("h", range(n))),
    SIZES.map(lambda n: memoryview(bytes(range(n % 256)))),
    nps.arrays(
        st.sampled_from(["f8", ">i4", "c16", "?", "M8[s]", "S3", "U2", [("a", "i4"), ("b", "f4")]]),
        st.sampled_from([(), (0,), (3, 0), (40,), (7, 9), (2, 3, 20)]),
        elements=None,
    ).map(lambda a: a if a.dtype.kind not in "fc" else np.nan_to_num(a)),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.integers(), inner, max_size=3),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=8,
)


def cut(value: Any) -> Any:
    """Every second element of arrays, so that they are not in one piece."""
    if isinstance(value, np.ndarray) and value.ndim:
        return value[::-1, ...] if value.ndim > 1 else value[::2]
    return value


def equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, Pair):
        return equal(one.first, other.first) and equal(one.second, other.second)
    return same(one, other)


@pytest.mark.parametrize("encode", ENCODERS, ids=lambda f: f.__name__)
@settings(max_examples=60, deadline=None)
@given(value=VALUES)
def test_nested_objects_come_back_equal(encode: Any, value: Any) -> None:
    before = _bulk.BULK, _codec.OUT_OF_BAND
    _bulk.BULK, _codec.OUT_OF_BAND = 64, 64
    try:
        for obj in (value, [cut(value), value]):
            assert equal(there_and_back(obj, encode), obj)
    finally:
        _bulk.BULK, _codec.OUT_OF_BAND = before
