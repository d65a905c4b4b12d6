"""No ``__main__`` guard is needed, wherever the code comes from."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from parallax._core.cores import gil_enabled

pytestmark = pytest.mark.sampled(2)

METHODS = ("zygote", "spawn")


def run(arguments, *, method="auto", stdin=None, timeout=20):
    """Run a Python to its end; its output, its errors and its exit status."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PARALLAX_START_METHOD": method},
    )
    return done.stdout, done.stderr, done.returncode


def script(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    return str(path)


@pytest.fixture(params=METHODS)
def method(request):
    """Each way of starting worker processes."""
    if request.param == "zygote" and not sys.platform.startswith("linux"):
        pytest.skip("the zygote is for Linux")
    return request.param


def test_script_without_a_guard(tmp_path, method):
    """The top level of the script is run once, whatever it calls there."""
    path = script(
        tmp_path,
        """
        print("marker")
        from parallax import parallel_map
        offset = 10
        def work(x):
            return x + offset
        print(parallel_map(work, range(5), backend="processes"))
        print(parallel_map(lambda x: work(x) * 2, range(3), backend="processes"))
        offset = 20
        print(parallel_map(work, range(3), backend="processes"))
        """,
    )
    out, err, code = run([path], method=method)
    assert (err, code) == ("", 0)
    assert out.splitlines() == [
        "marker",
        "[10, 11, 12, 13, 14]",
        "[20, 22, 24]",
        "[20, 21, 22]",
    ]


CODE = """
print("marker")
from parallax import parallel_map
def work(x):
    return helper(x) + 1
def helper(x):
    return x * 10
print(parallel_map(work, range(4), backend="processes"))
"""


def test_python_c(method):
    """``python -c`` code works, functions that call each other too."""
    assert run(["-c", CODE], method=method) == ("marker\n[1, 11, 21, 31]\n", "", 0)


def test_stdin(method):
    """So does a program on the standard input, which workers must not read from."""
    assert run(["-"], stdin=CODE, method=method) == ("marker\n[1, 11, 21, 31]\n", "", 0)


def test_in_a_thread(method):
    """And one that calls from a thread."""
    code = CODE.replace("print(parallel_map", "def call(): print(parallel_map")
    code += "import threading; t = threading.Thread(target=call); t.start(); t.join()\n"
    assert run(["-c", code], method=method) == ("marker\n[1, 11, 21, 31]\n", "", 0)


def test_module_with_dash_m(tmp_path, method):
    """``python -m`` of a package without a guard."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("def helper(x):\n    return x * 10\n")
    (package / "__main__.py").write_text(
        CODE.replace("def helper(x):\n    return x * 10\n", "from .helper import helper\n")
    )
    done = subprocess.run(
        [sys.executable, "-m", "package"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "PARALLAX_START_METHOD": method},
    )
    assert (done.stdout, done.stderr) == ("marker\n[1, 11, 21, 31]\n", "")


def test_classes_of_main(tmp_path, method):
    """Instances of classes of ``__main__`` come back as instances of the very same class."""
    path = script(
        tmp_path,
        """
        import dataclasses, enum
        from typing import NamedTuple
        from parallax import parallel_map

        class Plain:
            count = 0
            def __init__(self, x): self.x = x
        class Derived(Plain):
            def __init__(self, x):
                super().__init__(x)
        @dataclasses.dataclass(frozen=True)
        class Data:
            x: int
        class Pair(NamedTuple):
            x: int
        class Color(enum.Enum):
            RED = 1
        class MyError(Exception):
            pass
        class Slotted:
            __slots__ = ("x",)
            def __init__(self, x): self.x = x

        for kind in (Plain, Derived, Data, Pair, Slotted):
            for work in (kind, lambda x: kind(x), lambda x: [kind(x)][0]):
                for got in parallel_map(work, range(3), backend="processes"):
                    assert type(got) is kind, (kind, type(got))
            for got in parallel_map(lambda v: v, [kind(1)], backend="processes"):
                assert type(got) is kind and got.x == 1
        assert parallel_map(lambda x: Color.RED, [1], backend="processes")[0] is Color.RED
        assert parallel_map(lambda k: k, [Plain, Color, MyError], backend="processes") == [
            Plain, Color, MyError]
        Plain.count = 5
        assert parallel_map(lambda x: Plain.count, [1], backend="processes") == [5]
        def fail(x): raise MyError(x)
        try:
            parallel_map(fail, [7], backend="processes")
        except MyError as error:
            assert error.args == (7,)
        else:
            raise SystemExit("no error")
        print("fine")
        """,
    )
    assert run([path], method=method) == ("fine\n", "", 0)


def test_interactive(method):
    """A session typed line by line: functions are defined anew, values change."""
    lines = """
from parallax import parallel_map
def f(x): return x + 1

print(parallel_map(f, [1, 2], backend="processes"))
def f(x): return x + 2

print(parallel_map(f, [1, 2], backend="processes"))
k = 5
print(parallel_map(lambda x: f(x) + k, [1, 2], backend="processes"))
"""
    out, err, code = run(["-i", "-q", "-c", ""], stdin=lines, method=method)
    assert out.splitlines() == ["[2, 3]", "[3, 4]", "[8, 9]"], err
    assert "Error" not in err
    assert code == 0


def test_exec_in_a_namespace(method):
    """Code that is run by ``exec`` in a namespace of its own, as notebooks do."""
    code = f"""
space = {{"__name__": "__main__"}}
exec({CODE!r}, space)
other = {{"__name__": "cell"}}
exec({CODE!r}, other)
"""
    assert run(["-c", code], method=method) == ("marker\n[1, 11, 21, 31]\n" * 2, "", 0)


def test_auto_without_a_guard(tmp_path):
    """``auto`` goes to processes from an unguarded script for dear items, and says so."""
    path = script(
        tmp_path,
        """
        print("marker")
        from parallax import parallel_map
        def work(x):
            t = 0
            for i in range(400_000):
                t += i
            return x
        r = parallel_map(work, range(30))
        assert r == list(range(30))
        print(r.report.route)
        """,
    )
    out, err, code = run([path])
    assert (err, code) == ("", 0)
    lines = out.splitlines()
    assert lines[0] == "marker"
    others = ["loop"] if gil_enabled() else ["loop", "threads"]  # one core, or a loaded machine
    assert lines[1] in {"processes", *others}


def test_output_of_workers_is_not_lost(method):
    """What items print and write to the error stream is there when the call returns."""
    code = """
import sys
from parallax import parallel_map
def work(x):
    sys.stdout.write(f"out {x}\\n")  # in one piece: -u makes print write several
    sys.stderr.write(f"err {x}\\n")
parallel_map(work, range(4), backend="processes")
print("done", flush=True)
"""
    out, err, code = run(["-u", "-c", code], method=method)
    assert sorted(out.splitlines()[:4]) == [f"out {x}" for x in range(4)]
    assert out.splitlines()[4] == "done"
    assert sorted(err.splitlines()) == [f"err {x}" for x in range(4)]
    assert code == 0


def test_standard_input_is_the_callers(method):
    """Items cannot read what the user types for the program."""
    code = """
import sys
from parallax import parallel_map
print(parallel_map(lambda x: sys.stdin.read(), [1], backend="processes"))
print(sys.stdin.read())
"""
    assert run(["-c", code], stdin="typed", method=method)[0] == "['']\ntyped\n"


def test_closed_standard_streams(method):
    """A program without standard streams, as a daemon is, can use workers."""
    code = """
import os, sys
from parallax import parallel_map
for fd in (0, 1): os.close(fd)
sys.stdin = sys.stdout = None
got = parallel_map(lambda x: x * 2, range(5), backend="processes")
os.write(2, repr(list(got)).encode())
"""
    _, err, _ = run(["-c", code], method=method)
    assert err == "[0, 2, 4, 6, 8]"
