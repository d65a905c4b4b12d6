"""Callables with state of many kinds, beside the loop, in programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parallax._core.cores import gil_enabled

CASES = Path(__file__).with_name("stateful_cases.py")
METHODS = ["snapshot", "spawn", "zygote"] if sys.platform == "linux" else ["spawn"]
PARTS = 6
#: Which items change state: from number 25 on, number 31 alone, all. Every method with each takes a
#: quarter of an hour: run the program itself for that.
AFFECTED = {"snapshot": "25", "spawn": "=31", "zygote": "0"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not gil_enabled(), reason="threads are taken, which share everything"),
]


def run(*args):
    pytest.importorskip("numpy")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", str(CASES), *args]
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=110, check=False
    )
    assert done.stdout.startswith("done "), done.stdout + done.stderr


@pytest.mark.parametrize("method", METHODS[:1])
def test_some_items_change_state_from_the_middle_on(method):
    """One of each large family; the rest is behind ``-m full``."""
    run(method, "25", "0", "defaultdict_count", "decimal_context", "minidom")


@pytest.mark.full
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("method", METHODS)
def test_results_and_state_are_those_of_the_loop(method, part):
    """State that changes late, in one item only, from the first item on."""
    run(method, AFFECTED[method], "0", str(part), str(PARTS))


@pytest.mark.full
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("method", METHODS[-1:])
def test_who_only_reads_state_is_not_held_at_home(method, part):
    """The same objects, read: workers may have them."""
    run(method, "0", "1", str(part), str(PARTS))
