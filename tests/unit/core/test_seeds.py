"""Seeds: NumPy's SeedSequence without NumPy, and what is refused."""

import random

import pytest

import parallax
from parallax._core.seeds import RandomStream, stream_of

np = pytest.importorskip("numpy")


def test_words_are_those_of_numpy():
    draw = random.Random(16)
    for _ in range(200):
        several = tuple(draw.getrandbits(70) for _ in range(draw.randrange(1, 9)))
        entropy = draw.choice([0, 1, draw.getrandbits(32), draw.getrandbits(200), several])
        key = tuple(draw.getrandbits(draw.choice([1, 20, 40])) for _ in range(draw.randrange(4)))
        size = draw.choice([4, 4, 5, 8])
        given = list(entropy) if type(entropy) is tuple else entropy
        theirs = np.random.SeedSequence(given, spawn_key=key, pool_size=size).generate_state(9)
        assert RandomStream(entropy, key, size).words(9) == theirs.tolist()


def test_a_seed_sequence_stands_for_itself():
    parent = np.random.SeedSequence([3, 2**40], pool_size=8)
    child = parent.spawn(2)[1]
    assert stream_of(child).words(5) == child.generate_state(5).tolist()
    made = np.random.SeedSequence()
    assert stream_of(made).words(5) == made.generate_state(5).tolist()
    assert stream_of(np.int64(7)) == stream_of(7)
    assert stream_of(None) is stream_of(False) is None
    assert stream_of(True) != stream_of(True)


@pytest.mark.parametrize("seed", [-1, "x", 1.5, [1], b"1", float("nan"), object()])
def test_what_is_no_seed_is_refused_before_anything_starts(seed):
    calls = [
        lambda: parallax.parallel_map(fail, [1], seed=seed),
        lambda: parallax.parallel_imap(fail, [1], seed=seed),
        lambda: parallax.explain(fail, [1], seed=seed),
        lambda: parallax.parallel(fail, seed=seed),
        lambda: parallax.configure(seed=seed),
        lambda: parallax.options(seed=seed).__enter__(),
        lambda: parallax.amap(fail, [1], seed=seed),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=r"^seed must be"):
            call()
    for kind in (parallax.Executor, parallax.ThreadPoolExecutor, parallax.ProcessPoolExecutor):
        with kind() as executor, pytest.raises((TypeError, ValueError), match=r"^seed must be"):
            executor.map(fail, [1], seed=seed)


def fail(_):
    raise AssertionError("an item ran")
