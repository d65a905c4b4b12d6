"""Changes that the code does not show, in a program of their own: the answer is the loop's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("unseen_changes.py")
SOME = (
    "global array",
    "sub-element",
    "missing",
    "max counts",
    "logger",
    "heap",
    "nested",
    "callable",
)
METHODS = ["auto", "zygote", "spawn"] if sys.platform == "linux" else ["auto"]


def run(*args):
    done = subprocess.run(
        [sys.executable, str(CASES), *args],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=200,
        check=True,
    )
    assert "differs" not in done.stdout, done.stdout
    assert not done.stderr
    assert re.search(r"^again: \d+", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(220)
@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", METHODS)
def test_some_items_change_state_from_the_middle_on(method):
    """Workers find it, and their items run again at home."""
    run(method, "20", *SOME)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(220)
@pytest.mark.parametrize("first", ["0", "20"])
@pytest.mark.parametrize("method", METHODS)
def test_all_cases(method, first):
    """From the first item on, and from a later one; and inputs that change what items read."""
    run(method, first)
