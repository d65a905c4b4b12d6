"""Objects whose end does something are not copied; what a worker cannot load is run at home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("ends_cases.py")


@pytest.mark.parametrize(
    ("method", "cases"),
    [
        ("zygote", ["0/2"]),
        ("auto", ["1/2"]),
        *(pytest.param(each, [], marks=pytest.mark.full) for each in ("zygote", "spawn", "auto")),
    ],
)
def test_what_is_left_is_what_the_loop_leaves(method, cases):
    if sys.platform != "linux" and method == "zygote":
        pytest.skip("the zygote needs Linux")
    done = subprocess.run(
        [sys.executable, str(CASES), method, *cases],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr
