"""Any nest of containers with data in it comes back equal, whatever goes through shared memory."""

from __future__ import annotations

import array

import numpy as np
import pytest
from helpers.effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import data as data_jobs
from jobs.data import Record, describe

from parallax import ProcessPoolExecutor, parallel_map
from parallax._transport import encoded, shm_channel

#: Elements of a part: none, one, few, around the borders of what goes which way, and many.
LENGTHS = st.one_of(
    st.sampled_from([0, 1, 7, 500, 4095, 4096, 4097, 16383, 16384, 32768, 65536, 65537]),
    st.sampled_from([131072, 200_000]),
)
DTYPES = st.one_of(
    st.sampled_from(["f8", ">f8", "i1", "u2", "?", "c16", "f2", "U3", "S5", "V0", "V3", "O"]),
    st.sampled_from(["M8[ns]", "m8[D]"]),
    st.sampled_from(
        [
            [("a", "<i4"), ("b", "f8", (2,)), ("c", "S3")],
            [("x", "O"), ("y", "i1")],
            {"names": ["p", "q"], "formats": ["u1", "f8"], "offsets": [0, 9], "itemsize": 20},
        ]
    ),
)
SHAPES = st.sampled_from([(), (-1,), (-1, 1), (1, -1), (2, -1), (-1, 2, 1), (0, 3), (2, 0)])
VIEWS = st.sampled_from(["whole", "Fortran", "reversed", "every third", "read-only", "tail"])


@st.composite
def arrays(draw):
    dtype, length = np.dtype(draw(DTYPES)), draw(LENGTHS)
    made = np.zeros(length - length % 2, dtype)
    if dtype.kind in "fiuc":
        made += (np.arange(len(made)) % 100).astype(dtype)
        if dtype.kind in "fc" and len(made):
            made[-1] = np.nan
    elif dtype.kind in "US":
        made[::2] = "aé" if dtype.kind == "U" else b"x\0y"
    elif dtype.kind == "O":
        made[:] = [[1, None, "x"][n % 3] for n in range(len(made))]
    shape = draw(SHAPES)
    if shape == () or 0 in shape:
        made = np.resize(made[:1], ()) if shape == () and len(made) else np.zeros(shape, dtype)
    elif len(made):
        made = made.reshape(shape)
    view = draw(VIEWS)
    if view == "Fortran":
        made = np.asfortranarray(made)
    elif view == "reversed":
        made = made[..., ::-1] if made.ndim else made
    elif view == "every third":
        made = made[::3] if made.ndim else made
    elif view == "tail":
        made = made[len(made) // 3 :] if made.ndim else made
    elif view == "read-only":
        made.flags.writeable = False
    if not made.flags.forc and not made.dtype.isnative:
        made = np.ascontiguousarray(made)  # NumPy itself pickles others in the native order
    return made


LEAVES = st.one_of(
    arrays(),
    arrays(),
    LENGTHS.map(lambda n: b"ab" * n),
    LENGTHS.map(lambda n: bytearray(b"cd" * n)),
    LENGTHS.map(lambda n: array.array("h", [3]) * n),
    LENGTHS.map(lambda n: "é\0" * n),
    LENGTHS.map(lambda n: list(range(n % 3000))),
    st.sampled_from([None, True, -1, 2**70, 0.5, 1j, "", b"", (), [], {}, ...]),
)
TREES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, max_size=5),
        st.tuples(parts, parts),
        parts.map(lambda part: [part, part]),  # twice the same object
        st.dictionaries(st.sampled_from(["a", "b", 3, (1, "x")]), parts, max_size=4),
        st.tuples(parts, parts).map(lambda two: Record("r", two[0], {"more": two[1]})),
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("borders", ["usual", "low"])
def test_equal_there_and_back(borders, monkeypatch):
    """In the worker it is what it was here, and so is what comes back."""
    if borders == "low":  # out of band, packed, and through shared memory
        monkeypatch.setattr(encoded, "MIN_BUFFER_BYTES", 16)
        monkeypatch.setattr(shm_channel, "MIN_PACKED_BYTES", 64)
        monkeypatch.setattr(shm_channel, "MIN_SHARED_BYTES", 1024)
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

    @settings(max_examples=examples(15), deadline=None, suppress_health_check=checks)
    @given(trees=st.lists(TREES, min_size=1, max_size=3), by_map=st.booleans())
    def check(trees, by_map):
        wanted = [describe(tree) for tree in trees]
        if by_map:
            found = parallel_map(data_jobs.describe_and_return, trees, backend="processes")
        else:
            found = executor.map(data_jobs.describe_and_return, trees)
        for want, (there, back) in zip(wanted, found, strict=True):
            assert there == want
            assert describe(back) == want
        assert [describe(tree) for tree in trees] == wanted

    with ProcessPoolExecutor(2) as executor:
        check()
