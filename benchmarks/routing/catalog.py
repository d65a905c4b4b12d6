"""Finds the workloads: all of them, or one."""

from __future__ import annotations

import importlib

from benchmarks.routing.workloads.definition import Workload

MODULES = (
    "pure_python",
    "c_held",
    "c_released",
    "waiting",
    "amounts",
    "payloads",
    "heavy_program",
    "surroundings",
)


def all_workloads() -> list[Workload]:
    found: list[Workload] = []
    for name in MODULES:
        module = importlib.import_module(f"benchmarks.routing.workloads.{name}")
        found.extend(module.WORKLOADS)
    return found


def find(module: str, name: str) -> Workload:
    """One workload, importing no other module than its own."""
    for workload in importlib.import_module(module).WORKLOADS:
        if workload.name == name:
            found: Workload = workload
            return found
    raise LookupError(f"{module} has no workload {name!r}")
