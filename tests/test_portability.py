"""macOS and Windows, forced on Linux: what modules load, what each backend does, what is promised.

`helpers/forced` says how a platform is forced. `docs/portability.md` has the table of what differs;
each of its rows names the checks that force it, and each check is named there.
"""

from __future__ import annotations

import ast
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import pytest
from helpers.forced.forced_platform import ABSENT, HIDDEN
from helpers.platforms import ROOT, run_on

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the platforms are forced on Linux")

JOBS = ROOT / "tests" / "jobs" / "portable.py"
PAGE = (ROOT / "docs" / "portability.md").read_text(encoding="utf-8")
PLATFORMS = ("darwin", "win32")
CHECKS = re.findall(r"^def (check_\w+)", JOBS.read_text(encoding="utf-8"), re.MULTILINE)

#: of the interpreter, each once per platform.
ARGUMENTS = (["-m"] * len(PLATFORMS), ["tests.jobs.portable"] * len(PLATFORMS))

LOAD_ALL = """
import importlib, pkgutil, sys, parallax
from parallax._core import cores
assert cores.start_methods() == ("spawn",)
for module in pkgutil.walk_packages(parallax.__path__, "parallax."):
    newer = module.name.endswith(".interpreters") and sys.version_info < (3, 14)
    if module.name != "parallax.__main__" and not newer:
        try:
            importlib.import_module(module.name)
        except parallax.BackendMissingError:
            pass  # an extra is not installed
print(cores.sys.platform)
"""


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_module_loads(platform, tmp_path):
    done = run_on(platform, tmp_path, "-W", "error", "-c", LOAD_ALL)
    assert (done.stdout, done.returncode) == (f"{platform}\n", 0), done.stderr


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each check of ``jobs/portable.py`` said on each platform, or all that was said there."""
    folders = [tmp_path_factory.mktemp("tags") for _ in PLATFORMS]
    with ThreadPoolExecutor() as executor:
        runs = list(executor.map(partial(run_on, timeout=55), PLATFORMS, folders, *ARGUMENTS))
    found = {}
    for platform, done in zip(PLATFORMS, runs, strict=True):
        said = dict(re.findall(r"^(check_\w+): (.*)$", done.stdout, re.MULTILINE))
        for check in CHECKS:
            found[platform, check] = said.get(check, done.stdout + done.stderr)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("check", CHECKS)
def test_it_holds_there(platform, check, outcomes):
    said = outcomes[platform, check]
    assert said.startswith("ok"), said.replace("\\n", "\n")


def test_coarse_clocks_harm_no_call(tmp_path):
    """All clocks move by 15.6 ms: the results are right, and nothing hangs."""
    code = (
        "from parallax import parallel_map, Executor; from tests.jobs.portable import square\n"
        "if __name__ == '__main__':\n"
        "    for backend in ('threads', 'processes', 'auto'):\n"
        "        assert parallel_map(square, range(500), backend=backend)[-1] == 499 * 499\n"
        "    with Executor(2) as e: print(sum(e.map(square, range(500))))\n"
    )
    done = run_on("win32+coarse", tmp_path, "-c", code)
    assert (done.stdout, done.returncode) == (f"{sum(x * x for x in range(500))}\n", 0), done.stderr


# -- the table of names ----------------------------------------------------------------------------


@cache
def _stub(module: str) -> list[ast.stmt]:
    mypy = pytest.importorskip("mypy")
    path = Path(mypy.__file__).parent / "typeshed" / "stdlib" / module.replace(".", "/")
    found = [p for p in (path.with_suffix(".pyi"), path / "__init__.pyi") if p.exists()]
    return ast.parse(found[0].read_text(encoding="utf-8")).body if found else []


def _holds(test: ast.expr, platform: str) -> bool:
    if isinstance(test, ast.BoolOp):
        found = [_holds(each, platform) for each in test.values]
        return all(found) if isinstance(test.op, ast.And) else any(found)
    words = ast.unparse(test)
    assert words.startswith(("sys.platform", "sys.version_info", "not TYPE_CHECKING")), words
    version = type("", (), {"version_info": sys.version_info, "platform": platform})
    return bool(eval(words, {"sys": version, "TYPE_CHECKING": True}))


def _names(body: list[ast.stmt], platform: str) -> set[str]:
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.If):
            found |= _names(node.body if _holds(node.test, platform) else node.orelse, platform)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


@cache
def _sources() -> tuple[frozenset[str], frozenset[str]]:
    """The words of the sources, and the modules that they import."""
    words: set[str] = set()
    modules: set[str] = set()
    for path in (ROOT / "src" / "parallax").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        words |= set(re.findall(r"\w+", text))
        modules |= set(re.findall(r"^\s*(?:import|from) ([\w.]+)", text, re.MULTILINE))
    return frozenset(words), frozenset(modules)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_names_that_a_platform_lacks_are_hidden(platform):
    """Every name of the standard library in our sources that typeshed has for Linux only."""
    words, modules = _sources()
    missing = []
    for module in sorted(modules):
        body = _stub("signal" if module == "_signal" else module)
        if module in ABSENT[platform]:
            continue
        lacks = (_names(body, "linux") - _names(body, platform)) & words
        here = dir(sys.modules.get(module)) if sys.platform == "linux" else lacks
        hidden = set(HIDDEN[platform].get(module, "").split()) | (lacks - set(here))
        missing += [f"{module}.{name}" for name in sorted(lacks - hidden)]
    assert missing == []


# -- the page --------------------------------------------------------------------------------------


def test_the_page_names_every_check_and_no_other():
    named = set(re.findall(r"`((?:check|test)_\w+)`", PAGE))
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    here = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for name in named if name.startswith("check_")} == set(CHECKS)
    elsewhere = {name for name in named - here if name.startswith("test_")}
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in elsewhere if f"def {name}(" not in text] == []
