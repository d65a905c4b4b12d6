"""Workers killed at random moments: everything ends, at once, and the right one is named."""

from __future__ import annotations

import random
import sys

import pytest
from chaos.kills import LIMIT, WAYS, kill_at_random

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


@pytest.fixture
def seed():
    """A new one each time; shown when the test fails."""
    chosen = random.SystemRandom().getrandbits(32)
    print(f"python -m tests.chaos kills --seed {chosen}")
    return chosen


@pytest.mark.parametrize("way", WAYS)
def test_a_few_kills(way, seed):
    """Also while workers receive what does not fit their sockets, and while they write results."""
    figures = kill_at_random(4, seed, (way,))
    assert not figures.wrong
    assert figures.kills == 4
    assert figures.lost <= figures.kills


@pytest.mark.full
@pytest.mark.timeout(300)
def test_two_hundred_kills(seed):
    """Nothing waits for a worker that is gone."""
    figures = kill_at_random(200, seed)
    assert not figures.wrong
    assert (figures.kills, figures.lost <= 200) == (200, True)
    assert figures.slowest < LIMIT
