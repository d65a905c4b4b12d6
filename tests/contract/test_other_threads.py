"""What another thread of the program changes meanwhile is not blamed on the items."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, io, itertools, operator, os, random, sys, threading, time, warnings
from parallax import parallel_map, SharedStateWarning

warnings.simplefilter("error", SharedStateWarning)
draw = operator.methodcaller("random")  # which the code does not show

def work():
    end = time.thread_time() + 0.004
    while time.thread_time() < end:
        pass

def pure(x):
    work()
    return x * x

def hidden(x):
    work()
    return draw(random)

def set_environ(n): os.environ["PARALLAX_TEST"] = str(n)
def set_folder(n): os.chdir(FOLDERS[n % 2])
def set_path(n): sys.path[:] = [*PATH, str(n)]
def set_output(n):
    with contextlib.redirect_stdout(io.StringIO()):
        time.sleep(0.002)
def set_filters(n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BytesWarning)
        time.sleep(0.002)
def draws(n): random.random()

asked, changed = threading.Event(), threading.Event()
def change_once(n):
    if asked.is_set() and not changed.is_set():
        os.environ["PARALLAX_ONCE"] = "1"
        changed.set()
def waits_once(x):
    work()
    if x == 1:
        asked.set()
        changed.wait()
    return x

FOLDERS, PATH = [os.getcwd(), sys.argv[1]], list(sys.path)

@contextlib.contextmanager
def meanwhile(change):
    end = threading.Event()
    def repeat():
        for n in itertools.count():
            change(n)
            if end.wait(0.001):
                return
    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()

def main():
    for change in (draws, set_environ, set_folder, set_path, set_output, set_filters):
        with meanwhile(change):
            found = parallel_map(pure, range(50), max_workers=2)
        assert found == [x * x for x in range(50)]
        assert not found.report.writes, (change, found.report.writes)
    for change in (lambda n: None, draws):  # a thread that is there, and one that draws as well
        with meanwhile(change), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", SharedStateWarning)
            if change is not draws:
                random.seed(1)
                wanted = [random.random() for _ in range(50)]
                random.seed(1)
            found = parallel_map(hidden, range(50), max_workers=2)
        assert len(set(found)) == 50, "numbers are repeated"
        if change is not draws:
            assert found == wanted, found
            assert "random" in str(said[0].message), str(said[0].message)
    with meanwhile(change_once):
        found = parallel_map(waits_once, range(50), max_workers=2)
    assert found == [*range(50)]
    assert "changes `os.environ`" in str(found.report.writes), "it cannot be told apart"
    print("done", file=sys.__stdout__)

if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is somebody's current one")
def test_what_another_thread_changes_is_not_the_items(tmp_path):
    """It is not warned of, and what items do is seen all the same."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.stdout == "done\n", done.stdout + done.stderr
