"""``seed=``: the same random numbers on every backend, and the program's generators as before."""

import asyncio
import random
import threading

import numpy as np
import pytest
from helpers.executor_kinds import KINDS

import parallax
from parallax import options, parallel, parallel_imap, parallel_map
from tests.helpers.leaks import close_default_executors

GLOBAL = np.random.default_rng(1)
PYTHON, DEFAULT = random.Random(2), random.Random(3)


class Model:
    def __init__(self):
        self.rng = np.random.RandomState(4)
        self.parts = {"a": [random.Random(5), np.random.PCG64(6)]}

    def draw(self, item):
        python, bits = self.parts["a"]
        return item, self.rng.normal(), python.gauss(0, 1), np.random.Generator(bits).random()


def shared(item):
    return item, random.random(), random.gauss(0, 1), np.random.normal(), np.random.rand(2).tolist()


def held(item, _default=DEFAULT):
    return item, GLOBAL.normal(), PYTHON.random(), _default.random()


def imports(item):
    import random as mine

    return item, mine.random()


def captures():
    rng, draw = np.random.default_rng(7), random.Random(8).random
    return lambda item: (item, rng.integers(10**9), draw())


def shuffles(item):
    cards = list(range(20))
    random.shuffle(cards)
    return item, cards, np.random.permutation(5).tolist()


def kinds():
    return [shared, held, imports, captures(), shuffles, Model().draw]


def states():
    return str(
        [random.getstate(), np.random.get_state(), GLOBAL.bit_generator.state, PYTHON.getstate()]
    )


@pytest.mark.sampled(2)
def test_every_backend_draws_the_same(backend):
    before = states()
    for fn in kinds():
        expected = parallel_map(fn, range(12), backend="serial", seed=7)
        again = parallel_map(fn, range(12), backend=backend, seed=7, max_workers=2, retries=1)
        assert again == expected
        assert len({str(each[1:]) for each in expected}) == 12
        numbered = parallel_imap(fn, range(12), backend=backend, seed=7, ordered=False)
        assert sorted(numbered, key=str) == sorted(expected, key=str)
    assert states() == before


@pytest.mark.variants("processes", "spawn")
def test_neither_the_size_of_chunks_nor_their_number_shows(backend):
    expected = parallel_map(shared, range(12), backend="serial", seed=0)
    for workers, size in ((1, 3), (3, 1), (2, 5)):
        run = {"max_workers": workers, "chunksize": size}
        assert parallel_map(shared, range(12), backend=backend, seed=0, **run) == expected


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS)
def test_executors_draw_what_maps_draw(kind):
    with KINDS[kind](2) as executor:
        for fn in kinds():
            expected = parallel_map(fn, range(9), backend="serial", seed=7)
            assert list(executor.map(fn, range(9), seed=7)) == expected


def fails_once(item, failed=set()):  # noqa: B006 - remembered from try to try
    value = random.random()
    if item not in failed:
        failed.add(item)
        raise ValueError(item)
    return value


def test_a_retry_draws_the_same_numbers():
    assert parallel_map(fails_once, range(6), seed=1, retries=1, backend="serial") == parallel_map(
        lambda _: random.random(), range(6), seed=1, backend="serial"
    )


def test_items_in_threads_that_do_not_draw_run_side_by_side():
    both = threading.Barrier(2)

    def meet(item):
        return item if item < 2 else both.wait(10) >= 0

    run = {"backend": "threads", "max_workers": 2, "chunksize": 1}
    assert parallel_map(meet, range(6), seed=1, **run)[2:] == [True] * 4


def nested(item):
    return [parallel_map(shared, range(2)) for _ in range(2)]


@pytest.mark.variants("auto", "threads", "processes")
def test_a_default_seed_gives_each_nested_call_a_stream_of_its_own(backend):
    with options(seed=3):
        expected = parallel_map(nested, range(3), backend="serial")
        assert parallel_map(nested, range(3), backend=backend) == expected
        assert len({str(call) for item in expected for call in item}) == 6
        plain = parallel_map(lambda _: random.random(), range(2), seed=False, backend="serial")
        assert plain != parallel_map(lambda _: random.random(), range(2), backend="serial")


def test_the_same_seed_everywhere():
    @parallel(seed=np.random.SeedSequence(5))
    def decorated(item):
        return item, random.random()

    expected = parallel_map(decorated, range(4), seed=5)
    assert decorated.map(range(4)) == list(decorated.imap(range(4))) == expected
    assert decorated.starmap([(k,) for k in range(4)]) == expected
    assert decorated.map(range(4), seed=True) != decorated.map(range(4), seed=True)

    async def read():
        return [
            each async for each in parallax.amap(lambda k: (k, random.random()), range(4), seed=5)
        ]

    assert asyncio.run(read()) == expected
    close_default_executors()


def test_coroutines_have_no_generators_of_their_own():
    async def draw(_):
        return random.random()

    with pytest.raises(TypeError, match="take turns in one thread"):
        parallax.amap(draw, range(3), seed=1)


@pytest.mark.variants("processes")
def test_a_captured_generator_that_is_copied_warns(backend):
    rng = random.Random(1)
    with pytest.warns(parallax.SharedStateWarning, match="draws from `rng`.*seed=0.*seed=True"):
        parallel_map(lambda _: rng.random(), range(4), backend=backend, max_workers=2)
    drawn = parallel_map(
        lambda _: (random.random(), np.random.rand()), range(40), backend=backend, chunksize=1
    )
    assert len({a for a, _ in drawn}) == len({b for _, b in drawn}) == 40
