"""`parallax profile`: the program runs as without it, and the right cause is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from parallax._core.cores import gil_enabled, usable_cores

HERE = Path(__file__).parent
PROGRAM = "ordinary_program.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the program forks")


def python(*arguments: str, folder: Path = HERE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        input="from outside",
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,
        check=False,
    )


def profile(*arguments: str, folder: Path = HERE) -> subprocess.CompletedProcess[str]:
    return python("-m", "parallax", "profile", *arguments, folder=folder)


def same(plain: subprocess.CompletedProcess[str], seen: subprocess.CompletedProcess[str]) -> None:
    assert seen.stdout == plain.stdout
    assert seen.stderr == plain.stderr
    assert seen.returncode == plain.returncode


@pytest.mark.slow
def test_a_program_cannot_tell(tmp_path: Path) -> None:
    report = tmp_path / "report"
    plain = python(PROGRAM, "everything", "--json", "x")
    assert plain.returncode == 0, plain.stderr
    assert "deleted" in plain.stdout
    same(plain, profile("-o", str(report), PROGRAM, "everything", "--json", "x"))
    assert report.read_text().startswith(f"parallax profile: {PROGRAM}")


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "how", ["raise", "number", "interrupt", "at once", "exec", "text", "terminate", "hook"]
)
def test_it_ends_as_without(how: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    plain = python(PROGRAM, how)
    same(plain, profile("-o", str(report), PROGRAM, how))
    # Nobody is left to write one when a signal has ended the program.
    assert bool(report.read_text()) is (how != "terminate")


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize("program", [["-m", "package"], ["package"], ["broken.py"]])
def test_modules_folders_and_syntax_errors(program: list[str], tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import sys; print(sys.argv, sys.path[0], __name__, __package__); 1/0"
    )
    (tmp_path / "broken.py").write_text("print('x'")
    plain = python(*program, "-o", "x", folder=tmp_path)
    assert plain.returncode == 1
    same(plain, profile("-o", "report", *program, "-o", "x", folder=tmp_path))


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nothing.py"], "nothing.py"),
        (["-m", "no_such_module"], "no_such_module"),
        (["--json", "missing/figures.json", PROGRAM, "number"], "missing/figures.json"),
        (["--html", "missing/page.html", PROGRAM, "number"], "missing/page.html"),
        ([], "SCRIPT"),
        (["-m", "ordinary_program.inner"], "ordinary_program"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], word: str) -> None:
    done = profile(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert word in done.stderr


THREADED = """
import hashlib, threading, time
from concurrent.futures import ThreadPoolExecutor

DATA = bytes(3_000_000)

def {name}(end):
    while time.perf_counter() < end:
        {work}

with ThreadPoolExecutor(2) as pool:
    list(pool.map({name}, [time.perf_counter() + 0.7] * 2))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "work", "cause"),
    [
        ("count", "for i in range(20000): i * i", "holds the GIL"),
        ("digest", "hashlib.sha256(DATA)", "works without the GIL"),
        ("fetch", "time.sleep(0.02)", "and not for the GIL"),
    ],
)
def test_it_names_the_cause(name: str, work: str, cause: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(THREADED.format(name=name, work=work))
    done = profile("--json", "figures.json", "--html", "page.html", "program.py", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout == ""
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert max(map(len, done.stderr.splitlines())) <= 100
    assert "\x1b" not in done.stderr, "no colours where there is no terminal"
    if not gil_enabled():
        # Looks at threads have to stop all of them there, and may be few.
        assert figures["gil"] == {"enabled": False, "held": 0.0, "error": 0.0}
        return
    advice = next(each for each in figures["advice"] if each["kind"] == "ThreadPoolExecutor")
    assert advice["subject"] == name
    assert advice["text"] in " ".join(done.stderr.replace("\n ", " ").split())
    page = (tmp_path / "page.html").read_text()
    shown = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    lanes = {each["name"] for each in shown["workers"]}
    assert lanes <= {each["name"] for each in figures["threads"]}
    assert len({len(column) for column in shown["chunks"].values()}) == 1
    if name == "count":
        assert len(lanes) == 3
        assert "count, 100% with the GIL" in shown["labels"]
    threads = [each for each in figures["threads"] if each["kind"] == "ThreadPoolExecutor"]
    assert [each["entry"] for each in threads] == [name] * 2
    assert cause in advice["text"]
    held = sum(each["held_gil_seconds"] for each in threads) / figures["seconds"]
    waited = sum(each["waited_for_gil_seconds"] for each in threads) / figures["seconds"]
    if name == "count":
        # Python starts and ends in this time as well.
        assert min(held, waited, figures["gil"]["held"]) > 0.35
        assert figures["functions"][0]["name"] == "count"
        assert f"`count` (program.py:{figures['functions'][0]['line']})" in advice["text"]
        assert "change `ThreadPoolExecutor` to `parallax.Executor`" in advice["text"]
        if usable_cores() == 2:
            assert 1.4 < advice["speed_up"] < 2.1
    else:
        assert held < 0.4
        assert advice["speed_up"] == 1.0


SERVER = """
import queue, threading, time

requests = queue.Queue()

def handle():
    for i in range(30000): i * i

def serve():
    while (request := requests.get()) is not None:
        handle()

threads = [threading.Thread(target=serve) for _ in range(4)]
for each in threads: each.start()
threading.Timer(0.1, print).start()
for _ in range(5):
    for _ in range(60): requests.put(1)
    time.sleep(0.6)
for each in threads: requests.put(None)
"""


@pytest.mark.full
@pytest.mark.skipif(not gil_enabled() or usable_cores() < 2, reason="about who holds the GIL")
def test_threads_that_wait_for_requests_are_not_said_to_wait(tmp_path: Path) -> None:
    """What a server's threads do between requests does not hide what they do in them."""
    (tmp_path / "program.py").write_text(SERVER)
    done = profile("--json", "figures.json", "program.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    threads = [each for each in figures["threads"] if each["entry"] == "serve"]
    waits = sum(each["waited_for_other_seconds"] for each in threads)
    assert sum(each["waited_for_threads_seconds"] for each in threads) > 0.8 * waits > 0.0
    (advice,) = figures["advice"]  # the timer needs none
    assert "`handle` (program.py:" in advice["text"]
    assert "holds the GIL" in advice["text"]
    assert advice["speed_up"] > 1.15


SHORT = """
import threading, time

def handle():
    for i in range(30000): i * i

end = time.perf_counter() + 2
while time.perf_counter() < end:
    threads = [threading.Thread(target=handle) for _ in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
"""


@pytest.mark.full
@pytest.mark.skipif(not gil_enabled(), reason="about who holds the GIL")
def test_threads_that_end_unseen_are_to_blame(tmp_path: Path) -> None:
    """As in a server with a thread for each request: few are there when they are looked at."""
    (tmp_path / "program.py").write_text(SHORT)
    done = profile("--json", "figures.json", "program.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    held = {each["name"]: each["held_gil_seconds"] for each in figures["functions"]}
    assert held["handle"] > 2 * held["<module>"]
    assert figures["advice"][0]["subject"] == "handle"
    assert "handle" in figures["advice"][0]["text"]
    assert "Thread(handle)" in done.stderr
    assert len(done.stderr.splitlines()) < 30
