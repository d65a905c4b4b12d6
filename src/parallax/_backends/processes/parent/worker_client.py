"""The parent's view of one worker process: what it has, what it knows, what it was given."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TypeAlias

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.stack_dumps import Trace
from parallax._backends.processes.parent.output_receiver import Ear
from parallax._backends.processes.start.initializer import INITIALIZER_KEY, Initializer
from parallax._backends.processes.start.starter import Started
from parallax._reporting.stall_policy import Where
from parallax._transport import codec
from parallax._transport.shm_channel import ParcelChannel

__all__ = ["Outputs", "WorkerClient"]

#: Callables that a worker keeps. Fewer are sent anew more often, more hold memory.
KEPT_CALLS = 8

Outputs: TypeAlias = list[tuple[int, ...] | None]


class WorkerClient:
    """The parent's view of one worker process."""

    def __init__(
        self, started: Started, channel: ParcelChannel, outputs: Outputs, trace: Trace | None = None
    ) -> None:
        self.started = started
        #: where its stacks are written to; None where there is no such thing.
        self.trace = trace
        #: what its interpreter said when it crashed, known once the pool has let go of it.
        self.crash = ""
        #: where it writes to.
        self.outputs = outputs
        self.channel = channel
        self.ready = False
        self.born = time.monotonic()
        self.context = b""
        self.calls: OrderedDict[int, None] = OrderedDict()
        #: chunks that it has been given and not answered.
        self.flight = 0
        #: an exception came between, a time limit's or Ctrl-C's: nobody knows what was sent to it,
        #: or heard.
        self.torn = False
        #: items that it has run, in all runs.
        self.ran = 0
        #: it took up a task of the run that it is lent to.
        self.begun = False
        #: what it said and what makes no sense yet.
        self.ear = Ear()

    @property
    def pid(self) -> int | None:
        """Its process id, known once it said hello."""
        return self.started.pid

    def close(self) -> None:
        """Close our ends of what it has; what it said when it crashed is kept. Idempotent."""
        self.channel.close()
        if self.trace is not None:
            self.crash = self.trace.text()
            self.trace.close()
            self.trace = None

    def stacks(self, timeout: float = 0.5) -> str:
        """Where its threads are now, as text; "" if it does not say within ``timeout`` seconds."""
        if self.trace is None or not self.ready:  # one that starts would be ended by the signal
            return ""
        return self.trace.ask(self.started.signal, timeout)

    def where(self) -> Where:
        """What it is called, and where its threads are, or what keeps them from telling."""
        return Where(f"worker process {self.pid}", self.stacks() or self._state())

    def _state(self) -> str:
        """The state of a process that does not say where it is."""
        import psutil

        try:
            state = psutil.Process(self.pid).status()
        except psutil.Error:
            return "(the process has ended)"
        stopped = state == psutil.STATUS_STOPPED
        return f"(it does not answer; its state is {state!r}{', by SIGSTOP' * stopped})"

    def use(self, key: int, call: codec.Encoded, context: bytes, limits: bytes) -> None:
        """Make the worker ready for a run's tasks; sent with the first of them.

        Args:
            key: the callable's number.
            call: the callable.
            context: as ``context`` gives it.
            limits: a pickled dict, as ``Wear.limit`` takes it, and "idle": seconds after which a
                worker leaves that hears nothing, None until it is released.
        """
        self.surround(context)
        self.teach(key, call)
        self.channel.send(protocol.USE, key, limits, hold=True)
        self.begun = False

    def initialize(self, initializer: Initializer) -> None:
        """Make the worker call an executor's initializer, before anything else."""
        if initializer.encoded is not None:
            self.teach(INITIALIZER_KEY, initializer.encoded)
        self.channel.send(protocol.INIT, INITIALIZER_KEY)
        self.calls.pop(INITIALIZER_KEY, None)

    def surround(self, context: bytes) -> None:
        """Make the worker take over this process's surroundings."""
        if context != self.context:
            self.channel.send(protocol.CONTEXT, 0, context, hold=True)
            self.context = context

    def teach(self, key: int, call: codec.Encoded) -> None:
        """Make the worker know a callable, and forget the one that was not used for longest."""
        if key in self.calls:
            self.calls.move_to_end(key)
            return
        if len(self.calls) >= KEPT_CALLS:
            self.channel.send(protocol.FORGET, self.calls.popitem(last=False)[0], hold=True)
        self.channel.send(
            protocol.CALL, key, call.payload, call.buffers, hold=True, kept=call.slabs
        )
        self.calls[key] = None

    def forget(self, key: int) -> None:
        """Make the worker drop a callable that will not be used again."""
        if key in self.calls:
            del self.calls[key]
            self.channel.send(protocol.FORGET, key, hold=True)
