"""Runs a cell in a fresh interpreter and brings back what it measured, within a time limit.

Guarantees: the call returns within the limit and a few seconds; whatever the cell started in its
own process group is gone afterwards. The limit counts from the moment the set-up is done.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.common.events import MARK

ROOT = Path(__file__).resolve().parents[2]
# The largest set-up here takes a second; a loaded machine may need many.
SETUP_LIMIT_S = 60.0
# An interpreter that stays longer after its last result hangs in its shutdown.
EXIT_LIMIT_S = 10.0


def compile_package(name: str) -> None:
    """Write the byte code of a package, as installing it from an archive does.

    An editable install has none after an edit, and an environment may forbid to write it: then each
    new interpreter would compile the sources again.
    """
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        compileall.compile_dir(folder, quiet=2)


@dataclass
class Sample:
    """What one cell measured, or why it could not."""

    side: str
    status: str  # "ok", "slow" (cut short at the limit) or "cannot"
    facts: dict[str, Any] = field(default_factory=dict)


def run_module(module: str, arguments: Sequence[str], *, side: str, limit: float) -> Sample:
    """Takes one sample of a side.

    Args:
        module: tells `ready`, perhaps `first`, and `done` or `failed`; see `events`.
        arguments: of the module.
        side: the library that is measured, by the name that its table has for it.
        limit: seconds from one event to the next, once the set-up is done.
    """
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=os.name == "posix",
        )
        try:
            sample = _follow(process, side, limit)
        finally:
            _end(process)
        if sample.status == "cannot":
            sample.facts["stderr"] = _tail(errors)
    return sample


def _follow(process: subprocess.Popen[str], side: str, limit: float) -> Sample:
    assert process.stdout is not None
    events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    # A thread, because a worker that outlives the cell may hold the pipe open.
    threading.Thread(target=_read, args=(process.stdout, events), daemon=True).start()
    partial: dict[str, Any] = {}
    wait = SETUP_LIMIT_S
    while True:
        try:
            event = events.get(timeout=wait)
        except queue.Empty:
            error = f"no result within {wait:.1f} s"
            return Sample(side, "slow", {"limit": wait, "error": error, **partial})
        kind = event.pop("event")
        if kind == "done":
            return Sample(side, "ok", {**event, "exit": _wait(process)})
        if kind in ("failed", "end"):
            return Sample(side, "cannot", {"error": event.get("error", "the interpreter died")})
        if kind == "first":
            partial = {"first_before_close": event["seconds"]}
        # Digesting and closing are not timed but take their while.
        wait = limit + (0.0 if kind == "ready" else 5.0)


def _read(stream: IO[str], events: queue.SimpleQueue[dict[str, Any]]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            if line.startswith(MARK):
                events.put(json.loads(line[len(MARK) :]))
    events.put({"event": "end"})


def _wait(process: subprocess.Popen[str]) -> float | None:
    """Seconds the interpreter took to leave; None when it did not."""
    started = time.perf_counter()
    try:
        process.wait(EXIT_LIMIT_S)
    except subprocess.TimeoutExpired:
        return None
    return time.perf_counter() - started


def _end(process: subprocess.Popen[str]) -> None:
    left: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        left = psutil.Process(process.pid).children(recursive=True)
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for one in left:  # those that made a process group of their own
        with contextlib.suppress(psutil.Error):
            one.kill()
    if process.poll() is None:
        process.kill()
    process.wait()


def _tail(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")[-1500:]
