"""What users' type checkers see."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

ANSWERS = Path(__file__).with_name("answers.py")


def check(options):
    """Run a checker, if it is installed."""
    if find_spec(options[0]) is None:
        return None
    return subprocess.run(
        [sys.executable, "-m", *options, str(ANSWERS)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ANSWERS.parents[2],
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """What each of the checkers that users have says of the file, both at the same time."""
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("mypy") if cache is not None else tmp_path_factory.mktemp("mypy")
    checkers = {
        "mypy": ("mypy", "--strict", "--warn-unused-ignores", f"--cache-dir={folder}"),
        "pyright": ("pyright", "--pythonpath", sys.executable),
    }
    with ThreadPoolExecutor() as executor:
        return dict(zip(checkers, executor.map(check, checkers.values()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mypy", "pyright"])
def test_the_types_that_are_inferred(name, outcomes):
    """Each call in ``answers.py`` has the type that it says, and wrong calls are errors."""
    if (done := outcomes[name]) is None:
        pytest.skip(f"{name} is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
