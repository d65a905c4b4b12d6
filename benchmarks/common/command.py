"""The options of a benchmark command, and what every command does around its samples."""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.launch import Sample, compile_package
from benchmarks.common.machine import machine_facts

# Below this share of the machine taken by others a sample counts as undisturbed.
QUIET_SHARE = 0.10


def configure(parser: argparse.ArgumentParser, *, kind: str, rounds: int) -> None:
    """Adds the options that benchmarks share.

    Args:
        parser: the command's.
        kind: what `--only` and `--list` name, in the plural.
        rounds: the default of `--rounds`.
    """
    parser.set_defaults(default_rounds=rounds)
    parser.add_argument("--only", metavar="NAME,..", default="", help=f"these {kind} alone")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {rounds}, with --quick 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one round, less work")
    parser.add_argument("--peers-only", action="store_true", help="leave parallax out")
    parser.add_argument("--list", action="store_true", help=f"name the {kind} and stop")
    parser.add_argument("--verbose", action="store_true", help="print every sample")


def rounds_of(options: argparse.Namespace) -> int:
    return options.rounds or (1 if options.quick else options.default_rounds)


def chosen(text: str, known: Sequence[str], kind: str) -> list[str]:
    """The names of a comma-separated option in the order of `known`, or all of them.

    Raises:
        ValueError: a name is unknown; the message lists those that are known.
    """
    wanted = {name.strip() for name in text.split(",")} - {""}
    if unknown := wanted - set(known):
        raise ValueError(
            f"unknown {kind} {', '.join(sorted(unknown))}; there are: {', '.join(known)}"
        )
    return [name for name in known if not wanted or name in wanted]


def missing(libraries: Iterable[str], options: argparse.Namespace) -> bool:
    """Says on stderr what is not installed; else compiles parallax, as an installation does."""
    absent = [name for name in libraries if importlib.util.find_spec(name) is None]
    if absent:
        print(f"{', '.join(absent)} missing: pip install -e '.[bench]'", file=sys.stderr)
    elif options.peers_only:
        return False
    elif importlib.util.find_spec("parallax") is None:
        print("parallax missing: pip install -e ., or use --peers-only", file=sys.stderr)
    else:
        compile_package("parallax")
        return False
    return True


def opening(options: argparse.Namespace) -> dict[str, Any]:
    """Prints the first line of a run; returns the facts of the machine."""
    facts = machine_facts()
    quick = ", a quick run" if options.quick else ""
    print(
        f"{facts['cores']} cores, Python {facts['python']}, {rounds_of(options)} rounds, "
        f"medians{quick}"
    )
    return facts


def save(options: argparse.Namespace, **content: Any) -> None:
    """Writes what a run has found; called after each row, so that an interrupted run keeps it."""
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def disturbance(samples: Iterable[Sample]) -> str:
    """How much of the machine other programs took: figures taken beside them mean little."""
    shares = [sample.facts["others"] for sample in samples if "others" in sample.facts]
    if not shares:
        return "nothing was measured"
    disturbed = sum(share > QUIET_SHARE for share in shares)
    return (
        f"other programs took {statistics.median(shares):.0%} of the machine (median); "
        f"{disturbed} of {len(shares)} samples were taken beside more than {QUIET_SHARE:.0%}"
    )


def aligned(texts: Sequence[str], widths: Sequence[int], left: Sequence[int] = (0,)) -> str:
    """A line of a table; the columns of `left` begin at the left, the others end at the right."""
    columns = enumerate(zip(texts, widths, strict=True))
    parts = [
        text[:width].ljust(width) if number in left else text.rjust(width)
        for number, (text, width) in columns
    ]
    return " ".join(parts).rstrip()


def underlined(titles: str) -> str:
    return titles + "\n" + "-" * len(titles)
