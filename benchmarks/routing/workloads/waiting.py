"""Waiting: on a clock, a server, a child process; alone, or mixed with work that needs the GIL."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

from benchmarks.routing.workloads.definition import Workload
from benchmarks.routing.workloads.http_server import serve
from benchmarks.routing.workloads.pure_python import count_primes


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def sleep_many() -> tuple[Callable[[float], float], list[float]]:
    return nap, [0.025] * 256


def sleep_few() -> tuple[Callable[[float], float], list[float]]:
    return nap, [0.1] * 10


def fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as reply:
        return hashlib.sha256(reply.read()).hexdigest()


def http_loopback() -> tuple[Callable[[str], str], list[str]]:
    """Pages of 20 kB from a server in another process that thinks for 40 ms about each."""
    port = serve(thinking=0.040)
    return fetch, [f"http://127.0.0.1:{port}/{number}" for number in range(160)]


def ask_child(number: int) -> str:
    """A short command, run and waited for."""
    command = [sys.executable, "-I", "-S", "-c", f"print({number} ** 50)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def short_commands() -> tuple[Callable[[int], str], list[int]]:
    return ask_child, list(range(80))


def wait_then_count(start: int) -> int:
    time.sleep(0.015)
    return count_primes(start)


def wait_and_cpu() -> tuple[Callable[[int], int], list[int]]:
    return wait_then_count, [100_000 + 4000 * step for step in range(40)]


def count_then_hash(start: int) -> str:
    """Half of the time in Python, half in code that releases the GIL."""
    found = count_primes(start)
    return hashlib.pbkdf2_hmac("sha256", b"%d" % found, b"salt", 40_000).hex()


def half_held() -> tuple[Callable[[int], str], list[int]]:
    return count_then_hash, [100_000 + 4000 * step for step in range(40)]


WORKLOADS = (
    Workload("sleep_many", "waiting", sleep_many, "b888b6d5392e", quick=True),
    Workload("sleep_few", "waiting, few items", sleep_few, "3fa2b58ce9f2"),
    Workload("http_loopback", "waiting on a server", http_loopback, "8998ce3092a5"),
    Workload("short_commands", "waiting on a child process", short_commands, "63ec4f00c46c"),
    Workload("wait_and_cpu", "waiting plus pure Python", wait_and_cpu, "4b3a0520dcff"),
    Workload("half_held", "half held, half released", half_held, "f16cbed5b45e"),
)
