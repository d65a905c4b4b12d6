"""The jobs as workloads of the routing benchmark's cells; a job is imported when it is set up."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.jobs import programs
from benchmarks.routing.workloads.definition import Workload


def _setup(name: str) -> Callable[[], tuple[Callable[[Any], Any], list[Any]]]:
    def setup() -> tuple[Callable[[Any], Any], list[Any]]:
        module = importlib.import_module(f"{programs.__name__}.{name}")
        return module.work, list(module.items())

    return setup


def _what(name: str) -> str:
    """The first line of a job's text, without the packages that the job imports."""
    tree = ast.parse((Path(programs.__path__[0]) / f"{name}.py").read_text())
    return (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")


WORKLOADS = tuple(
    Workload(name, _what(name), _setup(name))
    for name in sorted(each.name for each in pkgutil.iter_modules(programs.__path__))
)
