"""The tests on every interpreter found: `make matrix`, or `nox -s tests-3.12 -- -k planner`.

One session per version below, the free-threaded builds ("t") among them. An interpreter counts as
found when it starts and says that it is that version: shims of version managers answer to every
name and then refuse. What is not found is skipped with one line. `NOX_PYTHONS` names more places to
look at, before all others: folders with interpreters, installations, or folders with installations.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nox

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.13t", "3.14t", "3.15t")

# Compiling these takes minutes and a compiler, or Rust: pip takes the newest version that has a
# wheel for the interpreter, and none means a clear failure instead.
WHEELS_ONLY = "--only-binary=numpy,pandas,psutil,hypothesis,pyzmq"

_PROBE = (
    "import sys, sysconfig; print(*sys.version_info[:3], "
    "int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))), sys.executable)"
)

nox.needs_version = ">=2024.10"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False


# From an installation, or a folder with several, to the interpreters: "usr" as packages have it.
WAYS_TO_BIN = ("bin", "usr/bin", "*/bin", "*/usr/bin")


def _paths(variable: str) -> list[Path]:
    value = os.environ.get(variable, "")
    return [Path(folder).expanduser() for folder in value.split(os.pathsep) if folder]


def _folders() -> list[Path]:
    """Where interpreters live: NOX_PYTHONS, PATH, then what pyenv and uv have installed."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    folders = []
    for named in _paths("NOX_PYTHONS"):
        folders += [named, *(each for way in WAYS_TO_BIN for each in sorted(named.glob(way)))]
    folders += _paths("PATH")
    for root in (pyenv / "versions", uv):
        folders += sorted(root.glob("*/bin"))
    return folders


def _ask(python: Path) -> tuple[str, tuple[int, ...], str] | None:
    """The version ("3.13t"), the full version and the executable it really is, if it runs."""
    try:
        answer = subprocess.run(
            [python, "-c", _PROBE], capture_output=True, text=True, timeout=20, check=True
        ).stdout.split(maxsplit=4)
        major, minor, micro, free_threaded = map(int, answer[:4])
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return f"{major}.{minor}{'t' * free_threaded}", (major, minor, micro), answer[4].strip()


def _find_interpreters() -> dict[str, str]:
    """For each version that is here, the newest interpreter of that version."""
    best: dict[str, tuple[tuple[int, ...], str]] = {}
    for folder in _folders():
        for version in VERSIONS:
            python = folder / f"python{version}"
            found = _ask(python) if python.is_file() and os.access(python, os.X_OK) else None
            if found is not None and found[0] == version:
                _, full, executable = found
                if version not in best or full > best[version][0]:
                    best[version] = (full, executable)
    return {version: executable for version, (_, executable) in best.items()}


def _run_tests(session: nox.Session) -> None:
    session.install("--disable-pip-version-check", WHEELS_ONLY, ".[test]")
    # Of each interpreter its own: what failed in one says nothing of another.
    cache = f"cache_dir={session.virtualenv.location}/pytest_cache"
    # Where nothing has failed there is nothing to run again.
    passed = [0, 5] if "--last-failed" in session.posargs else [0]
    session.run("python", "-m", "pytest", "-o", cache, *session.posargs, success_codes=passed)


def _skip(session: nox.Session) -> None:
    session.skip(f"no python{session.name.removeprefix('tests-')} found")


_found = _find_interpreters()
# The oldest and the newest with a GIL: `nox --tags ends`.
_plain = [version for version in VERSIONS if version in _found and not version.endswith("t")]
for _version in VERSIONS:
    nox.session(
        _run_tests if _version in _found else _skip,
        python=_found.get(_version, False),
        name=f"tests-{_version}",
        tags=["ends"] if _version in (*_plain[:1], *_plain[-1:]) else None,
    )


def _conform(session: nox.Session) -> None:
    """CPython's own tests of `concurrent.futures`, of the version that runs them."""
    session.install("--disable-pip-version-check", WHEELS_ONLY, ".")
    session.run("python", "-m", "tests.conformance", *session.posargs)


def _has_suite(executable: str) -> bool:
    find = "importlib.util.find_spec('test.test_concurrent_futures')"
    probe = f"import importlib.util, sys; sys.exit(not {find})"
    try:
        return subprocess.run([executable, "-c", probe], check=False, timeout=20).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _no_suite(session: nox.Session) -> None:
    session.error("no interpreter found whose package `test` has test_concurrent_futures")


# Many distributions leave CPython's tests out.
_suited = [version for version in VERSIONS if version in _found and _has_suite(_found[version])]
_plain = [version for version in _suited if not version.endswith("t")]
for _version in _suited or ["none"]:
    nox.session(
        _conform if _version in _found else _no_suite,
        python=_found.get(_version, False),
        name=f"conformance-{_version}",
        tags=["conformance"]
        + ["conformance-ends"] * (_version in (*_plain[:1], *_plain[-1:], "none")),
        default=False,
    )
