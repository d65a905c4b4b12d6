"""The commands, run as users run them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import parallax
from parallax._cli import cli, demo, demo_work, doctor

ROWS = (
    "parse each file with ast",
    "hash and compress each file",
    "fetch each over HTTP",
    "double each number",
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "parallax", *arguments],
        capture_output=True,
        text=True,
        timeout=55,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run("demo", "--quick", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    table = lines[lines.index(next(line for line in lines if line.rstrip().endswith("speed-up"))) :]
    for name in ROWS:
        assert sum(line.startswith(name) for line in table) == 1
    assert sum(line.strip().startswith("because ") for line in table) == len(ROWS)
    assert "All answers are those of the for loop" in done.stdout
    assert "from parallax import parallel_map" in done.stdout
    assert "\x1b" not in done.stdout, "no colours where there is no terminal"

    figures = json.loads(path.read_text(encoding="utf-8"))
    assert [row["name"] for row in figures["rows"]] == list(ROWS)
    for row in figures["rows"]:
        assert row["same"]
        assert min(row["loop"], row["threads"], row["parallax"], row["speed_up"]) > 0
        assert row["route"] in {"loop", "threads", "processes"}
        assert row["reason"]
    assert figures["rows"][-1]["route"] == "loop"


def test_demo_says_why_it_cannot_write(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["demo", "--json", str(tmp_path / "missing" / "file")]) == 2
    assert "missing" in capsys.readouterr().err


def test_demo_without_sources(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_work, "root", lambda: str(tmp_path))
    assert cli.main(["demo", "--quick"]) == 1
    assert "no Python sources" in capsys.readouterr().err


def test_demo_tells_a_wrong_answer(capsys: pytest.CaptureFixture[str]) -> None:
    times = 1.0, 1.0, 1.0, 0.5, 1.0
    row = demo.Row("some work", 2, *times, "threads", 2, "of this", [], "", same=False)
    demo._conclude([row], 3.0)
    out = capsys.readouterr().out
    assert "WRONG: some work" in out
    assert "All answers" not in out


def test_demo_server_ends_with_its_user() -> None:
    with demo._server(demo_work.root()) as address:
        body = demo_work.fetch(address + "ast.py")
        assert len(body) == 64
        with pytest.raises(OSError, match="404"):
            demo_work.fetch(address + "no_such_file.py")
    with pytest.raises(OSError, match=r".*"):
        demo_work.fetch(address + "ast.py")


def test_demo_work_is_the_same_every_time() -> None:
    files = demo_work.sources(300_000)
    assert files == demo_work.sources(300_000)
    assert sum(Path(file).stat().st_size for file in files) <= 300_000
    assert demo_work.parse(demo_work.parse.__code__.co_filename) >= 5
    digest, *sizes = demo_work.pack(files[0])
    assert len(digest) == 64
    assert min(sizes) > 0
    assert demo_work.double(21) == 42


def test_info(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLAX_MAX_WORKERS", "3")
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")  # threadpoolctl sets it
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"usable cores   {parallax.cpu_count()} (" in out
    assert f"parallax {parallax.__version__}" in out
    assert "cloudpickle" in out
    assert "PARALLAX_MAX_WORKERS=3" in out
    assert "a process " in out
    assert max(map(len, out.splitlines())) <= 100
    assert cli.main(["doctor", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cores"] == parallax.cpu_count()
    assert facts["processes_call_seconds"] <= facts["processes_start_seconds"]
    assert all(each["problem"] and each["remedy"] for each in facts["warnings"])


def test_doctor_warns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "usable_cores", lambda: 1)
    monkeypatch.setattr(doctor, "memory_available", lambda: 1_000_000)
    monkeypatch.setattr(doctor, "load_per_core", lambda: 3.0)
    monkeypatch.setattr(doctor, "_costs", lambda: dict.fromkeys(COSTS))
    monkeypatch.setattr(doctor, "_pools", lambda: {"openblas": 8})
    assert cli.main(["doctor"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for word in ("only one core", "memory is free", "3.0 threads for each", "runs 8 threads on 1"):
        assert word in out
    assert "a process unknown" in out


COSTS = [
    f"{kind}_{cost}_seconds" for kind in ("threads", "processes") for cost in ("start", "call")
]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module, which is gone afterwards."""
    (tmp_path / "cli_jobs.py").write_text(
        "LINES = ['a', 'b']\ndef size(text): return len(text)\n"
        "def fail(text): raise ValueError('no ' + text)\nclass Job:\n    def run(x): return x\n"
    )
    (tmp_path / "cli_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("cli_jobs", None)


@pytest.mark.parametrize(
    ("arguments", "items"),
    [
        (["--items", "range(5)"], "object of type 'int' has no len()"),
        (["--items", "LINES * 3"], ""),
        (["--items-from", "lines.txt"], ""),
        (["--items-from", "items.json"], ""),
    ],
)
def test_explain(
    arguments: list[str], items: str, jobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (jobs / "lines.txt").write_text("[not\nJSON\n")
    (jobs / "items.json").write_text('["a", "bc"]')
    status = cli.main(["explain", "cli_jobs:size", *arguments, "--json", "report.json"])
    out, err = capsys.readouterr()
    if items:  # the function's own error, with its traceback
        assert status == 1
        assert items in err
        return
    assert (status, err) == (0, "")
    assert out.startswith("`size`: ")
    assert json.loads((jobs / "report.json").read_text())["callable"] == "size"
    assert cli.main(["explain", "cli_jobs:Job.run", "--items", "()", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["explained"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("cli_jobs:nothing --items LINES", "nothing"),
        ("cli_jobs:LINES --items LINES", "list"),
        ("cli_jobs --items LINES", "MODULE:FUNCTION"),
        ("cli_missing:f --items ()", "cli_missing"),
        ("cli_broken:f --items ()", "ZeroDivisionError"),
        ("cli_jobs:size --items 1/0", "ZeroDivisionError"),
        ("cli_jobs:size --items 5", "iterable"),
        ("cli_jobs:size --items-from nothing.txt", "nothing.txt"),
        ("cli_jobs:size --items-from broken.json", "JSON"),
        ("cli_jobs:size --items-from number.json", "list"),
        ("cli_jobs:size --items LINES --json missing/x", "missing/x"),
        ("cli_jobs:size --items LINES --max-workers 0", "max_workers"),
        ("cli_jobs:size --items LINES --max-workers x", "invalid int"),
        ("cli_jobs:size", "--items"),
    ],
)
def test_explain_misuse_is_one_line(
    arguments: str, word: str, jobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (jobs / "broken.json").write_text("[1,")
    (jobs / "number.json").write_text("7")
    try:
        status = cli.main(["explain", *arguments.split()])
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert word in err


def test_doctor_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", str(tmp_path / "missing" / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "demo" in out
    assert "doctor" in out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["dance"])
    assert exit_.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.split() == ["parallax", parallax.__version__]


def test_interrupt_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_a_reader_that_leaves_is_no_traceback() -> None:
    code = "import sys; from parallax._cli.cli import main; sys.exit(main(['info']))"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    _, err = child.communicate(timeout=30)
    assert err == b""


def test_main_module_can_be_imported() -> None:
    importlib.import_module("parallax.__main__")
