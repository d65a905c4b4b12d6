"""Large objects that pickle would copy into its stream travel beside it, and come back the same."""

from __future__ import annotations

import array
import ctypes
import sys
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from parallax._backends.processes.parent.task import outcomes
from parallax._backends.result_encoding import encode_batch
from parallax._core.chunks import ChunkResult
from parallax._transport import codec, out_of_band
from parallax._transport import encoded as encoded_module
from parallax._transport.by_value import encode_by_value

ENCODERS = (codec.encode, encode_by_value, codec.encode_reply)
BLOCK = bytes(range(256)) * 1200


@dataclass
class Pair:
    first: Any
    second: Any = None


def there_and_back(obj: Any, encode: Any = codec.encode) -> Any:
    encoded = encode(obj)
    return codec.decode(encoded.payload, [bytearray(b) for b in encoded.buffers])


def beside(obj: Any, encode: Any = codec.encode) -> int:
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
        sent = sum(b.nbytes for b in encoded.buffers)
        assert sent == (0 if kind == "spread out" else size)  # that is one row, many times
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


def strange_views() -> dict[str, memoryview]:
    return {
        "no dimension": memoryview(np.array(3.5)),
        "big end first": memoryview(np.arange(4, dtype=">i4")),
        "structured": memoryview(np.zeros(3, [("a", "i4"), ("b", "f8")])),
        "complex": memoryview(np.ones((2, 3), "c16")),
        "halves": memoryview(np.ones(5, "f2")),
        "strings": memoryview(np.array([b"abc", b"de"])),
        "columns": memoryview(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        "backwards": memoryview(bytearray(b"abcdef"))[::-1],
        "nothing in rows": memoryview(np.zeros((0, 3))),
        "characters": memoryview(b"abc").cast("c"),
        "read-only rows": memoryview(np.arange(6.0).reshape(2, 3)).toreadonly(),
        "no numbers": memoryview(array.array("i")),
    }


@pytest.mark.parametrize("encode", ENCODERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", strange_views())
def test_memoryviews_of_any_format_and_shape(name: str, encode: Any) -> None:
    view = strange_views()[name]
    # The last is where no look gets, in an object that has no attributes to look at.
    for obj in ([view], [*[0] * 50, view, *[0] * 49], [OrderedDict(view=[view])]):
        back = there_and_back(obj, encode)
        back = back[50] if len(back) > 1 else back[0]
        back = back["view"][0] if isinstance(back, OrderedDict) else back
        assert type(back) is memoryview
        like = back.format, back.shape, back.readonly, back.tobytes()
        assert like == (view.format, view.shape, view.readonly, view.tobytes())


def test_memoryviews_of_ctypes_can_be_read() -> None:
    """Python itself cannot read those that name a byte order."""
    numbers = (ctypes.c_int * 4)(1, 2, 3, 4)
    assert memoryview(numbers).format[0] in "<>"
    assert there_and_back(memoryview(numbers)).tolist() == [1, 2, 3, 4]


def test_a_memoryview_looks_at_what_came() -> None:
    encoded = codec.encode([memoryview(np.arange(40_000.0))])
    (buffer,) = map(bytearray, encoded.buffers)
    (back,) = codec.decode(encoded.payload, [buffer])
    back[0] = 7.0
    assert buffer[:8] == np.float64(7).tobytes()


def test_memoryviews_of_python_objects_do_not_travel() -> None:
    """Their content would be addresses."""
    for encode in ENCODERS:
        with pytest.raises(TypeError, match="memoryview of format 'O'"):
            encode([memoryview(np.array([None, "x"], dtype=object))])


@pytest.mark.parametrize("encode", ENCODERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("make", [lambda: bytearray(BLOCK), lambda: array.array("B", BLOCK)])
def test_what_is_on_its_way_can_be_resized(make: Any, encode: Any) -> None:
    large = make()
    encoded = encode([large])
    large.append(1)
    (back,) = codec.decode(encoded.payload, [bytearray(b) for b in encoded.buffers])
    assert bytes(back) == BLOCK
    back.append(1)
    assert back == large


@pytest.mark.parametrize("memory", [bytes, bytearray, lambda data: memoryview(data)])
def test_a_payload_is_read_where_it_lies(memory: Any) -> None:
    """Also one that is longer than what is read of a file at once."""
    value = [BLOCK, "x" * 300_000, {str(n): n * 1.5 for n in range(30_000)}, bytearray(BLOCK)]
    encoded = codec.encode(value)
    payload = memory(encoded.payload)
    back = codec.decode(payload, [bytearray(b) for b in encoded.buffers])
    assert back == value
    tracemalloc.start()
    try:
        text = "x" * 4_000_000
        encoded = codec.encode([BLOCK, text])
        payload, buffers = memory(encoded.payload), [bytearray(b) for b in encoded.buffers]
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        back = codec.decode(payload, buffers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert back == [BLOCK, text]
    assert peak - before < 1.5 * len(text)


def test_small_objects_are_pickled_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "any_shared", lambda: False)  # shared by name
    for obj in (b"x" * 1000, [1, 2.0, "x"], np.arange(100)[::2], array.array("i", [1])):
        encoded = codec.encode(obj)
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
    assert not out_of_band.has_large_buffers(ring)


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

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    class Slotted(Nosy):
        __slots__ = ()

    assert not out_of_band.has_large_buffers([Nosy(), (Nosy(),), {"k": Nosy()}, Slotted()])


class OddMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in {"__module__", "__dictoffset__"}:
            raise ZeroDivisionError(name)
        return super().__getattribute__(name)


class Zero:
    """Travels as a zero, so that it may be as odd as it likes otherwise."""

    def __reduce__(self) -> Any:
        return int, ()


class OddClass(Zero, metaclass=OddMeta):
    pass


class OddDict(Zero):
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not now")


class OddSlots:
    __slots__ = ()
    __reduce__ = Zero.__reduce__

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


@pytest.mark.parametrize("encode", [codec.encode, codec.encode_reply], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [OddClass, OddDict, OddSlots])
def test_odd_objects_travel_as_they_want_to(kind: Any, encode: Any) -> None:
    assert there_and_back([kind(), 1], encode) == [0, 1]
    assert there_and_back([BLOCK, kind()], encode) == [BLOCK, 0]


def test_what_cannot_be_sent_beside_the_stream_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not upset the numbers of what can."""

    def fails(kind: int, obj: Any) -> Any:
        if type(obj) is bytearray:
            raise MemoryError
        return parts(kind, obj)

    parts = out_of_band._parts
    monkeypatch.setattr(out_of_band, "_parts", fails)
    obj = [BLOCK, bytearray(BLOCK), numbers := array.array("d", range(40_000)), numbers]
    back = there_and_back(obj)
    assert back == obj
    assert back[2] is back[3]
    assert beside(obj) == len(BLOCK) + 320_000


def test_types_are_known_by_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is merely called like a package does not count."""
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor="none"))
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.setitem(sys.modules, "array", SimpleNamespace())
    assert out_of_band.has_large_buffers([array.array("d", range(40_000)), BLOCK])
    assert not out_of_band.has_large_buffers(
        [array.array("d", range(40_000)), np.arange(80_000)[::2]]
    )


def test_the_look_is_short() -> None:
    """It finds the first and the last of many and looks at few; huge dicts are not copied."""
    assert out_of_band.has_large_buffers([BLOCK, *range(5000)])
    assert out_of_band.has_large_buffers([*range(5000), BLOCK])
    assert out_of_band.has_large_buffers([(n, "x", Pair(n, {"k": BLOCK})) for n in range(5000)])
    many = dict.fromkeys(range(200_000))
    tracemalloc.start()
    try:
        assert not out_of_band.has_large_buffers([many])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000


def test_the_parts_of_a_batch_bring_the_only_buffers() -> None:
    """Some results are pickled twice: their own pickle is large bytes in that of the batch."""
    values = [1, list(range(40_000)), BLOCK, bytearray(BLOCK), np.arange(40_000.0)]
    encoded = encode_batch(ChunkResult(list(values), (), 0.0, 0.0))
    buffers = [bytearray(b) for b in encoded.buffers]
    frame = SimpleNamespace(open=lambda: (encoded.payload, buffers))
    found, _, _ = outcomes(frame)  # type: ignore[arg-type]
    assert all(
        same(one, back) and error is None for one, (back, error) in zip(values, found, strict=True)
    )
    assert len(buffers) == 2


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
        back[0] = 1
    both = there_and_back([tensor, (tensor,)])
    assert both[0] is both[1][0]
    complex_ = torch.arange(40_000.0) * 1j
    for left in (  # to PyTorch's own way
        torch.arange(40_000.0).requires_grad_(),
        torch.zeros(1).expand(40_000),
        torch.nn.Parameter(torch.zeros(40_000)),
        complex_.conj(),
    ):
        back = there_and_back([left])[0]
        assert type(back) is type(left)
        assert back.requires_grad == left.requires_grad
        assert torch.equal(back.resolve_conj(), left.resolve_conj())
    assert codec.encode([torch.zeros(1).expand(1 << 20)]).nbytes < 10_000


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
    """The same in ways that are not in one piece, turned, spread out or read-only."""
    if not isinstance(value, np.ndarray) or not value.ndim:
        return value
    fixed = value[::-1].copy()
    fixed.flags.writeable = False
    spread = np.broadcast_to(value, (3, *value.shape))
    return [value[::-1, ...], value[::2], value.T, np.asfortranarray(value), fixed, spread]


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
@settings(max_examples=examples(60), deadline=None)
@given(value=VALUES)
def test_nested_objects_come_back_equal(encode: Any, value: Any) -> None:
    before = out_of_band.MIN_OUT_OF_BAND_BYTES, encoded_module.MIN_BUFFER_BYTES
    out_of_band.MIN_OUT_OF_BAND_BYTES, encoded_module.MIN_BUFFER_BYTES = 64, 64
    try:
        for obj in (value, [cut(value), value]):
            encoded = encode(obj)
            # As the wire brings it: memory of the receiver's own.
            buffers = [bytearray(b) for b in encoded.buffers]
            back = codec.decode(memoryview(bytearray(encoded.payload)), buffers)
            assert equal(back, obj)
    finally:
        out_of_band.MIN_OUT_OF_BAND_BYTES, encoded_module.MIN_BUFFER_BYTES = before
