"""Draws from generators that outlive the call: seen in the code, or by what happens."""

import random
import statistics
from random import gauss

import pytest

from parallax._guard.effects import judge, scan
from parallax._guard.seeding import seeded
from parallax._routing.route_limits import RouteLimits

np = pytest.importorskip("numpy")

RNG = np.random.default_rng(1)
PYTHON = random.Random(2)
STATE = np.random.RandomState(3)
TABLE = {"a": random.Random(4)}
BITS = np.random.PCG64(5)
DISPATCH = {"n": np.random.normal}
ENDLESS = iter(PYTHON.random, 2)


class Model:
    def __init__(self):
        self.rng = np.random.default_rng(5)
        self.deep = {"a": [random.Random(9)]}

    def draw(self, _):
        return self.rng.random()

    def deeper(self, _):
        return self.deep["a"][0].random()


def helper(rng):
    return rng.standard_normal()


def shuffle(_):
    cards = list(range(9))
    random.shuffle(cards)
    return cards


def by_name(module):
    return getattr(module, "ran" + "dom")()


def default(_, draw=PYTHON.random):
    return draw()


def reseeds(item):
    random.seed(item)
    return random.random()


DRAWING = {
    "numpy's new generator": (lambda _: RNG.normal(), "RNG"),
    "python's shared": (lambda _: random.random(), "random"),
    "a function of it": (lambda _: gauss(0, 1), "gauss"),
    "numpy's shared": (lambda _: np.random.rand(), "np.random"),
    "a Random": (lambda _: PYTHON.randint(1, 9), "PYTHON"),
    "a RandomState": (lambda _: STATE.choice([1, 2]), "STATE"),
    "in a table": (lambda _: TABLE["a"].choice("abc"), "TABLE"),
    "of an object": (Model().draw, "self.rng"),
    "deep in an object": (Model().deeper, "self.deep"),
    "handed to a helper": (lambda _: helper(RNG), "RNG"),
    "a default": (default, "draw"),
    "in a table of functions": (lambda _: DISPATCH["n"](), "DISPATCH"),
    "shuffling": (shuffle, "random"),
    "several": (lambda _: random.choices("abc", k=3), "random"),
    "a permutation": (lambda _: np.random.permutation(3), "np.random"),
    "by name": (lambda _: by_name(random), "random"),
    "seeding": (reseeds, "random"),
}
#: What the code of the program does not show.
SEEN = {
    "in a library": (lambda _: statistics.NormalDist().samples(1), "random"),
    "a new generator over old bits": (lambda _: np.random.Generator(BITS).random(), "BITS"),
    "an iterator": (lambda _: statistics.mean([PYTHON.random(), 1]), "PYTHON"),
    "by a callback of a library": (lambda _: statistics.fmean(map(RNG.normal, [0])), "RNG"),
}
NOT_DRAWING = {
    "a generator of the item's own": lambda item: random.Random(item).random(),
    "NumPy's": lambda item: np.random.default_rng(item).random(),
    "held only": lambda item: (item, RNG is None),
    "the system's": lambda item: (item, random.SystemRandom().random()),
    "its state is read": lambda item: (item, PYTHON.getstate()),
}


@pytest.mark.parametrize("name", DRAWING)
def test_a_draw_keeps_items_in_the_loop_and_names_the_generator(name):
    fn, target = DRAWING[name]
    verdict = judge(scan(fn, (1,)), ())
    assert verdict.limit == "loop"
    assert f"draws from `{target}`" in verdict.reason
    assert "seed=0" in verdict.reason
    assert "seed=True" in verdict.reason
    if name != "a new generator over old bits":
        assert judge(scan(seeded(fn, 0, None), (0, 1)), ()).limit == "apart"


def verdict_of(fn, args):
    limits = RouteLimits(fn, ())
    limits.inspect(args)
    limits.cast_net()
    for number in range(3):
        limits.before_item(args)
        fn(*args)
        limits.after_item(number)
    return limits.verdict


@pytest.mark.parametrize("name", SEEN)
def test_a_draw_in_installed_code_is_seen(name):
    fn, target = SEEN[name]
    verdict = verdict_of(fn, (1,))
    assert verdict.limit == "loop"
    assert f"draws from `{target}`" in verdict.reason
    assert verdict_of(seeded(fn, 0, None), (0, 1)).limit == "apart"


@pytest.mark.parametrize("name", NOT_DRAWING)
def test_code_that_draws_from_none_is_free(name):
    assert verdict_of(NOT_DRAWING[name], (1,)).limit == "free"
    assert verdict_of(seeded(NOT_DRAWING[name], 0, None), (0, 1)).limit == "free"


def test_what_shows_an_order_is_not_drawn_in_threads():
    log = []

    def fn(_):
        log.append(random.random())

    verdict = judge(scan(seeded(fn, 0, None), (0, 1)), ())
    assert verdict.limit == "loop"
    assert "log" in verdict.reason
