"""Starting worker processes: from the zygote where there is one, else by executing Python.

Guarantees: the caller's process is never forked; starting returns before the worker is up; the exit
status of a worker can be asked for afterwards. A module that keeps the zygote from forking is named
in the log, and not imported ahead again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from parallax._backends.processes.common.process_identity import child_identity
from parallax._backends.processes.start.initializer import Initializer
from parallax._backends.processes.start.spawn import execute, import_seconds
from parallax._backends.processes.start.started_process import NOTHING, Inherited, StartedProcess
from parallax._backends.processes.start.zygote_client import ZygoteClient
from parallax._core.cores import start_methods
from parallax._core.lazy_import import errors, logging, socket
from parallax._core.process_rights import Rights, why_not_inherited
from parallax._shm.segment import Handle

#: Seconds until HELLO of a worker. Shorter gives up workers of a loaded machine, longer delays the
#: replacement of one that hangs.
HELLO_TIMEOUT_S = 30.0

#: The same while the zygote imports: a base, and a factor on the seconds that the imports should
#: take. Shorter is affordable: to give up too early costs an import per worker.
IMPORT_TIMEOUT_S, IMPORT_TIMEOUT_FACTOR = 5.0, 10.0

#: Seconds to wait for the zygote's report on a worker that did not come up. It reports at once.
ZYGOTE_REPORT_S = 0.1

#: Ends of a zygote during the import of a module after which that module is not imported ahead
#: again. More repeat what breaks it, one gives up a module for somebody else's kill. Also the most
#: zygotes that may end before they had a worker.
MAX_BLAMES = 2

#: Packages that start threads when they are imported: they are not imported ahead.
_THREADED = frozenset({"polars", "grpc", "tensorflow", "jax", "ray"})

#: How often each module kept a zygote of this program from forking.
_blames: dict[str, int] = {}


class Starter:
    """Starts workers by one method. Not thread-safe; the pool's lock guards it."""

    #: what its processes may do, set by the pool; none is executed while the program may not.
    rights: Rights
    #: whether workers are processes of their own.
    processes = True
    #: the method by which to start processes where these workers do not do; "" if they are.
    spare = ""

    def __init__(
        self, method: str, template: ZygoteClient | None = None, inherits: Inherited = NOTHING
    ) -> None:
        """Choose how to start; ``template`` is a fork of this process, to be the zygote."""
        self.method = start_methods()[0] if method == "auto" else method
        self._zygote = self._template = template
        self._inherits = inherits
        self._retired: list[ZygoteClient] = []
        #: zygotes that ended without ever having had a worker.
        self._useless = 0

    def prepare(self, modules: set[str]) -> None:
        """Import modules ahead where that helps, in the background."""
        if self.method == "zygote":
            spoiled = {name for name, times in _blames.items() if times >= MAX_BLAMES}
            quiet = {name for name in modules if name.partition(".")[0] not in _THREADED}
            self._ensure().prepare(quiet - spoiled)

    def expected_import(self, modules: Collection[str]) -> float:
        """Rough seconds to import packages, with all submodules that are loaded here."""
        packages = {name.partition(".")[0] for name in modules}
        if self._zygote is not None:
            packages -= {name.partition(".")[0] for name in self._zygote.imported}
            if not packages:
                since = time.monotonic() - self._zygote.asked
                return max(0.0, self._zygote.cost - since)
        return import_seconds(packages)

    def start(
        self,
        sock: socket.socket,
        segments: Sequence[Handle] = (),
        initializer: Initializer | None = None,
        *,
        load: Sequence[str] = (),
    ) -> StartedProcess:
        """Start a worker on its end of a socket pair; raises WorkerStartError."""
        fds = initializer.fds if initializer is not None else ()
        who = child_identity()
        while self.method == "zygote":
            zygote = self._ensure()
            try:
                zygote.load(load)
                zygote.fork(sock, segments, fds, who)
            except ConnectionError:  # it is gone
                self._bury(zygote)
            else:
                started = StartedProcess(who.name, zygote)
                if zygote is self._template:
                    started.inherits = self._inherits
                return started
        self._check_rights()
        return execute("worker", sock, who, self.rights.ids, segments, fds)

    def deadline(self, started: StartedProcess, born: float) -> float:
        """The monotonic time at which a worker that is not up is given up."""
        zygote: ZygoteClient | None = started.zygote
        if zygote is not None and zygote is self._zygote:
            zygote.listen(0)
            due = max(born, zygote.asked) + IMPORT_TIMEOUT_S + IMPORT_TIMEOUT_FACTOR * zygote.cost
            # A zygote that imports nothing yet is slow to start itself.
            if zygote.imports and (zygote.importing or time.monotonic() < due):
                return due
        return born + HELLO_TIMEOUT_S

    def trouble(self, started: StartedProcess | None, *, late: bool = False) -> tuple[str, bool]:
        """Why a worker did not come up, as far as that is known, and whether to try again.

        A zygote that has several threads, or hangs in an import, cannot fork any more. It stays as
        the parent of its workers; the next zygote leaves out the modules that are to blame.
        """
        zygote: ZygoteClient | None = self._zygote if started is None else started.zygote
        if zygote is None:
            return "", False
        # The end of a worker's socket may be seen a moment before that of its zygote's.
        zygote.listen(0 if late or zygote.complaints else ZYGOTE_REPORT_S)
        if zygote is not self._zygote:  # another worker's trouble had it replaced
            return zygote.verdict, zygote.replaced
        if zygote.threaded:
            culprits, times = set(zygote.suspects) or zygote.imported, MAX_BLAMES
            names = ", ".join(zygote.suspects)
            did = f"importing {names} ahead" if names else "a module imported ahead"
            did += f" started threads ({zygote.threaded} in all)"
        elif zygote.gone or (late and zygote.importing):
            culprits, times = {zygote.importing} - {""}, 1
            did = f"importing {zygote.importing} ahead "
            did += "took too long" if late else f"broke it: {zygote.end()}"
        else:
            words = "; ".join(zygote.complaints)
            zygote.complaints.clear()
            return words, False
        if zygote.gone and not culprits:
            return self._drop(zygote)
        self._zygote = None
        zygote.stuck = late
        if not zygote.gone:
            self._retired.append(zygote)
        for name in culprits:
            _blames[name] = _blames.get(name, 0) + times
        if culprits:
            try:
                self._ensure().prepare(zygote.imported - culprits)
            except (errors.WorkerStartError, OSError):
                pass  # reported when a worker is requested
        else:
            self.method = "spawn"
        if zygote.gone:
            zygote.close()
        zygote.verdict, zygote.replaced = did, True
        _warn(did)
        return did, True

    def listen(self) -> None:
        """Read what zygotes report, and collect the status of those that have ended."""
        for zygote in self.zygotes():
            zygote.listen(0)
            if zygote.gone:
                zygote.process.exitcode(ZYGOTE_REPORT_S)

    def close(self) -> None:
        """End the zygotes and, with them, workers that are still there."""
        for zygote in self.zygotes():
            zygote.close()
        self._zygote, self._retired = None, []

    def forget(self) -> None:
        """Drop the zygotes without ending them: this process is a forked copy of their parent."""
        for zygote in self.zygotes():
            zygote.forget()
        self._zygote, self._retired = None, []

    def zygotes(self) -> list[ZygoteClient]:
        """Those that there are, and those that only wait for the end of their workers."""
        return [*self._retired, *([self._zygote] if self._zygote is not None else [])]

    def _ensure(self) -> ZygoteClient:
        zygote = self._zygote
        if zygote is not None:
            zygote.listen(0)  # its reports pile up otherwise
            if zygote.gone:
                self._bury(zygote)
        if self._zygote is None:
            self._check_rights()
            self._zygote = ZygoteClient(ids=self.rights.ids)
        return self._zygote

    def _check_rights(self) -> None:
        if reason := why_not_inherited(self.rights):
            raise errors.WorkerStartError(self.method, reason)

    def _bury(self, zygote: ZygoteClient) -> None:
        """Let go of a zygote that ended."""
        zygote.gone = True
        if zygote.importing:
            self.trouble(None)
        else:
            self._drop(zygote)

    def _drop(self, zygote: ZygoteClient) -> tuple[str, bool]:
        """Let go of a zygote that ended; after some without a worker, spawn. See ``trouble``."""
        self._zygote = None
        zygote.verdict = f"the process that forks workers ended: {zygote.end()}"
        zygote.close()
        zygote.replaced = True
        self._useless += not zygote.proven
        if self._useless >= MAX_BLAMES and self.method == "zygote":
            self.method = "spawn"
            _warn(zygote.verdict)
        return zygote.verdict, zygote.replaced


def _warn(event: str) -> None:
    logging.getLogger("parallax").warning("parallax: %s; starting workers another way", event)
