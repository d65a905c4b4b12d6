"""The frames of all threads: no deadlock with starting threads, the collector as it was."""

from __future__ import annotations

import faulthandler
import gc
import os
import subprocess
import sys
import tempfile
import threading

import pytest

from parallax._backends.processes.common.stack_dumps import DUMP_SIGNAL
from parallax._core import current_frames as module
from parallax._core.cores import gil_enabled
from parallax._core.current_frames import current_frames
from parallax._core.dumped_frames import parsed
from parallax._core.fork_pauses import quiet_fork

# Each allocation collects, and each collection lets go of the GIL: to a thread that starts another.
PROGRAM = """
import gc, threading, time
from parallax._core.current_frames import current_frames
from parallax._core.fork_pauses import quiet_fork
gc.callbacks.append(lambda phase, info: time.sleep(0))
gc.set_threshold(1)
done = False
def start():
    while not done:
        threads = [threading.Thread(target=len, args=((),)) for _ in range(5)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
starter = threading.Thread(target=start)
starter.start()
end = time.monotonic() + 0.4
while time.monotonic() < end:
    assert threading.get_ident() in current_frames()
done = True
starter.join()
"""


def test_threads_that_start_meanwhile():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=30)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    try:
        (gc.enable if enabled else gc.disable)()
        module._without_collection()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_in_the_middle_leaves_the_child_able_to_look():
    with module._lock:
        pid = quiet_fork()
        if not pid:
            os._exit(0 if current_frames() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def names(frame):
    found = []
    while frame is not None:
        found.append((frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno))
        frame = frame.f_back
    return found


def test_a_dump_tells_the_same():
    """Of a thread that waits: names, lines and who called whom."""
    go, inside = threading.Event(), threading.Event()

    def waits():
        inside.set()
        go.wait()

    thread = threading.Thread(target=waits)
    thread.start()
    assert inside.wait(10)
    with tempfile.TemporaryFile() as file:
        for _ in range(1000):  # it may not have come to wait yet
            file.seek(0)
            faulthandler.dump_traceback(file.fileno())
            file.seek(0)
            told, seen = parsed(file.read().decode()), names(current_frames()[thread.ident])
            if names(told[thread.ident]) == seen:
                break
    go.set()
    thread.join()
    assert [name for _, name, _ in seen][-4:] == ["waits", "run", "_bootstrap_inner", "_bootstrap"]
    assert names(told[thread.ident]) == seen
    assert names(told[threading.get_ident()])[0][1] == "test_a_dump_tells_the_same"


RUNNING = """
import os, sys, tempfile, threading, time
from parallax._backends.processes.common.stack_dumps import DUMP_SIGNAL, enable_stack_dumps
from parallax._core.current_frames import current_frames
lock, end = threading.RLock(), time.perf_counter() + 2.0
def deep(n):
    return deep(n - 1) if n else len(())
def run():
    while time.perf_counter() < end:
        with lock:
            pass
        deep(400)
threads = [threading.Thread(target=run) for _ in range(3)]
for thread in threads: thread.start()
if sys.argv[1] == "dumps":
    file = tempfile.TemporaryFile()
    enable_stack_dumps(file.fileno())
while time.perf_counter() < end:
    if sys.argv[1] == "dumps":
        os.kill(os.getpid(), DUMP_SIGNAL)
        continue
    for frame in current_frames().values():
        while frame is not None:
            frame.f_code.co_name, frame.f_lineno
            frame = frame.f_back
for thread in threads: thread.join()
"""


@pytest.mark.skipif(gil_enabled(), reason="nothing runs meanwhile")
@pytest.mark.parametrize("how", ["frames", "dumps"])
def test_threads_that_run_meanwhile(how):
    """Without a GIL the interpreter would crash."""
    if how == "dumps" and DUMP_SIGNAL is None:
        pytest.skip("no signals")
    subprocess.run([sys.executable, "-c", RUNNING, how], check=True, timeout=60)
