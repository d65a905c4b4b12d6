"""The program's end of the zygote, which imports modules once and forks workers.

Guarantees: nothing here waits for an import of the zygote, except as long as a caller says; what
the zygote reports is kept until somebody asks.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence

from parallax._backends.processes.common.process_identity import (
    ZYGOTE_NUMBER,
    Identity,
    child_identity,
)
from parallax._backends.processes.start.attendant import attendant
from parallax._backends.processes.start.spawn import OUTPUT_FDS, execute, file_of, import_seconds
from parallax._backends.processes.start.started_process import ChildProcess
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import (
    Any,
    NamedTuple,
    dumps,
    loads,
    signals,
    sockets,
)
from parallax._core.process_rights import Ids
from parallax._shm.segment import Handle
from parallax._transport.wakeup import ready_channels


class Template(NamedTuple):
    process: ChildProcess
    control: sockets.socket
    #: the descriptors of output that it has: others of these numbers are no output.
    outputs: Sequence[int]


def _execute(ids: Ids) -> Template:
    ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
    try:
        who = child_identity("ParallaxZygote", ZYGOTE_NUMBER)
        return Template(execute("zygote", theirs, who, ids), ours, OUTPUT_FDS)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()


class ZygoteClient:
    def __init__(self, template: Template | None = None, ids: Ids = ()) -> None:
        """Use a fork of this process as the zygote, or execute a fresh one with those ids."""
        made = template or _execute(ids)
        self.process = made.process
        self.control = made.control
        self._outputs = made.outputs
        self.pid = self.process.pid
        self.imported: set[str] = set()
        #: when imports were last requested, and the seconds that they were expected to take.
        self.asked = time.monotonic()
        self.cost = 0.0
        #: exit statuses of its workers that nobody has asked for, by process id.
        self.exits: dict[int, int] = {}
        #: what went wrong, in its own words.
        self.complaints: list[str] = []
        #: threads that it had when it was to fork, and the modules that started them.
        self.threaded = 0
        self.suspects: list[str] = []
        #: requested imports that it has not finished.
        self.imports = 0
        #: the module that it is importing, "" between imports.
        self.importing = ""
        #: one of its workers came up.
        self.proven = False
        #: its end of the socket is closed.
        self.gone = False
        #: it hangs in an import.
        self.stuck = False
        #: the reason why it was given up, and whether workers can be started another way.
        self.verdict = ""
        self.replaced = False
        #: workers whose exit status is not to be kept.
        self._ignored: set[int] = set()

    def prepare(self, modules: set[str]) -> None:
        """Request the import of modules that this process has loaded."""
        # In the order in which this process imported them, which works for every package.
        fresh = [m for m in list(sys.modules) if m in modules and m not in self.imported]
        if fresh:
            self.asked = time.monotonic()
            self.cost = import_seconds({name.partition(".")[0] for name in fresh})
            self.load(fresh)

    def load(self, modules: Sequence[str]) -> None:
        fresh = [name for name in modules if name not in self.imported]
        if fresh:
            self.imported.update(fresh)
            self.imports += 1
            with contextlib.suppress(OSError):  # a dead zygote is noticed at the next fork
                self.control.send(dumps(("import", [list(sys.path), *fresh])))

    def fork(
        self,
        sock: sockets.socket,
        segments: Sequence[Handle],
        fds: Sequence[int],
        identity: Identity,
    ) -> None:
        """Request a worker; see ``Starter.start``. ConnectionError if the zygote is gone."""
        numbers = [number for number in self._outputs if file_of(number) is not None]
        message = dumps(("fork", (numbers, len(segments), len(fds), tuple(identity))))
        sent = [sock.fileno(), *(fd for fd in segments if isinstance(fd, int)), *fds, *numbers]
        data = b"".join(fd.to_bytes(4, sys.byteorder) for fd in sent)
        # As socket.send_fds, without that module.
        self.control.sendmsg([message], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, data)])

    def fileno(self) -> int:
        """The descriptor of its socket, which is readable when it reports or ends; -1 if closed."""
        return self.control.fileno()

    @property
    def over(self) -> bool:
        """Whether there is nothing to look after any more."""
        return self.process.over

    def listen(self, timeout: float) -> bool:
        """Read its reports, the first in time; whether there were any, or it is gone."""
        if self.control.fileno() < 0:
            return False  # closed at the interpreter's exit, before the last run
        found = False
        while not self.gone and ready_channels([self.control], 0 if found else timeout):
            try:
                data = self.control.recv(1 << 16, sockets.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except ConnectionResetError:
                continue  # it ended without reading our requests; its reports come next
            except OSError:
                data = b""
            if data:
                self._take(*loads(data))
            else:
                self.gone = True
            found = True
        return found

    def _take(self, kind: str, *rest: Any) -> None:
        if kind == "exit":
            if rest[0] in self._ignored:
                self._ignored.remove(rest[0])
            else:
                self.exits[rest[0]] = rest[1]
        elif kind == "importing":
            self.importing = rest[0]
            self.imports -= not self.importing
        elif kind == "threads":
            self.threaded, self.suspects = rest
        else:
            self.complaints.append(str(rest[0]))

    def exitcode(self, pid: int, timeout: float) -> int | None:
        """Exit status of a worker, given once: another process may get its process id."""
        deadline = time.monotonic() + timeout
        while pid not in self.exits:
            left = deadline - time.monotonic()
            if left < 0 or not self.listen(left):
                break
        return self.exits.pop(pid, None)

    def disregard(self, pid: int) -> None:
        """Do not keep the exit status of a worker."""
        if self.exits.pop(pid, None) is None:
            self._ignored.add(pid)

    def end(self) -> str:
        status = self.process.exitcode(1.0)
        if status is None:
            return "it closed its connection"
        return errors.exit_reason(status, at_work=False)

    def close(self) -> None:
        """End the zygote, and wait for its end."""
        self.listen(0)
        with contextlib.suppress(OSError):  # the interpreter's exit may have closed it
            # A close alone would reach the zygote when no thread polls the socket any more.
            self.control.shutdown(sockets.SHUT_RDWR)
        self.control.close()
        attendant().look_again()  # while it waits on the socket, the other end sees it open
        if self.stuck or self.imports > 0:
            # It would notice the end of its socket after that import only. All of its workers were
            # told to leave, or killed.
            self.process.signal(signals.SIGKILL)
        self.process.exitcode(2.0)
        if not self.process.gone():
            self.process.signal(signals.SIGKILL)
            self.process.exitcode(2.0)

    def forget(self) -> None:
        """Drop the zygote without ending it: this process is a forked copy of its parent."""
        self.control.close()
        self.process.close()
