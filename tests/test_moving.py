"""docs/moving.md: "before" and "after" print the same."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "moving.md"

#: A mark with what "before" needs, a version of Python or a package, and the code below it.
BLOCK = re.compile(
    r"^<!-- (?P<side>before|after)(?:: (?P<needs>\S+))? -->\n```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Pair:
    title: str
    needs: str | None
    before: str
    after: str


def pairs() -> list[Pair]:
    text = PAGE.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    made = []
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert (first["side"], second["side"]) == ("before", "after"), first["code"]
        title = re.findall(r"^##+ (.*)$", text[: first.start()], re.MULTILINE)[-1]
        made.append(Pair(title, first["needs"], first["code"], second["code"]))
    return made


PAIRS = pairs()


def output(code: str, folder: Path, *options: str) -> str:
    script = folder / "snippet.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *options, str(script)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def missing(needs: str | None) -> str | None:
    """Why "before" cannot be run here."""
    if needs is None:
        return None
    if needs[0].isdigit():
        version = tuple(map(int, needs.split(".")))
        return None if sys.version_info >= version else f"Python {needs}"
    return None if importlib.util.find_spec(needs) else needs


def test_every_piece_of_code_is_part_of_a_pair() -> None:
    code = PAGE.read_text(encoding="utf-8").count("```python")
    assert code == 2 * len(PAIRS)


@pytest.mark.sampled(6)
@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.title)
def test_after_prints_what_before_prints(pair: Pair, tmp_path: Path) -> None:
    after = output(pair.after, tmp_path, "-W", "error")
    assert after
    if why := missing(pair.needs):
        pytest.skip(f"before: needs {why}")
    assert output(pair.before, tmp_path) == after
