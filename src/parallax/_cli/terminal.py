"""What the commands write: bold text for terminals, files of figures, and errors of use.

Guarantees: bold only on a terminal that has it, and not if `NO_COLOR` is set.
"""

from __future__ import annotations

import os
import sys

from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    import json
    from typing import Any, TextIO
else:
    json = lazy_module("json")


def bold(text: str, stream: TextIO | None = None) -> str:
    """The text as a heading for that stream, standard output if none is named."""
    stream = sys.stdout if stream is None else stream
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in {"", "dumb"}
    return text if plain or not stream.isatty() else f"\x1b[1m{text}\x1b[0m"


def misuse(command: str, text: str) -> int:
    """Say what is wrong with a command line; returns the exit status."""
    print(f"parallax {command}: {text}", file=sys.stderr)
    return 2


def writable(path: str) -> str:
    """The absolute path of a file that can be written; OSError with its name if it cannot."""
    path = os.path.abspath(path)
    with open(path, "a", encoding="utf-8"):
        return path


def write(content: Any, path: str) -> None:
    """Write a text, or figures as JSON; `-` is standard output."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2)
    if path == "-":
        print(text)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")
