"""The table of benchmark commands.

A command is the module `benchmarks.NAME.command` with `configure(parser)` and
`run(options) -> exit status`. Only the one that is asked for is imported, so that one benchmark's
missing library does not stop another's.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence

COMMANDS = {
    # name: what it answers
    "routing": "does parallel_map with no options keep up with the best way chosen by hand?",
    "jobs": "is parallel_map ever slower than a loop on real jobs with everyday packages?",
    "engine": "how far is the process engine ahead of the standard library's pools?",
    "executor": "what does changing the import line of concurrent.futures' pools bring, or cost?",
    "data": "how fast, and in how much memory, do arrays and frames get to processes and back?",
    "profile": "does parallax profile see what py-spy sees, and at what cost?",
    "schedule": "how far from a perfect schedule are the runs, with 8 to 1024 workers? (simulated)",
}


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help"}:
        print("usage: python -m benchmarks COMMAND [options]\n\ncommands:")
        for name, question in COMMANDS.items():
            print(f"  {name:<10} {question}")
        print("\npython -m benchmarks COMMAND --help shows the options of one.")
        print("--python PATH runs any of them on that interpreter.")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"unknown benchmark {name!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"benchmarks.{name}.command")
    elsewhere = argparse.ArgumentParser(add_help=False)
    elsewhere.add_argument("--python")
    python, rest = elsewhere.parse_known_args(rest)
    if python.python is not None:
        return subprocess.call([python.python, "-m", "benchmarks", name, *rest])
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}", description=COMMANDS[name]
    )
    command.configure(parser)
    return int(command.run(parser.parse_args(rest)))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
