"""What all threads of a process share, and what one thread alone may use, under ``auto``."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("process_state_cases.py")
NAMES = [
    each.name
    for each in ast.parse(CASES.read_text(encoding="utf-8")).body
    if isinstance(each, ast.FunctionDef)
    and any(isinstance(d, ast.Name) and d.id == "case" for d in each.decorator_list)
]
#: Each in a program of its own would take too long.
GROUPS = [NAMES[k::2] for k in range(2)]


def run(*args, cwd=None):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=env, cwd=cwd, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcomes():
    with ThreadPoolExecutor() as executor:
        return list(executor.map(lambda names: run(str(CASES), *names), GROUPS))


@pytest.mark.skipif(sys.platform == "win32", reason="signals and descriptors of POSIX")
@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_results_and_what_is_left_are_those_of_the_loop(group, outcomes):
    done = outcomes[group]
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr


def test_a_call_during_an_import_stays_in_the_thread_that_imports(tmp_path):
    tmp_path.joinpath("imports_itself.py").write_text(
        "import time\n"
        "from parallax import Executor, parallel_map\n"
        "def work(item):\n"
        "    time.sleep(0.005)\n"
        "    import imports_itself\n"
        "    return imports_itself.work is work\n"
        "found = parallel_map(work, range(20))\n"
        "print(found.report.route, all(found), found.report.reason)\n"
    )
    done = run("-c", "import imports_itself", cwd=tmp_path)
    assert done.stdout.startswith("loop True `imports_itself` is being imported"), done.stderr
