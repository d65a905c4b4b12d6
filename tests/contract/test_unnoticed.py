"""The limits that docs/routing.md names: a program that runs into them gets what is said there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallax._core.cores import gil_enabled


@pytest.mark.skipif(sys.platform == "win32", reason="a file that several processes append to")
def test_what_is_said_not_to_be_noticed(tmp_path):
    """Once one of these is noticed, the table has a row too many."""
    pytest.importorskip("numpy")
    if not gil_enabled():
        pytest.skip("threads are taken, which share everything")
    cases = Path(__file__).with_name("unnoticed_cases.py")
    done = subprocess.run(
        [sys.executable, str(cases), str(tmp_path / "file")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr
