"""Forks of the program, in programs of their own: other tests may leave threads in this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux")

ROOT = Path(__file__).parents[2]

#: Files of cases, with the options and the environment that each is run with.
CASES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "contract/snapshot_cases.py": (("-W", "error"), {"PYTHONMALLOC": "debug"}),
    "faults/snapshot_faults.py": ((), {}),
}


def run(chosen, name):
    options, environment = CASES[name]
    # Not captured: an open file keeps executors from forking.
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"),
            *(*options, "-m", chosen, f"tests/{name}"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *filter(None, sys.path)]),
            **environment,
        },
        timeout=280,
        check=False,
    )


@pytest.fixture(
    scope="module",
    params=["not full", pytest.param("full or not full", marks=pytest.mark.full)],
)
def outcomes(request):
    """Of both files, which run at the same time."""
    with ThreadPoolExecutor() as executor:
        return dict(zip(CASES, executor.map(partial(run, request.param), CASES), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_all_cases(name, outcomes):
    """Each case of the file passes, and none is left out."""
    done = outcomes[name]
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed(, \d+ deselected)? in ", done.stdout, re.MULTILINE), done.stdout
