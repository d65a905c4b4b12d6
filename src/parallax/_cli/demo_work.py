"""The demo's four functions, and the files that they work on.

They are in a module of their own because worker processes import them by name.
Guarantees: none has a side effect; each returns a small value that can be compared.
"""

from __future__ import annotations

import ast
import hashlib
import os
import random
import sysconfig
import zlib
from http.client import HTTPConnection
from urllib.parse import urlsplit

try:
    from bz2 import compress as _bzip2
except ImportError:  # an interpreter that was built without it
    from zlib import compress as _bzip2  # type: ignore[assignment]

#: Not a part of every installation, or not written to be parsed.
_LEFT_OUT = frozenset(
    {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages"}
    | {"test", "tests", "tkinter", "turtledemo"}
)


def parse(path: str) -> int:
    """Parse a Python file and count its functions and classes."""
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return sum(isinstance(node, kinds) for node in ast.walk(tree))


def pack(path: str) -> tuple[str, int, int]:
    """The SHA-256 of a file and its sizes by deflate and by bzip2, as for a download page."""
    with open(path, "rb") as file:
        data = file.read()
    return hashlib.sha256(data).hexdigest(), len(zlib.compress(data, 9)), len(_bzip2(data, 9))


def fetch(url: str) -> str:
    """Fetch a file over HTTP: the SHA-256 of what came back."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", parts.path)
        reply = connection.getresponse()
        if reply.status != 200:
            raise OSError(f"{url}: {reply.status} {reply.reason}")
        return hashlib.sha256(reply.read()).hexdigest()
    finally:
        connection.close()


def double(number: int) -> int:
    """Hardly anything, so that all that a parallel run costs shows."""
    return 2 * number


def root() -> str:
    """The folder of the standard library's sources."""
    return sysconfig.get_path("stdlib")


def sources(most_bytes: int) -> list[str]:
    """Paths of so many bytes of the standard library's sources, always in the same mixed order."""
    found = []
    for folder, folders, names in os.walk(root()):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        found += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")]
    if not found:
        raise FileNotFoundError(f"no Python sources in {root()}: the demo has no input")
    random.Random(0).shuffle(found)
    chosen, size = [], 0
    for path in found:
        size += os.path.getsize(path)
        if size > most_bytes:
            break
        chosen.append(path)
    return chosen or found[:1]
