"""The documents: their code runs, their links lead somewhere, and they name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import parallax
from parallax._core.options import _ENVIRONMENT, OPTION_NAMES

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]

#: The line before a block that is to be run.
MARK = "<!-- run -->"
#: The beginning of that before one which test_moving.py runs.
PAIR_MARKS = ("<!-- before", "<!-- after")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    marked: bool
    paired: bool
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        if lines[at].strip() != "```python":
            at += 1
            continue
        end = lines.index("```", at + 1)
        above = lines[at - 1] if at else ""
        code = "\n".join(lines[at + 1 : end]) + "\n"
        paired = page.name == "moving.md" and above.startswith(PAIR_MARKS)
        found.append(Block(page.name, at + 2, above == MARK, paired, code))
        at = end + 1
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


def test_there_is_code_to_run() -> None:
    assert {block.page for block in BLOCKS if block.marked} >= {
        "README.md",
        "routing.md",
        "errors.md",
    }


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_code_of_more_than_three_lines_is_run(block: Block) -> None:
    assert block.marked or block.paired or block.code.count("\n") <= 3


@pytest.mark.slow
@pytest.mark.sampled(5)
@pytest.mark.parametrize("block", [b for b in BLOCKS if b.marked], ids=str)
def test_code_runs(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_readme_names_every_option_and_variable() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in OPTION_NAMES if f"`{name}`" not in text] == []
    assert [name for name in _ENVIRONMENT if name not in text] == []


def test_every_public_name_is_in_the_documents() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    left_out = {"RemoteTraceback", "Results"}  # met as `__cause__`, and as "a list"
    missing = [name for name in parallax.__all__ if name not in text and name not in left_out]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|examples|docs|src)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name


def test_design_names_every_module() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    layers = text[text.index("## Layers") : text.index("## The journey")]
    words = set(re.findall(r"[\w.]+", layers))
    source = Path(parallax.__file__).parent
    modules = [path for path in source.rglob("*.py") if path.parent.name != "_guard"]
    missing = [path.name for path in modules if not {path.stem, path.name} & words]
    packages = {path.parent for path in source.rglob("*/__init__.py")}
    missing = [name for name in missing if name != "__init__.py"]
    missing += [path.name for path in packages if f"{path.name}/" not in layers]
    assert missing == []
