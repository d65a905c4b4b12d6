"""Every file in examples/ runs as a user would run it, and does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sampled(2)

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def run(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PARALLAX_")}
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,  # nothing may depend on where it is started
        env=environment,
        check=False,
    )


def test_there_is_one_for_each_route() -> None:
    assert {script.stem for script in SCRIPTS} >= {
        "quickstart",
        "cpu_bound",
        "releases_the_gil",
        "waiting",
        "not_worth_it",
        "stream",
        "errors",
        "decorated",
        "process_pool",
        "shared_image",
        "swap",
    }


@pytest.mark.sampled(4)
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example(script: Path, tmp_path: Path) -> None:
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # Its body ran once: no worker ran the script again, though it has no __main__ guard.
    assert done.stdout.count(f"example: {script.stem}") == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_no_example_needs_a_main_guard(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert not any(line.startswith("if __name__") for line in lines)
