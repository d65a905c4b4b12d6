"""Executing a fresh Python for a worker or the zygote, and facts about this interpreter for them.

Guarantees: the new process finds parallax where this one did, inherits no descriptors but those
named, and does not read the standard input of this process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence

from parallax._backends.processes.common.native_threads import THREAD_COUNT_VARIABLES
from parallax._backends.processes.common.process_identity import Identity
from parallax._backends.processes.start.started_process import ChildProcess
from parallax._core import fork_pauses
from parallax._core.lazy_import import errors, socket, subprocess, sysconfig
from parallax._core.light_stdlib import signals
from parallax._core.process_rights import Ids
from parallax._shm.segment import Handle

#: Seconds to import one module, the mean over large packages. Longer waits longer for a zygote that
#: hangs in an import, shorter gives up one that works.
MODULE_IMPORT_S = 0.0005

#: The modules with the ``main`` of each kind of process.
_ENTRY_MODULES = {"worker": "worker.main", "zygote": "start.zygote"}

#: What jemalloc reads its options from, that of Arrow (which pandas loads), of Rust, and of others.
#: It would start a thread when it is loaded, and the zygote could not fork any more.
_ALLOCATOR_VARIABLES = ("JE_ARROW_MALLOC_CONF", "_RJEM_MALLOC_CONF", "MALLOC_CONF")

#: Descriptors that workers share with this process.
OUTPUT_FDS = (1, 2)


def execute(
    what: str,
    sock: socket.socket,
    identity: Identity,
    ids: Ids,
    segments: Sequence[Handle] = (),
    initializer_fds: Sequence[int] = (),
) -> ChildProcess:
    """Execute a fresh Python that runs the ``main`` of a module; WorkerStartError if not."""
    if not sys.executable or getattr(sys, "frozen", False):
        missing = "this program has no Python interpreter of its own to run"
        raise errors.WorkerStartError("spawn", missing)
    # The search path goes along on the command line, because parallax itself may have been found
    # on a path that this program added at run time.
    arguments = ", ".join(map(repr, (sock.fileno(), *segments)))
    arguments += f", identity={tuple(identity)!r}, ids={ids!r}"
    if initializer_fds:
        arguments += f", initializer_fds={tuple(initializer_fds)!r}"
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from parallax._backends.processes.{_ENTRY_MODULES[what]} import main; main({arguments})"
    )
    env = dict(os.environ)
    for name in THREAD_COUNT_VARIABLES:
        env.setdefault(name, "1")
    if sys.flags.hash_randomization:
        env.setdefault("PYTHONHASHSEED", str(_hash_seed()))
    if what == "zygote":
        for name in _ALLOCATOR_VARIABLES:
            env.setdefault(name, "background_thread:false")
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        if sys.platform == "win32":
            started = _execute_sharing(sock, [*flags, "-c", code], env)
            return ChildProcess(identity.name, started.pid, started.poll)
        # The new process inherits blocked signals. A worker unblocks Ctrl-C when it has a handler;
        # before, Ctrl-C would end it with a traceback.
        with interrupts_blocked(), fork_pauses.starting:
            popen = subprocess.Popen(
                [sys.executable, *flags, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(
                    sock.fileno(),
                    *(fd for fd in segments if isinstance(fd, int)),
                    *initializer_fds,
                ),
                env=env,
            )
    except OSError as error:
        raise errors.WorkerStartError("spawn", str(error)) from error
    popen.returncode = 0  # that of the process is collected elsewhere
    return ChildProcess(identity.name, popen.pid)


if sys.platform == "win32":

    def _execute_sharing(
        sock: socket.socket, arguments: list[str], env: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """Execute Python, and send it the socket by its standard input.

        Windows hands sockets to a process that is known by its id. In a virtual environment
        ``sys.executable`` is a launcher, whose child would be the process, so Python itself is
        executed, as by ``multiprocessing``.
        """
        executable = getattr(sys, "_base_executable", None) or sys.executable
        if os.path.normcase(executable) != os.path.normcase(sys.executable):
            env["__PYVENV_LAUNCHER__"] = sys.executable
        started = subprocess.Popen(
            [executable, *arguments],
            stdin=subprocess.PIPE,
            env=env,
            # Else Ctrl-C reaches workers as well, and ends those that have no handler yet.
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )
        assert started.stdin is not None
        with contextlib.suppress(OSError), started.stdin:  # it has ended already
            started.stdin.write(sock.share(started.pid))
        return started


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """In this block Ctrl-C waits; processes that are started inherit that."""
    if sys.platform == "win32":
        yield
        return
    before = signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGINT})
    try:
        yield
    finally:
        signals.pthread_sigmask(signals.SIG_SETMASK, before)


def file_of(number: int) -> tuple[int, ...] | None:
    """The identity of the file of a descriptor of this process; None if it is closed."""
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def import_seconds(packages: set[str]) -> float:
    """Rough seconds to import the modules of packages that this process has loaded."""
    loaded = sum(1 for name in list(sys.modules) if name.partition(".")[0] in packages)
    return loaded * MODULE_IMPORT_S


def installed(name: str) -> bool:
    """Whether a loaded module belongs to the standard library or an installed distribution.

    Only such modules are imported ahead: the import of a module of the program could have side
    effects that the program does not expect in the zygote.
    """
    module = sys.modules.get(name)
    if name.partition(".")[0] in {"__main__", "__mp_main__", "parallax"} or module is None:
        return False
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    if spec.origin in {"built-in", "frozen"}:
        return True
    origin = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    return origin.startswith(_install_paths())


@functools.cache
def _hash_seed() -> int:
    """The hash seed that all workers of this program have: of equal strings equal hashes."""
    return int.from_bytes(os.urandom(4), "little")


@functools.cache
def _install_paths() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({path for name in names if (path := sysconfig.get_path(name))})
