"""Dask's executor as backend, in a program of its own: Dask keeps threads and sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "dask_cases.py"


@pytest.mark.full
@pytest.mark.timeout(400)
def test_all_cases(tmp_path):
    pytest.importorskip("distributed")
    how = ("-q", "-p", "no:cacheprovider", "--noconftest", "-o", "filterwarnings=default")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *how, str(CASES)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "DASK_TEMPORARY_DIRECTORY": str(tmp_path),
        },
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
