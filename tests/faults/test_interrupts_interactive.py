"""Ctrl-C where somebody types: the prompt comes back, nothing works on, and the next call works."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")

#: Seconds within which an answer must have come; items sleep for much longer.
SOON = 20

#: Not one sleep: Python acts at its end on a signal of the instant before it begins.
SETUP = """
import os, time
from parallax import Executor, ProcessPoolExecutor, ThreadPoolExecutor, parallel_map, parallel_imap
def item(x):
    print("be" + "gun", flush=True)
    for _ in range(600): time.sleep(0.1)
"""

#: What is typed, and the call that works afterwards.
LINES = {
    "map": (
        "parallel_map(item, range(8), backend='processes', max_workers=2)",
        "sum(parallel_map(abs, range(5), backend='processes', max_workers=2))",
    ),
    "threads": (
        "parallel_map(item, range(8), backend='threads', max_workers=2)",
        "sum(parallel_map(abs, range(5), backend='threads', max_workers=2))",
    ),
    "auto": ("parallel_map(item, range(8))", "sum(parallel_map(abs, range(5)))"),
    "result": (
        "pool = ProcessPoolExecutor(2); fs = [pool.submit(item, x) for x in 'ab']; fs[1].result()",
        "sum(pool.map(abs, range(5)))",
    ),
    "executor": (
        "pool = Executor(2, backend='processes'); list(pool.map(item, range(8)))",
        "sum(pool.map(abs, range(5)))",
    ),
}


class Terminal:
    """An interpreter on a terminal of its own."""

    def __init__(self):
        ours, theirs = os.openpty()
        self.end = ours
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-i", "-q", "-c", SETUP],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb", "PYTHON_BASIC_REPL": "1"},
        )
        os.close(theirs)

    def type(self, line):
        self.said = ""
        os.write(self.end, line.encode() + b"\n")

    def wait_for(self, words):
        until = time.monotonic() + SOON
        while words not in self.said:
            left = until - time.monotonic()
            assert select.select([self.end], [], [], max(0.0, left))[0], self.said
            self.said += os.read(self.end, 1 << 16).decode()

    def close(self):
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.type("exit()")
        with contextlib.suppress(OSError):  # the other end is gone
            while os.read(self.end, 1 << 16):
                pass
        code = self.process.wait(SOON)
        os.close(self.end)
        _, left = psutil.wait_procs(children, timeout=2)
        for child in left:
            child.kill()
        return code, left


@pytest.mark.parametrize(
    "name",
    [name if name == "result" else pytest.param(name, marks=pytest.mark.full) for name in LINES],
)
def test_a_prompt_comes_back(name):
    """After one KeyboardInterrupt; the next line works, and the interpreter ends when told to."""
    first, then = LINES[name]
    terminal = Terminal()
    try:
        terminal.wait_for(">>> ")
        terminal.type(first)
        terminal.wait_for("begun")
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("\r\nKeyboardInterrupt\r\n")
        terminal.wait_for(">>> ")
        assert terminal.said.count("Traceback") == 1, terminal.said
        terminal.type(then)
        terminal.wait_for("10\r\n>>> ")
        assert "Traceback" not in terminal.said
    finally:
        code, left = terminal.close()
    # From 3.14 on the interpreter ends as by the signal if a line was ever interrupted.
    assert code in ((0, -signal.SIGINT) if sys.version_info >= (3, 14) else (0,))
    assert left == []


#: In a process of its own: what the client keeps open is not ours to look for.
CLIENT = """
import sys
from jupyter_client.manager import start_new_kernel
setup, first, then = sys.argv[1:]
kernel, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
try:
    assert client.execute_interactive(setup, timeout=60)["content"]["status"] == "ok"
    sent = client.execute(first)
    while True:
        message = client.get_iopub_msg(timeout=20)
        if message["msg_type"] == "stream" and "begun" in message["content"]["text"]:
            break
    kernel.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=20))["parent_header"]["msg_id"] != sent:
        continue
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    reply = client.execute_interactive(f"assert {then} == 10", timeout=20)
    assert reply["content"]["status"] == "ok", reply["content"]
finally:
    client.stop_channels()
    kernel.shutdown_kernel(now=False)
print("fine")
"""


@pytest.mark.full
@pytest.mark.parametrize("name", ["map", "result", "auto"])
def test_a_notebook_goes_on(name):
    """Its stop button is one KeyboardInterrupt in the cell; the next cell works."""
    pytest.importorskip("jupyter_client")
    pytest.importorskip("ipykernel")
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, SETUP, *LINES[name]],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.endswith("fine\n"), done.stderr
