"""Objects to frames and back: equal, writable, of the same class; and what does not travel."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from fractions import Fraction

import jobs
import numpy as np
import pytest
from helpers.effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax._backends.processes.parent.call_encoding import needs
from parallax._transport import codec
from parallax._transport import encoded as encoded_module
from parallax._transport.by_value import encode_by_value
from parallax._transport.codec import decode, encode
from parallax._transport.encoded import MIN_BUFFER_BYTES
from parallax._transport.pickle_diagnosis import find_unpicklable

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False)
    | st.fractions(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


def received(encoded):
    """As the other end gets it: buffers in memory of its own."""
    return decode(bytes(encoded.payload), [bytearray(b) for b in encoded.buffers])


@settings(max_examples=examples(60), deadline=None)
@given(VALUES)
def test_round_trip(value):
    """Plain values come back equal, of the same type."""
    back = received(encode(value))
    assert back == value
    assert type(back) is type(value)
    assert received(codec.encode_reply(value)) == value


@pytest.mark.parametrize("size", [0, 1, MIN_BUFFER_BYTES // 8 - 1, MIN_BUFFER_BYTES // 8, 100_000])
def test_arrays(size):
    """Arrays come back equal and writable; large ones travel out of band."""
    array = np.arange(float(size))
    for encoder in (encode, encode_by_value, codec.encode_reply):
        encoded = encoder([array, array])
        back = received(encoded)
        np.testing.assert_array_equal(back[0], array)
        assert back[0].flags.writeable
        assert bool(encoded.buffers) == (array.nbytes >= MIN_BUFFER_BYTES)
        assert encoded.nbytes >= array.nbytes
        assert back[0] is back[1]


def test_memory_is_not_copied_for_the_journey():
    """The buffer of a large array is the array's own memory."""
    array = np.zeros(100_000)
    (buffer,) = encode(array).buffers
    assert np.shares_memory(np.frombuffer(buffer, dtype=array.dtype), array)


def test_functions_by_value():
    """Lambdas and closures travel with what they captured."""
    captured = {"a": Fraction(1, 3)}
    assert received(encode(lambda x: captured["a"] * x))(3) == 1


def test_importable_functions_by_reference():
    """A function of a module is only named."""
    assert received(encode(jobs.square)) is jobs.square
    assert len(encode(jobs.square).payload) < 100


PROGRAM = """
import json, subprocess, sys
from parallax._transport import codec
factor = 3
class Point:
    def __init__(self, x): self.x = x
def scale(p): return Point(p.x * factor)
encoded = codec.encode((scale, [Point(5)]))
assert not encoded.buffers
child = subprocess.run([sys.executable, "-c", '''
import sys
from parallax._transport import codec
fn, items = codec.decode(sys.stdin.buffer.read())
sys.stdout.buffer.write(codec.encode_reply([fn(i) for i in items]).payload)
'''], input=encoded.payload, capture_output=True)
assert not child.stderr, child.stderr.decode()
(back,) = codec.decode(child.stdout)
print(json.dumps([type(back) is Point, back.x, Point.__module__]))
"""


def test_main_functions_and_classes_through_a_child():
    """Functions of ``__main__`` run elsewhere; its classes come back as the very same class."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [True, 15, "__main__"]


def test_main_in_a_string_only():
    """A text that happens to say ``__main__`` travels as any other."""
    assert received(encode(["__main__", "c__main__\n"])) == ["__main__", "c__main__\n"]


LOCK = threading.Lock()


class Holder:
    def __init__(self, held):
        self.held = held


def _captures():
    inner = threading.Lock()
    return lambda: inner


def _reads_global():
    return LOCK


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (threading.Lock, "item"),
        (lambda: [0, threading.Lock()], "item[1]"),
        (lambda: {"a": {"b": (1, threading.Lock())}}, "item['a']['b'][1]"),
        (lambda: Holder(threading.Lock()), "item.held"),
        (lambda: Holder([Holder({3: threading.Lock()})]), "item.held[0].held[3]"),
        (_captures, "item closure variable 'inner'"),
    ],
)
def test_culprit(make, path):
    """The path leads to the innermost part that does not travel, with the pickler's words."""
    found, reason = find_unpicklable(make(), "item")
    assert found == path
    assert "lock" in reason


def test_culprit_in_a_partial():
    """Through the arguments of a partial and the owner of a bound method."""
    import functools

    found, _ = find_unpicklable(functools.partial(jobs.add, threading.Lock()), "callable")
    assert found == "callable.args[0]"
    found, _ = find_unpicklable(jobs.Adder(threading.Lock()).method, "callable")
    assert found.endswith("__self__.by")


def test_culprit_of_a_cycle():
    """A structure that contains itself does not lead in circles."""
    cycle: list = [threading.Lock()]
    cycle.insert(0, cycle)
    assert find_unpicklable(cycle, "item")[0] == "item[1]"


def test_culprit_is_told_of_odd_errors():
    """Whatever ``__reduce__`` raises is the reason."""

    class Odd:
        def __reduce__(self):
            raise ZeroDivisionError("odd")

    path, reason = find_unpicklable({"k": Odd()}, "result")
    assert path == "result['k']"
    assert "odd" in reason


def test_needs():
    """The modules that a pickle would import are known without running it."""
    found = needs(encode([Fraction(1, 2), np.zeros(3), jobs.square]).payload)
    assert "fractions" in found
    assert "jobs" in found
    assert any(name.startswith("numpy") for name in found)
    assert needs(b"not a pickle") == set()
    assert needs(encode([1, "text", None]).payload) == set()


def test_slotted_classes_of_main_come_back():
    """cloudpickle rebuilds classes with ``__slots__`` without them; the parent's have them."""
    program = textwrap.dedent(
        """
        from parallax import parallel_map
        class A:
            __slots__ = ("x", "__weakref__")
            def __init__(self, x): self.x = x
        class B(A):
            __slots__ = ("y",)
            def __init__(self, x): self.x = x; self.y = -x
        class C(A):
            pass
        got = parallel_map(lambda k: k(3), [A, B, C], backend="processes")
        assert [type(v) for v in got] == [A, B, C]
        assert (got[0].x, got[1].x, got[1].y, got[2].x) == (3, 3, -3, 3)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr == ""


def test_more_buffers_than_a_header_can_name_travel_all_the_same():
    """Those above the limit are copied into the pickle."""
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.full(1 << 15, number % 251, numpy.uint8)
        for number in range(encoded_module.MAX_BUFFERS + 3)
    ]
    encoded = codec.encode(arrays)
    assert len(encoded.buffers) == encoded_module.MAX_BUFFERS
    back = codec.decode(encoded.payload, [bytearray(b) for b in encoded.buffers])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays[-5:], back[-5:], strict=True))
