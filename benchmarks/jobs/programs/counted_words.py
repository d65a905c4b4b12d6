"""Words counted by a pipeline of commands."""

from __future__ import annotations

import subprocess


def work(text: str) -> str:
    command = "tr ' ' '\\n' | sort | uniq -c | sort -rn | head -3"
    return subprocess.run(
        command, shell=True, input=text, check=True, capture_output=True, text=True
    ).stdout


def items() -> list[str]:
    return [" ".join(f"w{n * seed % 13}" for n in range(300)) for seed in range(50)]
