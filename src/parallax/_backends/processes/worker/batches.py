"""Batches of single tasks in a worker: each is a callable with its own arguments.

Many short tasks travel in one frame, and their results in another. A task that turns out to be long
must not delay the tasks behind it in the same frame: the parent then *recalls* the worker by a
signal, whose handler gives back at once the tasks that have not begun, and sends the results that
are held. The handler acts only while the user's function runs; at any other moment it sets a flag
that is read before the next task.

Guarantees: tasks run one after the other, in order; every task that was begun is answered, and
every other one is either answered or given back, never both.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.arithmetic import set_arithmetic
from parallax._backends.result_encoding import encode_batch, run_piece
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import Any, dumps, loads
from parallax._transport import codec
from parallax._transport.framing import Frame
from parallax._transport.main_module import worker_main
from parallax._transport.shm_channel import SharedFrame, SharedMemoryChannel

clock = time.perf_counter

#: Seconds that a result is held for the next ones. Longer delays who waits for it, shorter makes
#: frames of single results.
RESULT_HOLD_S = 0.001


def flush_output() -> None:
    """Write out what items have printed, if their streams and the disk allow it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001 - it costs what was printed, not the results
            continue


def _run_with(settings: Any, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """Run a call, or several without ``kwargs``, with the arithmetic of who submitted it."""
    set_arithmetic(settings)
    return fn(*args, **kwargs) if kwargs is not None else run_piece(fn, args)


class BatchRunner:
    def __init__(
        self,
        channel: SharedMemoryChannel,
        call: Callable[[int], tuple[Any, ...]],
        take_unbegun: Callable[[int], list[Frame | SharedFrame]],
        examine: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        """Prepare; what ``examine`` raises of a task's error leaves that task unanswered."""
        self._channel = channel
        self._call = call
        self._take_unbegun = take_unbegun
        self._examine = examine
        self._tag = 0
        self._tasks: deque[tuple[int, bytes]] = deque()
        self._buffers: list[Any] = []
        self._values: list[Any] = []
        self._failures: list[Failure] = []
        self._begun = self._cpu = 0.0
        #: the user's function is running: this object is at rest.
        self.inside = False
        self._recalled = False
        self._kept: tuple[str, ...] = ()
        self._keeps_arithmetic = False

    def keep(self, names: Iterable[str], *, arithmetic: bool) -> None:
        """From now on these globals of the main namespace, and arithmetic, are the worker's own.

        Functions travel with the parent's values of their globals, and calls with its settings,
        which would undo what the initializer has set.
        """
        self._kept = tuple(names)
        self._keeps_arithmetic = arithmetic

    def decode(self, payload: Any, buffers: Any) -> Any:
        """Decode, and leave the worker's own globals as they are."""
        if not self._kept:
            return codec.decode(payload, buffers)
        main = worker_main()
        kept = {name: main[name] for name in self._kept if name in main}
        try:
            return codec.decode(payload, buffers)
        finally:
            main.update(kept)

    def run(self, frame: Frame | SharedFrame) -> None:
        self._tag = frame.tag
        payload, self._buffers = frame.open()
        self._tasks.extend(loads(payload))
        del payload
        self._start()
        while self._tasks:
            key, data = self._tasks.popleft()
            self._one(key, data)
            del data
            if self._tasks and (self._recalled or clock() - self._begun > RESULT_HOLD_S):
                self.answer()
                self._start()
                if self._recalled:
                    self._give_back()
        self.answer()

    def recall(self, *_: Any) -> None:
        """Signal handler: give back the tasks that have not begun, and send the results."""
        if not self.inside:
            self._recalled = True
            return
        self.inside = False
        try:
            if self._values:
                begun = self._begun
                self.answer(running=True)
                self._begun = begun
            self._give_back()
        finally:
            self.inside = True

    def forget(self) -> None:
        self._tasks.clear()

    def _start(self) -> None:
        self._values, self._failures = [], []
        self._begun, self._cpu = clock(), time.thread_time()

    def _one(self, key: int, data: bytes) -> None:
        values = self._values
        try:
            fn = self._call(key)[0]
        except BaseException as error:  # noqa: BLE001 - any import may raise anything
            self._refuse("callable", error)
            return
        try:
            args, kwargs, *settings = self.decode(data, self._buffers)
        except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
            self._refuse("item", error)
            return
        finally:
            if not self._tasks:
                # Their shared memory can be returned with the answer; the next batch may be late.
                self._buffers = []
        self.inside = True
        try:
            if self._recalled:
                self.recall()  # it came while the arguments were decoded
            if settings and not self._keeps_arithmetic:
                value = copy_context().run(_run_with, settings[0], fn, args, kwargs)
            else:
                value = fn(*args, **kwargs) if kwargs is not None else run_piece(fn, args)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            self.inside = False
            self._examine(error)
            self._failures.append(Failure(len(self._values), error))
            self._values.append(None)
        else:
            self.inside = False
            # Not the list from before the call: a recall may have sent that one.
            values = self._values
            values.append(value)

    def _refuse(self, what: str, error: BaseException) -> None:
        self._examine(error)
        from parallax._core.errors import UnreadableError, unreadable  # few workers need them

        failure = unreadable(what, error, UnreadableError, "in the worker: ")
        self._failures.append(Failure(len(self._values), failure))
        self._values.append(None)

    def answer(self, *, running: bool = False) -> None:
        if not self._values:
            return
        # While a task runs, the time is that task's.
        wall = 0.0 if running else clock() - self._begun
        cpu = 0.0 if running else time.thread_time() - self._cpu
        result = ChunkResult(self._values, tuple(self._failures), wall, cpu)
        self._values, self._failures = [], []
        reply = encode_batch(result)
        del result
        if not running:  # a stream that a task is writing to cannot be entered again
            flush_output()
        self._channel.send(protocol.RESULT, self._tag, reply.payload, reply.buffers)

    def _give_back(self) -> None:
        """Tell the parent how many tasks of which batches have not begun, and forget them."""
        self._recalled = False
        back = [(self._tag, len(self._tasks))] if self._tasks else []
        self._tasks.clear()
        back += [(frame.tag, -1) for frame in self._take_unbegun(protocol.BATCH)]
        if back:
            self._channel.send(protocol.RETURNED, self._tag, dumps(back, 5))
