"""The tests on every interpreter found: `make matrix`, or `nox -s tests-3.12 -- -k planner`.

One session per version below, the free-threaded builds ("t") among them. An interpreter counts as
found when it starts and says that it is that version: shims of version managers answer to every
name and then refuse. What is not found is skipped with one line.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nox

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.13t", "3.14t")

# Compiling these takes minutes and a compiler; no wheel means a clear failure instead.
WHEELS_ONLY = "--only-binary=numpy,pandas,psutil"

_PROBE = (
    "import sys, sysconfig; print(*sys.version_info[:3], "
    "int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))), sys.executable)"
)

nox.needs_version = ">=2024.10"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False


def _folders() -> list[Path]:
    """Where interpreters live: PATH, then what pyenv and uv have installed."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
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
    session.run("python", "-m", "pytest", *session.posargs)


def _skip(session: nox.Session) -> None:
    session.skip(f"no python{session.name.removeprefix('tests-')} found")


_found = _find_interpreters()
for _version in VERSIONS:
    nox.session(
        _run_tests if _version in _found else _skip,
        python=_found.get(_version, False),
        name=f"tests-{_version}",
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


# Many distributions leave CPython's tests out. The oldest and the newest that have them will do.
_suited = [version for version in VERSIONS if version in _found and _has_suite(_found[version])]
for _version in dict.fromkeys((_suited[:1] + _suited[-1:]) or ["none"]):
    nox.session(
        _conform if _version in _found else _no_suite,
        python=_found.get(_version, False),
        name=f"conformance-{_version}",
        tags=["conformance"],
        default=False,
    )
