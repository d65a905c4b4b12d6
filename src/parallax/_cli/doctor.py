"""``parallax doctor``: what this machine and interpreter give, what a call costs, what is wrong.

Guarantees: takes about a second; what cannot be told is left out or said to be unknown; each
warning names a remedy.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

from parallax._api.map import parallel_map
from parallax._backends.processes.common.native_threads import THREAD_COUNT_VARIABLES
from parallax._backends.processes.start.fork_safety import unsafe_reason
from parallax._cli.terminal import bold, write
from parallax._core.cgroups import CgroupReader
from parallax._core.cores import (
    free_threaded_build,
    gil_enabled,
    load_per_core,
    start_methods,
    usable_cores,
)
from parallax._core.memory import memory_available, memory_total

#: The package itself is a layer above; that it is loaded by now is certain.
_VERSION: str = sys.modules["parallax"].__version__

_METHODS = {
    "zygote": "zygote (a helper process forks workers in about a millisecond)",
    "spawn": "spawn (a fresh interpreter for each worker)",
}
#: Below these, calls that share much data or have many workers fail.
_LOW_MEMORY, _LOW_SHM, _FEW_FILES = 500e6, 64e6, 256
#: Runnable threads per core from which times mean little.
_BUSY_LOAD = 0.9
#: Bytes that are copied to measure memory, and calls of which the fastest counts.
_COPIED, _ATTEMPTS = 1 << 25, 3


def run_doctor(options: argparse.Namespace) -> int:
    """Print the facts and the warnings; returns 0."""
    path, facts = options.json, _facts()
    warnings = _warnings(facts)
    if path != "-":
        print("\n".join(_text(facts, warnings)))
    if path is not None:
        told = [{"problem": problem, "remedy": remedy} for problem, remedy in warnings]
        write({"schema": 1, "parallax": _VERSION, **facts, "warnings": told}, path)
    return 0


def _facts() -> dict[str, Any]:
    """By the schema in docs/profile.md; None is unknown."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    unsafe = unsafe_reason()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": usable_cores(),
        "cores_installed": os.cpu_count(),
        "cores_affinity": affinity,
        "cpu_quota": CgroupReader().cpu_limit(),
        "gil": gil_enabled(),
        "free_threaded_build": free_threaded_build(),
        "start_methods": list(start_methods()),
        "fork_of_program": not unsafe,
        "no_fork_because": unsafe,
        "memory_available": memory_available(),
        "memory_total": memory_total(),
        "load_per_core": load_per_core(),
        "shared_memory_free": _shm_free(),
        "memfd": hasattr(os, "memfd_create"),
        "open_files_limit": _open_files(),
        "copy_bytes_per_second": _copy_rate(),
        **_costs(),
        "native_thread_settings": {n: os.environ[n] for n in THREAD_COUNT_VARIABLES
                                   if n in os.environ},
        "native_thread_pools": _pools(),
        "needs": _versions("cloudpickle", "psutil", "typing-extensions"),
        "optional": _versions("tqdm", "numpy", "threadpoolctl"),
        "environment": {n: v for n, v in sorted(os.environ.items()) if n.startswith("PARALLAX_")},
    }  # fmt: skip


def _text(facts: dict[str, Any], warnings: list[tuple[str, str]]) -> list[str]:
    quota, load, shm = facts["cpu_quota"], facts["load_per_core"], facts["shared_memory_free"]
    limits = [f"installed {facts['cores_installed'] or 'unknown'}"]
    limits += [] if facts["cores_affinity"] is None else [f"affinity {facts['cores_affinity']}"]
    limits.append("no CPU quota" if quota is None else f"CPU quota {quota:g}")
    methods = [_METHODS.get(method, method) for method in facts["start_methods"]]
    fork = "for each call a fork of the program if it has one thread then, else"
    if not facts["fork_of_program"]:
        fork = f"no fork of the program ({facts['no_fork_because']}), but"
    files = facts["open_files_limit"]
    memory = [
        f"{facts['memory_available'] / 1e9:.1f} GB free of {facts['memory_total'] / 1e9:.1f} GB",
        f"copied at {facts['copy_bytes_per_second'] / 1e9:.1f} GB/s",
    ]
    shared = ["memfd, any size"] if facts["memfd"] else []
    shared += [] if shm is None else [f"{shm / 1e9:.1f} GB free in /dev/shm"]
    pools = [f"{name} {threads}" for name, threads in facts["native_thread_pools"].items()]
    pools += [f"{name}={value}" for name, value in facts["native_thread_settings"].items()]
    rows = [
        ("python", facts["python"]),
        ("platform", facts["platform"]),
        ("usable cores", f"{facts['cores']} ({', '.join(limits)})"),
        ("GIL", _gil(facts)),
        *_rows("start methods", [fork, *methods] if methods else ["none: there are no processes"]),
        ("start-up", _cost(facts, "threads_start_seconds", "processes_start_seconds")),
        ("a call", _cost(facts, "threads_call_seconds", "processes_call_seconds")),
        ("memory", ", ".join(memory)),
        ("shared memory", ", ".join(shared) or "unknown"),
        ("open files", "unknown" if files is None else f"at most {files}"),
        ("BLAS threads", ", ".join(pools) or "no library with a pool of its own is set or found"),
        ("load", "unknown" if load is None else f"{load:.2f} per core in the last minute"),
        ("needs", facts["needs"]),
        ("optional", facts["optional"]),
        *_rows("environment", [f"{name}={value}" for name, value in facts["environment"].items()]),
    ]  # fmt: skip
    lines = [bold(f"parallax {_VERSION}")]
    for name, value in rows:
        lines += textwrap.wrap(value, 98, initial_indent=f"  {name:<14} ",
                               subsequent_indent=" " * 17)  # fmt: skip
    lines += ["", bold("warnings" if warnings else "nothing to warn of")]
    for problem, remedy in warnings:
        lines += textwrap.wrap(f"- {problem}: {remedy}.", 98, subsequent_indent="  ")
    return lines


def _warnings(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Problems with their remedies."""
    cores, quota, load = facts["cores"], facts["cpu_quota"], facts["load_per_core"]
    installed = facts["cores_installed"] or cores
    shm, files = facts["shared_memory_free"], facts["open_files_limit"]
    fork = facts["no_fork_because"] if sys.platform == "linux" else ""
    most = max(facts["native_thread_pools"].values(), default=1)
    checks = [
        (cores == 1, "only one core may be used, so nothing is faster in parallel",
         "raise the CPU affinity or quota, or PYTHON_CPU_COUNT"),
        (1 < cores < installed, f"{cores} of {installed} installed cores may be used",
         "raise the CPU affinity or quota if that is not meant"),
        (quota is not None and quota < cores,
         f"the CPU quota of {quota or 0:g} stops {cores} busy workers now and then",
         "set the quota to a whole number of cores"),
        (load is not None and load > _BUSY_LOAD,
         f"other programs want the cores, {load or 0:.1f} threads for each",
         "end them before you trust a time; fewer workers may be faster"),
        (facts["free_threaded_build"] and facts["gil"],
         "this build can do without the GIL, but it is on",
         "an imported module or PYTHON_GIL=1 has switched it on; try python -X gil=0"),
        (not facts["start_methods"], "this platform has no processes",
         "use threads, or another platform"),
        (fork, f"workers cannot be forks of the program: {fork}",
         "none is needed: workers import the function's module, which takes longer"),
        (facts["memory_available"] < _LOW_MEMORY, "less than 0.5 GB of memory is free",
         "use fewer workers: max_workers=..."),
        (shm is not None and shm < _LOW_SHM and not facts["memfd"],
         f"{(shm or 0) / 1e6:.0f} MB of shared memory are left for large arrays",
         "make /dev/shm larger (docker run --shm-size=1g)"),
        (files is not None and files < max(_FEW_FILES, 8 * cores),
         f"a program may open {files} files only, and each worker takes some", "ulimit -n 4096"),
        (most > cores, f"a BLAS library runs {most} threads on {cores} cores",
         f"set OPENBLAS_NUM_THREADS={cores} and OMP_NUM_THREADS={cores}"),
        (sys.gettrace() is not None, "a debugger or coverage tool slows Python code down",
         "measure without it"),
    ]  # fmt: skip
    return [(problem, remedy) for wrong, problem, remedy in checks if wrong]


def _costs() -> dict[str, float | None]:
    """Seconds until the first result of one worker, and for one more call, by kind of worker."""
    found: dict[str, float | None] = {}
    for backend in ("threads", "processes"):
        try:
            times = [_timed(lambda b=backend: parallel_map(abs, [1], backend=b, max_workers=1))  # type: ignore[misc]
                     for _ in range(1 + _ATTEMPTS)]  # fmt: skip
        except Exception:  # noqa: BLE001 - no processes here, or none may be started
            times = []
        found[f"{backend}_start_seconds"] = times[0] if times else None
        found[f"{backend}_call_seconds"] = min(times[1:], default=None)
    return found


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _copy_rate() -> float:
    """Bytes per second."""
    source, target = bytes(_COPIED), bytearray(_COPIED)
    view = memoryview(target)

    def copy() -> None:
        view[:] = source

    return _COPIED / min(_timed(copy) for _ in range(_ATTEMPTS))


def _pools() -> dict[str, int]:
    """Threads of the native libraries of NumPy, where they can be asked."""
    try:
        import numpy  # noqa: F401 - loads them
        import threadpoolctl

        return {
            each["internal_api"]: each["num_threads"] for each in threadpoolctl.threadpool_info()
        }
    except Exception:  # noqa: BLE001 - not installed, or broken
        return {}


def _shm_free() -> int | None:
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108 - only asked
    except OSError:
        return None


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _gil(facts: dict[str, Any]) -> str:
    if not facts["free_threaded_build"]:
        return "on (this build of Python always has it)"
    return "on (in a free-threaded build)" if facts["gil"] else "off (free-threaded build)"


def _cost(facts: dict[str, Any], threads: str, processes: str) -> str:
    names = (("a thread", facts[threads]), ("a process", facts[processes]))
    return ", ".join(
        f"{name} unknown" if cost is None else f"{name} {cost * 1e3:.2f} ms" for name, cost in names
    )


def _rows(name: str, values: list[str]) -> list[tuple[str, str]]:
    return [(name if i == 0 else "", value) for i, value in enumerate(values)]


def _versions(*names: str) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)
