"""Finds the workloads: all of them, those of a smoke run, or those named."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from ._workloads._define import Workload

MODULES = ("pure_python", "c_held", "c_released", "waiting", "amounts", "payloads")


def all_workloads() -> list[Workload]:
    found: list[Workload] = []
    for name in MODULES:
        module = importlib.import_module(f"benchmarks._workloads.{name}")
        found.extend(module.WORKLOADS)
    return found


def choose(names: Iterable[str] = (), *, quick: bool = False) -> list[Workload]:
    """Workloads in the order of the catalog; an unknown name is a ValueError that lists them."""
    workloads = all_workloads()
    wanted = set(names)
    unknown = wanted - {workload.name for workload in workloads}
    if unknown:
        known = ", ".join(workload.name for workload in workloads)
        raise ValueError(f"unknown workload {', '.join(sorted(unknown))}; there are: {known}")
    if wanted:
        return [workload for workload in workloads if workload.name in wanted]
    return [workload for workload in workloads if workload.quick or not quick]


def find(module: str, name: str) -> Workload:
    """One workload, importing no other module than its own."""
    for workload in importlib.import_module(module).WORKLOADS:
        if workload.name == name:
            found: Workload = workload
            return found
    raise LookupError(f"{module} has no workload {name!r}")
