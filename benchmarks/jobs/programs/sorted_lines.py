"""Lines sorted by a command, a process each."""

from __future__ import annotations

import subprocess


def work(text: str) -> str:
    return subprocess.run(
        ["sort", "-n"], input=text, check=True, capture_output=True, text=True
    ).stdout


def items() -> list[str]:
    return ["\n".join(str(n * seed % 101) for n in range(90)) for seed in range(110)]
