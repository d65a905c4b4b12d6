"""The frames of all threads: no deadlock with starting threads, the collector as it was."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from parallax._core import current_frames as module
from parallax._core.current_frames import current_frames
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
