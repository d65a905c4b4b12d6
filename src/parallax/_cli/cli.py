"""The commands: ``parallax demo`` and ``parallax info``, also as ``python -m parallax``.

Guarantees: ``main`` returns an exit status and raises nothing but ``SystemExit`` from argparse;
output is plain ASCII within 100 columns, coloured on a terminal only.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata

from parallax._cli.demo import run_demo
from parallax._cli.profile import add_profile, profile
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of a command line, by default this process's; returns the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command == "profile":  # what it raises is the program's
        return profile(chosen.program, chosen.arguments, chosen)
    try:
        status = 0
        if chosen.command == "demo":
            status = run_demo(quick=chosen.quick, json_file=chosen.json)
        elif chosen.command == "info":
            print("\n".join(_info()))
        else:
            parser.print_help()
        sys.stdout.flush()  # a reader that left is noticed here, not at exit
        return status
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader left, as in `parallax demo | head`. Closing stdout at exit would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"parallax {chosen.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parallax",
        description="Run a slow function on all cores, the way that fits it.",
    )
    parser.add_argument("--version", action="version", version=f"parallax {_VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="four kinds of work on this machine: for loop, plain threads, parallax",
        description="Time four kinds of work on the standard library's own sources: as a for "
        "loop, with plain threads, and with parallax. Takes about half a minute.",
    )
    demo.add_argument("--quick", action="store_true", help="less work, a few seconds")
    demo.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    add_profile(commands)
    commands.add_parser("info", help="what this machine and this interpreter give to parallax")
    return parser


def _info() -> list[str]:
    quota = CgroupReader().cpu_limit()
    limits = [f"installed {os.cpu_count() or 'unknown'}"]
    if hasattr(os, "sched_getaffinity"):
        limits.append(f"affinity {len(os.sched_getaffinity(0))}")
    limits.append("no CPU quota" if quota is None else f"CPU quota {quota:g}")
    load = load_per_core()
    methods = [_METHODS.get(method, method) for method in start_methods()]
    rows = [
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("platform", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("usable cores", f"{usable_cores()} ({', '.join(limits)})"),
        ("GIL", _gil()),
        ("start methods", methods[0] if methods else "none: this platform has no processes"),
        *(("", method) for method in methods[1:]),
        ("memory", f"{memory_available() / 1e9:.1f} GB free of {memory_total() / 1e9:.1f} GB"),
        ("load", "unknown" if load is None else f"{load:.2f} per core in the last minute"),
        ("needs", _versions("cloudpickle", "psutil", "typing-extensions")),
        ("optional", _versions("tqdm", "numpy")),
        *_settings(),
    ]
    return [f"parallax {_VERSION}", *(f"  {name:<14} {value}" for name, value in rows)]


def _gil() -> str:
    if not free_threaded_build():
        return "on (this build of Python always has it)"
    return "on (in a free-threaded build)" if gil_enabled() else "off (free-threaded build)"


def _versions(*names: str) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def _settings() -> list[tuple[str, str]]:
    names = sorted(name for name in os.environ if name.startswith("PARALLAX_"))
    return [("environment" if i == 0 else "", f"{n}={os.environ[n]}") for i, n in enumerate(names)]
