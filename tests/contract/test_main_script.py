"""Functions and classes of the main script under forks: the same classes, and nothing loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux")


def check_script(folder, text):
    """Run a main script, which prints "done", with warnings as errors."""
    script = folder / "script.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


PROGRAM = """
import dataclasses, sys, time
from parallax import options, parallel_map

@dataclasses.dataclass
class Point:
    x: int

class Slots:
    __slots__ = ("value", "call")
    def __init__(self, value, call=None):
        self.value, self.call = value, call

def work():
    end = time.thread_time() + 0.004
    while time.thread_time() < end:
        pass

def points(point):
    work()
    return Point(point.x + 1)

def calls(number):
    work()
    return Slots(number, lambda y: y + number)

def classes(number):
    work()
    return Point, Slots(number)

def local(number):
    class Inner(Point):
        pass
    work()
    return Inner(number)


def forked(fn, items):
    with options(start_method="snapshot"):
        got = parallel_map(fn, items, backend="processes")
    assert got.report.start == "forked from the program", got.report.start
    return got

if __name__ == "__main__":
    n = 20
    auto = parallel_map(points, [Point(i) for i in range(60)])
    assert [type(each) for each in auto] == [Point] * 60
    assert "cloudpickle" not in sys.modules, "a fork has the callable"
    got = parallel_map(calls, range(60))
    assert [type(each) for each in got] == [Slots] * 60
    assert [each.call(1) for each in got] == [i + 1 for i in range(60)]
    assert all(each[0] is Point for each in forked(classes, range(n)))
    assert all(type(each) is Point for each in forked(points, (Point(i) for i in range(n))))
    assert all(isinstance(each, Point) for each in forked(local, range(n)))
    print("done")
"""


def test_classes_are_the_very_ones(tmp_path):
    check_script(tmp_path, PROGRAM)


CONTENDING = """
import hashlib, sys, threading
from parallax import parallel_map

def make():
    def contending(number):
        alone = threading.current_thread() is threading.main_thread()
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 12_000 if alone else 40_000)
        return number
    return contending

for attempt in range(20):  # as long as other programs have the cores
    report = parallel_map(make(), range(150)).report
    routes = [change.route for change in report.changes]
    if routes[:2] == ["threads", "processes"] and report.start == "forked from the program":
        break
else:
    print(report.to_json())
names = [each.name for each in threading.enumerate()]
print("done", *(name for name in names if name.startswith("parallax")))
"""


@pytest.mark.full
def test_threads_that_contend_end_for_a_fork(tmp_path):
    """Without a warning of the fork, and without a thread that stays."""
    check_script(tmp_path, CONTENDING)
