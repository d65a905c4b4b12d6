"""Forks of the program, in a program of their own: other tests may leave threads in this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("snapshot_cases.py")
ROOT = CASES.parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux")
@pytest.mark.parametrize(
    "chosen", ["not full", pytest.param("full or not full", marks=pytest.mark.full)]
)
def test_all_cases(chosen):
    """Each case of ``snapshot_cases.py`` passes, and none is left out."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"),
            *("-W", "error", "-m", chosen, str(CASES)),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONMALLOC": "debug",
        },
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed(, \d+ deselected)? in ", done.stdout, re.MULTILINE), done.stdout
