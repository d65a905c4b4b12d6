"""The connected workers of one holder, a run or an executor: reading, writing, losing them.

Guarantees: what a worker sent before it ended is handled before its end; each end is reported once,
with its exit status; a worker that does not come up in time is given up. Workers that end one after
the other before they begin any work are not replaced for ever.
Assumptions: one lock guards every method; the state of each worker follows ``worker_state``.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Callable, Iterable

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.common import protocol
from parallax._backends.processes.parent.environment_capture import capture_environment
from parallax._backends.processes.parent.exit_diagnosis import describe_end, unreadable
from parallax._backends.processes.parent.output_receiver import OutputReceiver
from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.warm_pool import warm_pool
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.parent.worker_start import W
from parallax._backends.processes.parent.worker_state import BORROWED, CONDEMNED, STARTING
from parallax._core.lazy_import import errors, lazy_module, logging
from parallax._core.light_stdlib import TYPE_CHECKING, Generic, NamedTuple, signals
from parallax._core.nesting import here
from parallax._transport.framing import Frame, ProtocolError
from parallax._transport.shm_channel import SharedFrame

if TYPE_CHECKING:
    from parallax._backends.processes.parent import snapshot_pool
    from parallax._reporting.recording import CallRecording
else:
    snapshot_pool = lazy_module("parallax._backends.processes.parent.snapshot_pool")

#: Seconds to wait for the exit status of a worker whose socket closed. It is reaped within
#: milliseconds; a process that closed its descriptors and lives on is killed after this.
EXIT_STATUS_TIMEOUT_S = 0.5

#: Workers in a row that end before they begin any work until no other one is started. One may be
#: killed by somebody else; more only repeat what keeps them from starting.
MAX_STILLBORN = 3

_KILLED = frozenset({-signals.SIGTERM, -getattr(signals, "SIGKILL", 9)})


#: why interpreters were given up, as far as that was logged.
_told: set[str] = set()


class Loss(NamedTuple):
    end: WorkerEnd
    #: whether it had said hello.
    came_up: bool
    #: whether the first frame that it owed may have been begun.
    began: bool
    #: whether the last frame that was sent was not read to its end.
    unread: bool
    #: why another worker would end like it; "" as long as one is worth starting.
    hopeless: str


class WorkerSet(Generic[W]):
    """Connected workers. What is done about their frames and their ends, subclasses say."""

    def __init__(
        self,
        pool: Pool,
        output: OutputReceiver,
        wake: Callable[[], None] = lambda: None,
        *,
        killed_weight: float = 1.0,
    ) -> None:
        """Prepare; ``wake`` has another thread's wait look again, if there is one."""
        self.pool = pool
        #: why interpreters were given up, if they were.
        self.gave_up = ""
        self.output = output
        self._wake = wake
        self.workers: dict[int, W] = {}
        self._made: selectors.BaseSelector | None = None
        self._killed_weight = killed_weight
        self._stillborn = 0.0
        #: why no other worker is worth starting; "" as long as one is.
        self.hopeless = ""
        self.recording: CallRecording | None = None

    def record(self, recording: CallRecording | None) -> None:
        self.recording = recording

    # -- what subclasses do --------------------------------------------------------------------

    def _heard(self, worker: W, frame: Frame | SharedFrame) -> None:
        """Handle a frame; this handles the kinds that are the same for all holders."""
        if frame.kind == protocol.OUTPUT:
            self.output.receive(worker.decoder, frame)
        elif frame.kind == protocol.BEGUN:
            worker.begun = True
            self._prove_worth()
        elif frame.kind == protocol.HELLO:
            worker.pool.greet(worker, frame.tag)
            self._came_up(worker)

    def _prove_worth(self) -> None:
        """A worker has begun or done some work: others are worth starting."""
        self._stillborn, self.hopeless = 0.0, ""

    def _came_up(self, worker: W) -> None:
        """A worker said hello."""

    def _ended(self, worker: W, loss: Loss) -> None:
        """A worker was removed, because it ended."""

    def take_snapshot(self, count: int) -> bytes | None:
        """Have workers forked from the program now; their environment, None if not safe."""
        place = here().worker(count)
        context = capture_environment(place)
        made = snapshot_pool.fork_executor_pool(place, context)
        if isinstance(made, str):
            return None
        self.pool = made
        return context

    def _fall_back(self, reason: bytes | str) -> bool:
        """Have all further workers be processes; False if they are."""
        if not self.pool.spare:
            return False
        self.pool = warm_pool(self.pool.spare, self.pool.rights)
        self._prove_worth()
        self.gave_up = reason = reason if isinstance(reason, str) else bytes(reason).decode()
        if reason not in _told:
            _told.add(reason)
            text = "parallax: %s; worker processes are used instead"
            logging.getLogger("parallax").warning(text, reason)
        return True

    # -- membership ----------------------------------------------------------------------------

    def selector(self) -> selectors.BaseSelector:
        """The selector of the workers' sockets, for others to add to; may raise OSError."""
        if self._made is None:
            self._made = selectors.DefaultSelector()
        return self._made

    @property
    def concurrent(self) -> bool:
        """Whether the selector heeds changes during a wait: not on Windows, nor gevent's."""
        return type(self.selector()).__name__ in {"EpollSelector", "KqueueSelector"}

    def select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for the workers' sockets, and for what others have added; see ``serve``."""
        try:
            return self.selector().select(timeout)
        except OSError:
            if self.concurrent:
                raise
            return []  # meanwhile another thread has taken out a socket and closed it

    @property
    def starting(self) -> int:
        """Workers that have not come up yet."""
        return sum(worker.state is STARTING for worker in self.workers.values())

    def _admit(self, worker: W, number: int) -> None:
        worker.number = number
        self.workers[number] = worker
        self._register(worker)

    def _register(self, worker: W) -> None:
        self.selector().register(worker.channel, selectors.EVENT_READ, worker)
        if not hasattr(self.selector(), "fileno"):
            self._wake()  # a wait by select or poll does not see what was added meanwhile

    def _remove(self, worker: W) -> None:
        """Part with a worker; the pool is told by whoever knows how it goes on."""
        self._unregister(worker)
        del self.workers[worker.number]

    def _unregister(self, worker: W) -> None:
        # A borrowed worker is not registered; and at the interpreter's exit the pool may have
        # closed the channel already.
        with contextlib.suppress(ValueError, KeyError):
            self.selector().unregister(worker.channel)

    def change_pool(self, *, resting: bool) -> None:
        """Have workers with the rights of now; WorkerStartError unless ``resting``."""
        if not self.pool.spare:  # else it is this very process that does the work
            if not resting:
                words = "calls that were submitted with other user or group ids have not ended"
                raise errors.WorkerStartError(self.pool.method, words)
            for worker in list(self.workers.values()):
                self._remove(worker)
                worker.pool.retire(worker)
            self.pool.finish(0.0)  # forks of the program end for good
            self.pool = warm_pool(self.pool.method)

    # -- exchange ------------------------------------------------------------------------------

    def watch(self, worker: W) -> None:
        """Ask for writability exactly while something waits to be written."""
        channel = worker.channel
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.unsent else 0)
        if self.selector().get_key(channel).events != events:
            self.selector().modify(channel, events, worker)
            self._wake()

    def serve(self, ready: Iterable[tuple[selectors.SelectorKey, int]]) -> None:
        """Write to and read from the workers whose sockets are ready; skips what is no worker's."""
        for key, events in ready:
            client = key.data
            worker = self.workers.get(client.number) if isinstance(client, WorkerClient) else None
            if worker is None or worker.state is BORROWED:
                continue  # removed, or borrowed, since the selector was asked
            try:
                if events & selectors.EVENT_WRITE:
                    self._flush(worker)
                if events & selectors.EVENT_READ:
                    self.receive(worker)
            except BaseException:
                # The handler of a signal raised: nobody knows what was sent or received.
                worker.condemn()
                raise

    def _flush(self, worker: W) -> None:
        """Go on sending what did not fit a worker's socket."""
        try:
            worker.channel.flush()
        except TimeoutError:  # of a handler: sockets that do not block raise none
            raise
        except OSError:
            return  # it is gone; what it sent last may still be read
        self.watch(worker)

    def receive(self, worker: W) -> None:
        """Read what a worker sent, and handle its end if that is what there is."""
        channel = worker.channel
        try:
            for frame in channel.receive():
                if not worker.alive:
                    return
                self._heard(worker, frame)
            if channel.broken is not None:
                raise channel.broken
        except TimeoutError:  # as above
            raise
        except (EOFError, OSError):
            self._lose(worker)
        except (ProtocolError, MemoryError) as error:  # a wrong length asks for too much
            self._lose(worker, detail=unreadable(error))

    # -- ends ----------------------------------------------------------------------------------

    def due(self) -> float | None:
        """When the first of the starting workers will be given up; None if all are up."""
        starting = [w for w in list(self.workers.values()) if w.state is STARTING]
        return min((w.pool.deadline(w) for w in starting), default=None)

    def give_up_late(self) -> None:
        """Take workers for lost that should have come up by now."""
        for worker in list(self.workers.values()):
            # With one that is given up all others may have ended.
            if worker.state is STARTING and time.monotonic() >= worker.pool.deadline(worker):
                self._lose(worker, late=True)

    def _lose(self, worker: W, *, late: bool = False, detail: str = "") -> None:
        """Remove a worker that ended, or is killed for what it did, and find out why."""
        if not worker.alive:
            return
        state, channel = worker.state, worker.channel
        unread = channel.unsent or channel.reset
        began = worker.begun and worker.owed > unread and state is not CONDEMNED
        self._unregister(worker)  # as long as the descriptor is ours
        code = worker.pool.discard(worker, kill=late or bool(detail), timeout=EXIT_STATUS_TIMEOUT_S)
        if code is None:
            worker.pool.discard(worker, kill=True, timeout=EXIT_STATUS_TIMEOUT_S)
        self._remove(worker)
        end, hopeless = WorkerEnd(worker.pid, code), ""
        if state is not CONDEMNED:  # else it was killed from here
            end = describe_end(worker, code, detail)
        if state is not CONDEMNED and not worker.begun:
            self._stillborn += self._killed_weight if code in _KILLED and not late else 1
            said, again = "", False
            if state is STARTING:
                said, again = worker.pool.trouble(worker, late=late)
            if again:
                self._stillborn = 0.0
            elif self._stillborn >= MAX_STILLBORN:
                self.hopeless = hopeless = detail or said or _early_end(state, code, late=late)
        self._ended(worker, Loss(end, state is not STARTING, began, unread, hopeless))


def _early_end(state: str, exitcode: int | None, *, late: bool) -> str:
    if late:
        return "the worker did not come up in time"
    reason = errors.exit_reason(exitcode, at_work=False)
    when = "while starting" if state is STARTING else "before its first task"
    return f"the worker ended {when}: {reason}"
