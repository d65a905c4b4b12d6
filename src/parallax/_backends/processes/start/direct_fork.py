"""Workers that are forked from this process, as by the standard library's pools on Linux.

Only for executors that request it, or whose initializer gets an object that only a fork has: locks
that other threads hold during the fork stay locked in the child for ever.

Guarantees: a child has no descriptor of another worker, whose end would go unnoticed; it runs no
exit handler of the program, and ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from parallax._backends.processes.common.process_exit import exit_sentinel
from parallax._backends.processes.common.process_identity import child_identity
from parallax._backends.processes.start.initializer import Initializer
from parallax._backends.processes.start.spawn import interrupts_blocked
from parallax._backends.processes.start.started_process import ChildProcess, StartedProcess
from parallax._backends.processes.start.starter import Starter
from parallax._backends.processes.start.zygote import reseed
from parallax._backends.processes.worker import main as worker
from parallax._backends.processes.worker.parent_watch import watch_parent
from parallax._core.fork_pauses import quiet_fork
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import signals
from parallax._core.nesting import enter
from parallax._shm.segment import Handle
from parallax._transport.main_module import track_main_classes, use_real_main


class ForkStarter(Starter):
    """Starts workers by forking. Not thread-safe; the pool's lock guards it."""

    def __init__(self) -> None:
        super().__init__("fork")

    def start(
        self,
        sock: socket.socket,
        segments: Sequence[Handle] = (),
        initializer: Initializer | None = None,
        *,
        load: Sequence[str] = (),  # noqa: ARG002 - the parameter of what this overrides
    ) -> StartedProcess:
        self._check_rights()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()  # or it would be written twice
        track_main_classes()
        parent = os.getpid()
        # A copy: the executor clears its own in forks of this process.
        inherited = {} if initializer is None else dict(initializer.inherited)
        process: Any = multiprocessing.get_context("fork").Process(
            target=lambda: worker.serve(sock, *copies, inherited=inherited), daemon=False
        )
        who = child_identity(number=process._identity[-1])
        process._name, process._identity = who.name, who.numbers
        copies: list[Handle] = []
        try:
            # Duplicates: descriptors of this process are closed in forks of it.
            copies.extend(os.dup(each) if isinstance(each, int) else each for each in segments)
            with interrupts_blocked():  # Ctrl-C would find the child with our handlers
                pid = quiet_fork()
                if pid == 0:
                    _become(process, parent, sock)
        except (OSError, RuntimeError) as error:  # the latter at the interpreter's end
            raise errors.WorkerStartError("fork", str(error)) from error
        finally:
            for handle in copies:
                if isinstance(handle, int):
                    os.close(handle)
        return ChildProcess(process.name, pid)


def _become(process: Any, parent: int, sock: socket.socket) -> None:
    """Become a worker, without what the program has set up for itself. Never returns."""
    try:
        signals.set_wakeup_fd(-1, warn_on_full_buffer=False)
        for number in signals.valid_signals():
            # As in a process that is executed. The worker sets a handler for Ctrl-C itself.
            if callable(signals.getsignal(number)) and number != signals.SIGINT:
                signals.signal(number, signals.SIG_DFL)
        gc.freeze()  # objects of the program must not be finalized here
        enter(None)
        reseed()
        use_real_main()
        watch_parent()
        if os.getppid() == parent:
            # Sets up multiprocessing for a child: finalizers, queues, children of its own.
            process._bootstrap(exit_sentinel(parent, sock))
    except BaseException:  # noqa: BLE001 - it must not reach the program's frames
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)
