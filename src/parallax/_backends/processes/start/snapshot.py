"""Workers that are the program: a template is forked from it, and forks workers on demand.

What they have is the state of the program at that moment: modules, settings, patches, caches, the
callable and what it captured. A template and its workers live for one call.

Guarantees: a fork is made only while the calling thread is the only thread, which is checked before
the fork and again after it; a child runs no exit handler, finalizer or buffered output of the
program, keeps none of its pipes and sockets open, and ends with it.
Assumptions: Linux. OpenBLAS ends its threads before a fork, by a handler of its own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable

import parallax._backends.processes.worker.main  # noqa: F401 - once, not in each template
from parallax._backends.processes.start.fork_safety import count_threads, unsafe_reason
from parallax._backends.processes.start.spawn import OUTPUT_FDS, file_of, interrupts_blocked
from parallax._backends.processes.start.started_process import ChildProcess
from parallax._backends.processes.start.zygote import serve
from parallax._backends.processes.start.zygote_client import Template
from parallax._backends.processes.worker.environment_setup import adopt_place
from parallax._core.fork_pauses import paused, quiet_fork
from parallax._core.light_stdlib import Any, NoReturn, signals, sockets
from parallax._core.nesting import Place, enter
from parallax._transport.main_module import track_main_classes, use_real_main

#: Seconds for threads that have ended, or were told to, to leave the list of the system: before a
#: fork, and after it, when there can hardly be others. Shorter takes those of a busy machine for
#: strangers, longer delays a call that cannot fork.
THREADS_GONE_S, OPENBLAS_GONE_S = 0.02, 0.2

#: Seconds for a template that was killed to end.
TEMPLATE_END_S = 10.0


def fork_template(inherited: dict[int, tuple[Any, ...]], place: Place) -> Template | str:
    """Fork a template, whose workers have these callables by key; or why there is none."""
    with paused(), interrupts_blocked():
        if reason := _await_safety(unsafe_reason, THREADS_GONE_S):
            return reason
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()  # or it would be written twice
        track_main_classes()
        parent = os.getpid()
        outputs = [number for number in OUTPUT_FDS if file_of(number) is not None]
        ours = theirs = None
        try:
            ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
            pid = quiet_fork()
            if pid == 0:
                _become(theirs, outputs, parent, inherited, place)
        except (OSError, RuntimeError) as error:  # the latter at the interpreter's end
            if ours is not None:
                ours.close()
            return f"the system refused to fork: {error}"
        finally:
            if theirs is not None:
                theirs.close()
        child = ChildProcess("ParallaxTemplate", pid)
        if reason := _await_safety(_lone_reason, OPENBLAS_GONE_S):
            # A thread was there during the fork, or may have been. The child has run only our code.
            child.kill()
            child.exitcode(TEMPLATE_END_S)
            ours.close()
            return reason
        return Template(child, ours, outputs)


def _await_safety(reason: Callable[[], str], seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while (found := reason()) and time.monotonic() < deadline:
        time.sleep(0)
    return found


def _lone_reason() -> str:
    others = count_threads() - 1
    return f"{others} of its threads are neither Python's nor OpenBLAS's" if others else ""


def _become(
    control: sockets.socket,
    outputs: list[int],
    parent: int,
    inherited: dict[int, tuple[Any, ...]],
    place: Place,
) -> NoReturn:
    """Become the template, without what the program has set up for itself."""
    try:
        gc.freeze()  # objects of the program must not be finalized here
        low = []  # as long as they are open, the next one gets another number
        while control.fileno() <= max(OUTPUT_FDS):
            low.append(control)
            control = sockets.socket(fileno=sockets.dup(control.fileno()))
        reset_fork({*outputs, control.fileno()})
        if os.getppid() == parent:
            serve(control, inherited, adopt_place(place))
    except BaseException:  # noqa: BLE001 - it must not reach the program's frames
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def reset_fork(kept: set[int]) -> None:
    """Drop what a fork of the program must not have: handlers, descriptors, places, loops.

    Args:
        kept: descriptors that stay open. Others become /dev/null, so that no pipe of the program
            is kept open, and no object of the program refers to a new file of the same number.
    """
    signals.set_wakeup_fd(-1, warn_on_full_buffer=False)
    for number in signals.valid_signals():
        # As in a process that is executed. The worker sets a handler for Ctrl-C itself.
        if callable(signals.getsignal(number)) and number != signals.SIGINT:
            signals.signal(number, signals.SIG_DFL)
    sys.settrace(None)
    sys.setprofile(None)
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None and tracker._resource_tracker._fd is not None:
        kept.add(tracker._resource_tracker._fd)  # workers share it
    while (null := os.open(os.devnull, os.O_RDWR)) <= max(OUTPUT_FDS):
        pass  # a program without output: no other file may get these numbers
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in kept and fd != null:
            with contextlib.suppress(OSError):  # that of the listing itself is closed
                os.fstat(fd)
                os.dup2(null, fd, inheritable=fd == 0)
    os.close(null)
    if sys.stdin is not None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the old one may have data in its buffer
    enter(None)
    use_real_main()
    asyncio: Any = sys.modules.get("asyncio.events")
    if asyncio is not None:
        asyncio._set_running_loop(None)
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
