"""Runs Python on a forced platform; see ``forced/forced_platform.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORCED = Path(__file__).with_name("forced")


def run_on(
    platform: str, tags: Path, *arguments: str, timeout: float = 50, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; ``tags`` is a folder for the tagged memory of Windows."""
    path = [str(FORCED), str(ROOT / "src"), str(ROOT / "tests"), str(ROOT)]
    forced = {
        "PYTHONPATH": os.pathsep.join(path),
        "PARALLAX_TESTS_PLATFORM": platform,
        "PARALLAX_TESTS_TAGS": str(tags),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **forced, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
