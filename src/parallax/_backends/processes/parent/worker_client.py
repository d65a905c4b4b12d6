"""The parent's end of one worker process: its connections, and what the worker has been sent."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.stack_dumps import StackDump
from parallax._backends.processes.parent.output_receiver import OutputDecoder
from parallax._backends.processes.parent.worker_state import LEAVING, STARTING, WORKING, WorkerLife
from parallax._backends.processes.start.initializer import INITIALIZER_KEY, Initializer
from parallax._backends.processes.start.started_process import Inherited, StartedProcess
from parallax._core.light_stdlib import TYPE_CHECKING, Any, TypeAlias
from parallax._reporting.stall_policy import WorkerSnapshot
from parallax._transport import codec
from parallax._transport.module_state import Packed
from parallax._transport.shm_channel import SharedMemoryChannel

if TYPE_CHECKING:
    from parallax._backends.processes.common.heritage import Heritage

#: Callables that a worker keeps. Fewer are sent anew more often, more hold memory.
MAX_KEPT_CALLS = 8

Outputs: TypeAlias = list[tuple[int, ...] | None]


class WorkerClient(WorkerLife):
    """The parent's end of one worker process."""

    def __init__(
        self,
        started: StartedProcess,
        channel: SharedMemoryChannel,
        outputs: Outputs,
        dump: StackDump | None = None,
    ) -> None:
        super().__init__()
        self.started = started
        self.channel = channel
        #: the pool that started it, and takes it back.
        self.pool: Any = None
        #: where the process writes to.
        self.outputs = outputs
        #: where the process writes its stacks to; None where there is no such file.
        self.dump = dump
        #: what the interpreter wrote when it crashed; known once the connections are closed.
        self.crash = ""
        self.born = time.monotonic()
        #: what was sent of this process's environment last.
        self.context = b""
        #: keys of the callables that the worker keeps, least recently used first.
        self.calls: OrderedDict[int, None] = OrderedDict()
        #: digests of the module-level state that was sent last, and what was looked at last.
        self.taught: dict[Any, tuple[bytes, Any]] = {}
        self._last_state: tuple[Any, ...] = ()
        #: among the workers of its present holder.
        self.number = 0
        #: chunks that were sent and not answered, by id: bytes sent, seconds that this took, items.
        self.flight: dict[int, tuple[int, float, Sequence[Any]]] = {}
        #: items that were run, for all holders.
        self.ran = 0
        #: whether any work of the present holder was begun.
        self.begun = False
        #: what it has of the program's objects, as a fork; None if it is none.
        self.heritage: Heritage | None = None
        #: its copies of shared state have changed: nobody else gets it.
        self.changed = False
        #: output that was received and is not complete.
        self.decoder = OutputDecoder()

    def inherit(self, inherits: Inherited) -> None:
        """Note what the worker has because it is a fork of this process."""
        self.context = inherits.context
        self.calls = OrderedDict.fromkeys(inherits.keys)
        self.heritage = inherits.heritage

    @property
    def pid(self) -> int | None:
        """The process id, known once the worker said hello."""
        return self.started.pid

    @property
    def owed(self) -> int:
        """Frames of work that were sent and not answered."""
        return len(self.flight)

    def greet(self, pid: int) -> None:
        """Note that the worker said hello; its holder says what it is from now on."""
        self.started.up(pid)
        if self.state is STARTING:
            self.enter(WORKING)

    def close(self) -> None:
        """Close our ends of its connections; what it wrote when it crashed is kept. Idempotent."""
        if self.alive:
            self.enter(LEAVING)
        self.flight.clear()  # whoever waits for its end keeps this object, but no items
        self.channel.close()
        if self.dump is not None:
            self.crash = self.dump.text()
            self.dump.close()
            self.dump = None

    def stacks(self, timeout: float = 0.5) -> str:
        """The stacks of its threads; "" if it does not write them within ``timeout`` seconds."""
        if self.dump is None or self.state is STARTING:  # the signal would end one that starts
            return ""
        return self.dump.ask(self.started.signal, timeout)

    def where(self) -> WorkerSnapshot:
        """The process id, and the stacks of the threads, or what keeps them from writing any."""
        return WorkerSnapshot(self.started.title, self.stacks() or self._process_state())

    def _process_state(self) -> str:
        if self.pid is None:
            return ""
        try:
            import psutil

            state = psutil.Process(self.pid).status()
        except psutil.Error:
            return "(the process has ended)"
        except Exception:  # noqa: BLE001 - without /proc psutil raises what the system does
            return "(it does not answer; the system does not tell its state)"
        stopped = state == psutil.STATUS_STOPPED
        return f"(it does not answer; its state is {state!r}{', by SIGSTOP' * stopped})"

    def use(
        self, key: int, encode: Callable[[], codec.Encoded], context: bytes, limits: bytes
    ) -> None:
        """Prepare the worker for a run's chunks; sent with the first of them."""
        self.surround(context)
        if key not in self.started.inherits.keys:
            self.teach(key, encode())
        self.channel.send(protocol.USE, key, limits, hold=True)
        self.begun = False

    def initialize(self, initializer: Initializer) -> None:
        """Have the worker call an executor's initializer before anything else."""
        if initializer.encoded is not None:
            self.teach(INITIALIZER_KEY, initializer.encoded)
        self.channel.send(protocol.INIT, INITIALIZER_KEY)
        self.calls.pop(INITIALIZER_KEY, None)

    def surround(self, context: bytes) -> None:
        """Have the worker take over this process's environment, if it has another one."""
        if context != self.context:
            self.channel.send(protocol.CONTEXT, 0, context, hold=True)
            self.context = context

    def teach(self, key: int, call: codec.Encoded) -> None:
        """Send a callable unless the worker has it; the least recently used one is dropped."""
        if call.state is not self._last_state and not self.started.inherits.context:
            self._last_state = call.state
            self._inform(call.state)
        if key in self.calls:
            self.calls.move_to_end(key)
            return
        if len(self.calls) >= MAX_KEPT_CALLS:
            self.channel.send(protocol.FORGET, self.calls.popitem(last=False)[0], hold=True)
        self.channel.send(
            protocol.CALL, key, call.payload, call.buffers, hold=True, kept=call.slabs
        )
        self.calls[key] = None

    def _inform(self, state: tuple[Packed, ...]) -> None:
        """Send what the worker does not have of the program's module-level state."""
        for packed in state:
            bare = packed._replace(payload=b"", buffers=[], slabs={})  # with its source
            if self.taught.get(packed.key, (b"",))[0] == packed.digest:
                self.taught[packed.key] = packed.digest, bare.concerns
                continue
            # What this undoes, or what undoes this, is to be sent again when it is needed.
            for known, (_, concerns) in list(self.taught.items()):
                if concerns(packed.key) or packed.concerns(known):
                    del self.taught[known]
            payload, buffers, slabs = packed.frame()
            self.taught[packed.key] = packed.digest, bare.concerns
            self.channel.send(protocol.STATE, 0, payload, buffers, hold=True, kept=slabs)

    def forget(self, key: int) -> None:
        """Have the worker drop a callable that will not be used again."""
        if key in self.calls:
            del self.calls[key]
            self.channel.send(protocol.FORGET, key, hold=True)
