"""A worker process: receives callables and tasks from its parent's socket, returns results.

Guarantees: one working thread, no shared lock; the worker ends when the parent's end of the socket
closes, or after idling; ``__main__`` of the parent is never run; whatever the callable does with an
item, the outcome of every other item is returned.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Sequence
from functools import partial

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.arithmetic import arithmetic
from parallax._backends.processes.common.channel_setup import TRIM_AFTER_S, open_channel
from parallax._backends.processes.common.process_exit import run_exit_functions
from parallax._backends.processes.common.process_identity import Identity, assume
from parallax._backends.processes.common.stack_dumps import enable_stack_dumps
from parallax._backends.processes.worker.batches import BatchRunner, flush_output
from parallax._backends.processes.worker.environment_setup import WorkerEnvironment
from parallax._backends.processes.worker.limits import WorkerLimits
from parallax._backends.result_encoding import encode_result
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.interrupt_mask import unblock_interrupts
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NoReturn, loads, signals, sockets
from parallax._core.nesting import Place, here, settle, work_while
from parallax._core.process_rights import Ids, assume_ids
from parallax._core.thread_clocks import RunDelay
from parallax._shm.segment import Handle
from parallax._transport import codec
from parallax._transport.framing import Frame, ProtocolError
from parallax._transport.main_module import worker_main
from parallax._transport.module_state import ModuleState
from parallax._transport.shm_channel import SharedFrame, SharedMemoryChannel

if TYPE_CHECKING:
    from parallax._backends.processes.worker.output_sender import OutputSender

#: Seconds that a leaving worker waits until its parent closes a TCP connection. Less may lose the
#: last answers (see ``Channel.hang_up``), more keeps idle workers that nobody listens to.
HANG_UP_TIMEOUT_S = 1.0


def main(
    fd: int,
    *files: Handle,
    identity: tuple[Any, ...],
    ids: Ids,
    initializer_fds: Sequence[int] = (),
) -> None:
    """Entry point of an executed worker; on Windows the socket comes by standard input."""
    from parallax._backends.processes.worker.parent_watch import watch_parent

    assume_ids(ids)
    watch_parent()
    if sys.platform == "win32":
        import socket

        sock = socket.fromshare(sys.stdin.buffer.read())
    else:
        sock = sockets.socket(fileno=fd)
    assume(Identity(*identity), sock)
    serve(sock, *files, initializer_fds=initializer_fds)


def serve(
    sock: sockets.socket,
    *files: Handle,
    initializer_fds: Sequence[int] = (),
    inherited: dict[int, tuple[Any, ...]] | None = None,
) -> None:
    """Work until the parent goes away or the idle time is over; never returns normally.

    ``files`` are the segments to receive from and to send from, if any, then the file for stack
    dumps, if any. ``inherited`` callables, by key, are there if this is a fork of the parent.
    """
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers. A
    # handler, not SIG_IGN, because an ignored signal would stay ignored in the user's subprocesses.
    signals.signal(signals.SIGINT, lambda *_: None)
    unblock_interrupts()
    if not here().level:  # else the template has the place of its workers
        settle(Place(level=1, depth=1, movable=True))
    if sys.platform != "win32":  # there it is not inheritable, and no descriptor
        # A program that an item starts must not hold it open: the parent would not see its end.
        os.set_inheritable(sock.fileno(), False)
    segments, dump = files[: len(files) // 2 * 2], files[len(files) // 2 * 2 :]
    if dump:
        enable_stack_dumps(int(dump[0]))
    code, me = 0, os.getpid()
    try:
        Worker(open_channel(sock, segments), initializer_fds, inherited).run()
    except (EOFError, OSError):
        pass
    except Exception:  # noqa: BLE001 - a bug of parallax: it must not look like an orderly end
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        if os.getpid() == me:  # a fork that an item made has no processes of its own yet
            run_exit_functions()
        flush_output()
        # Not sys.exit: exit handlers and threads of preloaded libraries must not delay the end.
        os._exit(code)


class Worker:
    """The parent's callables here, and the loop that runs what it sends."""

    def __init__(
        self,
        channel: SharedMemoryChannel,
        initializer_fds: Sequence[int],
        inherited: dict[int, tuple[Any, ...]] | None,
    ) -> None:
        self._channel = channel
        self._initializer_fds = initializer_fds
        self._calls: dict[int, Frame | SharedFrame | tuple[Any, ...]] = {**(inherited or {})}
        #: frames that were received and not handled yet.
        self._inbox: deque[Frame | SharedFrame] = deque()
        #: seconds to wait for a frame before the worker leaves; None for no limit.
        self._idle: float | None = None
        self._batches = BatchRunner(channel, self._call_of, self._take_unbegun, self._examine)
        self._key = -1
        self._begun = False
        self._initialized: bool | None = False  # None while the initializer runs
        self._delays = RunDelay()
        self._limits = WorkerLimits()
        self._environment = WorkerEnvironment(self._send_output)
        self._state = ModuleState()
        self._output: OutputSender | None = None
        self._forked = inherited is not None
        if self._forked:
            from parallax._backends.processes.common.output_needs import wanted_output

            if (wanted := wanted_output()) is not None:
                # Before anything here writes to a handler of the parent's.
                self._send_output(wanted)
        #: the chunk whose items are running: its tag, items, and results so far.
        self._chunk: tuple[int, list[Any], list[Any]] | None = None

    def run(self) -> None:
        """Work until the parent goes away, the idle time is over, or a limit is reached."""
        work_while(lambda: bool(self._chunk) or self._batches.inside or self._initialized is None)
        channel = self._channel
        channel.sock.setblocking(True)
        if protocol.RECALL is not None:
            signals.signal(protocol.RECALL, self._recall)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_parent)
        channel.send(protocol.HELLO, os.getpid())
        while True:
            try:
                self._inbox.extend(self._next())
            except TimeoutError:
                channel.send(protocol.BYE)
                self._channel.hang_up(HANG_UP_TIMEOUT_S)
                return
            while self._inbox:
                self._handle(self._inbox.popleft())

    def _next(self) -> list[Frame | SharedFrame]:
        """Wait for the next frames; TimeoutError after the idle time."""
        channel, left = self._channel, self._idle
        channel.return_slabs()
        try:
            if channel.has_free_memory and (left is None or left > TRIM_AFTER_S):
                channel.sock.settimeout(TRIM_AFTER_S)
                try:
                    return channel.receive()
                except TimeoutError:
                    channel.trim()
                    left = None if left is None else left - TRIM_AFTER_S
            channel.sock.settimeout(left if left is None else max(left, 1e-3))  # 0: not at all
            return channel.receive()
        finally:
            # A send has no time limit: the parent may be busy for long.
            channel.sock.settimeout(None)

    def _handle(self, frame: Frame | SharedFrame) -> None:
        kind = frame.kind
        if kind in {protocol.TASK, protocol.BATCH} and protocol.RECALL is not None:
            # An item may have set a handler of its own, and the next item is not to blame.
            signals.signal(protocol.RECALL, self._recall)
        if kind == protocol.TASK:
            self._task(frame)
        elif kind == protocol.BATCH:
            if not self._begun:
                self._begun = True
                self._channel.send(protocol.BEGUN, frame.tag)
            self._batches.run(frame)
        elif kind == protocol.STATE:
            self._state.take(*frame.open())
        elif kind == protocol.CALL:
            self._calls[frame.tag] = frame
        elif kind == protocol.FORGET:
            self._calls.pop(frame.tag, None)
        elif kind == protocol.USE:
            limits = loads(frame.open()[0])
            self._idle = limits.get("idle")
            self._key = frame.tag
            self._begun = False
            self._limits.limit(limits)
            self._environment.renew()
            if self._limits.reached or self._environment.unfit:
                self._leave_at_limit()
        elif kind == protocol.CONTEXT:
            self._environment.apply(
                codec.decode(*frame.open()), initialized=bool(self._initialized)
            )
        elif kind == protocol.INIT:
            self._initialize(frame)
        elif kind == protocol.RELEASE:
            self._idle = frame.tag / 1000

    def _call_of(self, key: int) -> tuple[Any, ...]:
        call = self._calls[key]
        if isinstance(call, (Frame, SharedFrame)):
            call = self._batches.decode(*call.open())
            self._calls[key] = call
            self._state.note_imports()
        if self._state.open and not self._initialized:
            self._state.settle(call[3])
        return call

    def _send_output(self, wanted: tuple[bool, ...]) -> None:
        if self._output is None:
            from parallax._backends.processes.worker.output_sender import OutputSender

            self._output = OutputSender(self._channel, self._recall, forked=self._forked)
        self._output.enable(wanted)

    def _initialize(self, frame: Frame | SharedFrame) -> None:
        """Call the initializer; a worker whose initializer fails takes no task."""
        try:
            fn, args = self._first(frame.tag)
            before = arithmetic()
            self._initialized = None
            if self._output is None:
                fn(*args)
            else:
                with self._output.logging_suspended():
                    fn(*args)
            # From here on globals are the worker's own, as in the standard library's pools: values
            # of the parent would undo what the initializer has set.
            self._batches.keep(worker_main(), arithmetic=arithmetic() != before)
            self._initialized = True
        except BaseException as error:
            self._examine(error)
            import logging

            log = logging.getLogger("concurrent.futures")
            log.critical("Exception in initializer:", exc_info=True)
            run_exit_functions()  # now: the parent ends all workers when it receives this
            failed = ChunkResult([None], (Failure(0, error),), 0.0, 0.0)
            reply = encode_result(failed)
            self._channel.send(protocol.FAILED, frame.tag, reply.payload, reply.buffers)
            self._channel.hang_up(HANG_UP_TIMEOUT_S)
            raise EOFError from None
        finally:
            self._calls.pop(frame.tag, None)

    def _first(self, key: int) -> tuple[Any, ...]:
        if not self._initializer_fds:
            return self._call_of(key)[:2]
        from parallax._backends.processes.common.inherited_fds import inherited_fds

        with inherited_fds(self._initializer_fds):
            return self._call_of(key)[:2]

    def _recall(self, *_: Any) -> None:
        """Signal handler: give back what has not begun.

        Only while the user's function runs is this object at rest. An answer at another moment is
        not missed: what runs next is short, or the parent recalls again.
        """
        if self._output is not None and self._output.defer_recall():
            return
        if self._chunk is None:
            self._batches.recall()
            return
        tag, items, values = self._chunk
        # The result of an item that has ended may not be there yet.
        keep = len(values) + 1
        back = [(tag, keep)] if keep < len(items) else []
        # The loop over the items ends where the list now does.
        del items[keep:]
        back += [(frame.tag, 0) for frame in self._take_unbegun(protocol.TASK)]
        if back:
            self._channel.send(protocol.YIELDED, tag, codec.encode_reply(back).payload)

    def _leave_parent(self) -> None:
        """This is a fork that an item has made: it must not run the other items, too."""
        # Without it, the fork ends when it is to answer, and does not hide the worker's end.
        self._channel.sock.close()
        self._inbox.clear()
        self._batches.forget()
        if self._chunk is not None:
            _, items, values = self._chunk
            del items[len(values) + 1 :]

    def _take_unbegun(self, wanted: int) -> list[Frame | SharedFrame]:
        """Take the frames of a kind that have come and are not begun, without waiting."""
        sock = self._channel.sock
        timeout = sock.gettimeout()
        sock.setblocking(False)
        try:
            self._inbox.extend(self._channel.receive())
        except (EOFError, OSError, ProtocolError):
            pass  # raised again by the next blocking read
        finally:
            sock.settimeout(timeout)
        found = [frame for frame in self._inbox if frame.kind == wanted]
        self._inbox = deque(frame for frame in self._inbox if frame.kind != wanted)
        return found

    def _task(self, frame: Frame | SharedFrame) -> None:
        if not self._begun:
            # Tells a worker that was killed by its first item from one that was killed while idle.
            self._begun = True
            self._channel.send(protocol.BEGUN, frame.tag)
        try:
            fn, star, stop, _, *heritage = self._call_of(self._key)
        except BaseException as error:  # noqa: BLE001 - any import may raise anything
            self._refuse(frame.tag, "callable", error)
            return
        # Half of the time that it takes to build many objects is collecting, and finds nothing.
        collecting = gc.isenabled()
        gc.disable()
        try:
            unpack = heritage[0].unpack if heritage else codec.decode
            items = unpack(*frame.open())
            part = items if type(items) is slice else None
            if part is not None:
                items = heritage[0].items(part)
            elif heritage:
                part = heritage[0].hold(items)
        except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
            self._refuse(frame.tag, "item", error)
            return
        finally:
            if collecting:
                gc.enable()
        if type(items) is range:
            items = list(items)  # a recall shortens it
        values: list[Any] = []
        self._chunk = frame.tag, items, values
        result = self._limits.run(fn, items, values, star=star, stop=stop, delays=self._delays)
        self._chunk = None
        del items, values
        encode = partial(heritage[0].encode, part) if heritage else codec.encode_reply
        reply = encode_result(result, encode)
        del result
        flush_output()
        self._channel.send(protocol.RESULT, frame.tag, reply.payload, reply.buffers)
        del reply
        if self._limits.reached:
            self._leave_at_limit()

    def _leave_at_limit(self) -> NoReturn:
        self._channel.send(protocol.BYE, protocol.AT_LIMIT)
        self._channel.hang_up(HANG_UP_TIMEOUT_S)
        raise EOFError

    def _examine(self, error: BaseException) -> None:  # noqa: ARG002 - see subclasses
        """A call, or what it needs, failed: leave it to others if it is this worker's fault."""
        if self._state.stale:
            self._leave_at_limit()

    def _refuse(self, tag: int, what: str, error: BaseException) -> None:
        self._examine(error)
        from parallax._core.errors import SerializationError, unreadable  # few workers need them

        if type(error) is not SerializationError:  # as a fork's own items raise
            error = unreadable(what, error, where="in the worker: ")
        failure = Failure(0, error)
        reply = encode_result(ChunkResult([None], (failure,), 0.0, 0.0))
        self._channel.send(protocol.REFUSED, tag, reply.payload, reply.buffers)
