"""The commands: ``parallax profile``, ``explain``, ``doctor`` and ``demo``.

Also as ``python -m parallax``. Guarantees: ``main`` returns an exit status and raises nothing but
``SystemExit`` from argparse, and what a profiled program raises; an error of use is one line on
standard error and status 2; output is within 100 columns, bold on a terminal only. A profiled
program does not find modules loaded that only other commands need.
"""

from __future__ import annotations

import argparse
import os
import sys

from parallax._cli.profile import run_profile
from parallax._cli.terminal import misuse, writable
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from parallax._cli import demo, doctor, explain
else:
    demo = lazy_module("parallax._cli.demo")
    doctor = lazy_module("parallax._cli.doctor")
    explain = lazy_module("parallax._cli.explain")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of a command line, by default this process's; returns the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:  # now: what the command does may take long
        for name in ("json", "html", "output"):
            if (path := getattr(chosen, name, None)) not in {None, "-"}:
                setattr(chosen, name, writable(path))
    except OSError as error:
        return misuse(chosen.command, f"can't write {error.filename!r}: {error.strerror}")
    if chosen.command == "profile":  # what it raises is the program's
        return run_profile(chosen)
    try:
        status = 0
        if chosen.command is None:
            parser.print_help()
        elif chosen.command == "demo":
            status = demo.run_demo(quick=chosen.quick, json_file=chosen.json)
        elif chosen.command == "explain":
            status = explain.run_explain(chosen)
        else:
            status = doctor.run_doctor(chosen)
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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="parallax",
        description="Run a slow function on all cores, the way that fits it.",
    )
    # The package itself is a layer above; that it is loaded by now is certain.
    version = f"parallax {sys.modules['parallax'].__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_profile(commands)
    _add_explain(commands)
    doctor_ = commands.add_parser(
        "doctor",
        aliases=["info"],
        help="what this machine and this interpreter give to parallax, and what is wrong",
        description="Show cores, GIL, memory, start methods and limits, measure what calls cost, "
        "and warn of what slows parallax down. Takes about a second.",
    )
    demo_ = commands.add_parser(
        "demo",
        help="four kinds of work on this machine: for loop, plain threads, parallax",
        description="Time four kinds of work on the standard library's own sources: as a for "
        "loop, with plain threads, and with parallax. Takes about half a minute.",
    )
    demo_.add_argument("--quick", action="store_true", help="less work, a few seconds")
    demo_.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    doctor_.add_argument("--json", metavar="FILE", help="write the facts as JSON; - for here")
    return parser


def _add_profile(commands: Any) -> None:
    parser = commands.add_parser(
        "profile",
        help="run a program and tell which of its threads hold the GIL, and what would help",
        usage="parallax profile [--json FILE] [--html FILE] [--output FILE] "
        "(SCRIPT | -m MODULE) [ARGUMENT ...]",
        description="Run a program unchanged. The report goes to standard error when it has ended.",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--html", metavar="FILE", help="draw the threads in a page as well")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the report to FILE, not to standard error"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m")
    parser.add_argument("program", metavar="SCRIPT", help="a script, a folder, or a module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own arguments")


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser(
        "explain",
        help="run a function on its first items and tell what parallel_map would do",
        description="Run a function on some items, as far as that takes to measure it, and tell "
        "which route parallel_map would choose, and why. The folder you are in can be imported "
        "from.",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="for example mymodule:parse")
    items = parser.add_mutually_exclusive_group(required=True)
    items.add_argument("--items", metavar="EXPRESSION", help="Python for the items: 'range(100)'")
    items.add_argument("--items-from", metavar="FILE", help="items: a JSON list, or one per line")
    parser.add_argument("--max-workers", type=int, metavar="N", help="most workers at a time")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - for here")
