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
from tests.conformance.outcome import Outcome, expect_failure
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
    # Nothing here may keep the tests: what one has made must end with it.
    tests = [test for suite in _load() for test in _tests(suite) if _of_ours(test)]
    here = [name for name, (_, since) in SKIPS.items() if sys.version_info >= since]
    unknown = [name for name in here if not any(_fits(test, [name]) for test in tests)]
    suite = unittest.TestSuite(_chosen(tests, asked.patterns or ["*"], list(SKIPS)))
    tests.clear()
    runner = unittest.TextTestRunner(verbosity=1 + asked.verbose, resultclass=Outcome)
    result = runner.run(suite)
    assert isinstance(result, Outcome)
    for name in result.stale:
        print(f"stale skip, it passes: {name}")
    for pattern in unknown:
        print(f"stale skip, no such test: {pattern}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"CPython {version}'s test_concurrent_futures against parallax's executors:")
    print(result.table())
    return 0 if result.testsRun and result.wasSuccessful() and not unknown else 1


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


def _of_ours(test: unittest.TestCase) -> bool:
    """Not of pools that parallax has no counterpart of, such as InterpreterPoolExecutor."""
    kind = getattr(test, "executor_type", None)
    return kind is None or kind in substitute.ours()


def _chosen(
    tests: list[unittest.TestCase], patterns: list[str], expected: list[str]
) -> Iterator[unittest.TestCase]:
    # In their order: modules and classes have fixtures of their own.
    for test in tests:
        if _fits(test, patterns):
            if _fits(test, expected):
                expect_failure(test)
            yield test


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
