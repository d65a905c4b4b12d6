"""Runs CPython's own tests of ``concurrent.futures`` against parallax: ``make conformance``.

    python -m tests.conformance [-v] [pattern ...]

The interpreter must have the package ``test.test_concurrent_futures`` (3.12 and later) or the
module of that name. Patterns narrow the tests: "Class.test", with ``*`` for anything.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import pkgutil
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance import substitute
from tests.conformance.skips import SKIPS

SUITE = "test.test_concurrent_futures"

#: Put before the scripts that tests run in an interpreter of their own.
PRELUDE = "import sys; sys.path.insert(0, {folder!r}); import substitute; substitute.install()\n"


def main() -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("patterns", nargs="*")
    asked = parser.parse_args()
    substitute.install()
    _substitute_in_scripts()
    known = [*_tests(unittest.TestSuite(_load()))]
    chosen = [test for test in known if _fits(test, asked.patterns or ["*"])]
    expected = [name for name, (_, since) in SKIPS.items() if sys.version_info >= since]
    stale = [name for name in expected if not any(_fits(test, [name]) for test in known)]
    for test in chosen:
        if _fits(test, expected):
            _expect_failure(test)
    result = unittest.TextTestRunner(verbosity=1 + asked.verbose).run(_suites(chosen))
    for test in result.unexpectedSuccesses:
        print(f"stale skip, it passes: {test.id()}")
    for pattern in stale:
        print(f"stale skip, no such test: {pattern}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(
        f"CPython {version}'s test_concurrent_futures: {result.testsRun} run, "
        f"{len(result.failures) + len(result.errors)} failed, {len(result.expectedFailures)} "
        f"known to differ (tests/conformance/skips.py), {len(result.skipped)} skipped by CPython"
    )
    return 0 if result.testsRun and result.wasSuccessful() and not stale else 1


def _load() -> Iterator[unittest.TestSuite]:
    suite = importlib.import_module(SUITE)
    names = [SUITE]
    if hasattr(suite, "__path__"):
        names = [f"{SUITE}.{m.name}" for m in pkgutil.iter_modules(suite.__path__)]
    for name in sorted(names):
        if name == SUITE or name.rpartition(".")[2].startswith("test_"):
            yield unittest.defaultTestLoader.loadTestsFromName(name)


def _tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _tests(each)
        else:
            yield each


def _expect_failure(test: unittest.TestCase) -> None:
    name = test.id().rpartition(".")[2]
    genuine = getattr(test, name)

    @unittest.expectedFailure
    def run() -> None:
        genuine()

    setattr(test, name, run)


def _suites(tests: list[unittest.TestCase]) -> unittest.TestSuite:
    # Classes and modules have fixtures of their own: neighbours must stay neighbours.
    return unittest.TestSuite(tests)


def _fits(test: unittest.TestCase, patterns: list[str]) -> bool:
    name = ".".join(test.id().split(".")[-2:])
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _substitute_in_scripts() -> None:
    from test.support import script_helper

    genuine = script_helper.assert_python_ok
    prelude = PRELUDE.format(folder=str(Path(__file__).parent))

    def assert_python_ok(*args: Any, **variables: Any) -> Any:
        at = args.index("-c") + 1
        return genuine(*args[:at], prelude + args[at], *args[at + 1 :], **variables)

    script_helper.assert_python_ok = assert_python_ok


if __name__ == "__main__":
    sys.exit(main())
