"""Tests of workers once more with forks of the program, in programs of their own.

Other tests may leave threads in this one. ``PARALLAX_START_METHOD=snapshot`` makes each call fork
the program that does not name another start; where that is not safe the call fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Files, and which of their tests: those whose own code starts threads, or that say how workers
#: start, are left out.
GROUPS = {
    "contract/test_recycling.py": "processes",
    "contract/test_limits.py": "processes",
    "contract/test_results.py": "processes",
    "contract/test_exceptions.py": "processes",
    "contract/test_exception_chains.py": "processes and not what_maps_cannot_send",
    "contract/test_cut_short.py": "processes",
    "contract/test_stall.py": "processes",
    "contract/test_recall.py": "processes",
    "contract/test_nested.py": "processes and not sixteen",
    "contract/test_worker_output.py": "processes",
    "contract/test_unread_errors.py": "processes",
    "contract/test_nothing_kept.py": "processes",
    # An item that is there is not pickled by the program, and not unpickled by anybody.
    "faults/test_fault_table.py": "test_calls and not spawned and not interpreters and not inside"
    " and not (argument and exits)",
    "faults/test_worker_death.py": "not spawn",
    "faults/test_cancellation.py": "not spawn",
    "faults/test_interrupts.py": "not spawn",
}


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux")
@pytest.mark.parametrize("name", GROUPS)
def test_group(name):
    """The tests of a file pass, and there are some."""
    folders = (ROOT / "tests", ROOT / "tests" / name.partition("/")[0])
    # Not captured: an open file keeps executors from forking.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"),
            *("-k", GROUPS[name], f"tests/{name}"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PARALLAX_START_METHOD": "snapshot",
            "PYTHONPATH": os.pathsep.join(filter(None, [*map(str, folders), *sys.path])),
        },
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"^[1-9]\d* passed", done.stdout, re.MULTILINE), done.stdout
