"""A worker process: takes callables and chunks from its parent's socket, returns outcomes.

Guarantees: one thread, no shared lock; ends when the parent's end of the socket closes, or after
idling; ``__main__`` of the parent is never run; whatever the callable does to an item, the
outcome of every other item is returned.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
import warnings
from typing import Any

from ... import _codec
from ..._messages import ChunkResult, Failure
from ..._wire import Channel, Frame
from .. import chunk as _chunk
from . import protocol

__all__ = ["main", "serve"]

#: Frames of our own at the top of a traceback that a user need not see.
_OWN_FILES = (__file__, _chunk.__file__)


def main(fd: int) -> None:
    """Entry point of a worker that was started by executing Python.

    Args:
        fd: descriptor of its end of the socket.
    """
    serve(socket.socket(fileno=fd))


def serve(sock: socket.socket) -> None:
    """Work until the parent goes away or the idle time is over; never returns normally."""
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers. A
    # handler, not SIG_IGN, because an ignored signal would stay ignored in the user's subprocesses.
    signal.signal(signal.SIGINT, lambda *_: None)
    _chunk.set_process_level(1)
    try:
        _Server(Channel(sock)).run()
    except (EOFError, OSError):
        pass
    finally:
        _leave()


def _leave() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - a closed or broken stream is no news here
            continue
    # Not sys.exit: exit handlers and threads of preloaded libraries must not keep us.
    os._exit(0)


class _Server:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._calls: dict[int, Frame | tuple[Any, ...]] = {}
        self._key = -1
        self._own_threads = {
            name: os.environ[name] for name in protocol.NATIVE_THREADS if name in os.environ
        }

    def run(self) -> None:
        channel = self._channel
        channel.sock.setblocking(True)
        channel.send(protocol.HELLO, os.getpid())
        while True:
            try:
                frames = channel.receive()
            except TimeoutError:
                channel.sock.settimeout(None)
                channel.send(protocol.BYE)
                return
            for frame in frames:
                self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == protocol.TASK:
            self._task(frame)
        elif kind == protocol.CALL:
            self._calls[frame.tag] = frame
        elif kind == protocol.FORGET:
            self._calls.pop(frame.tag, None)
        elif kind == protocol.USE:
            self._channel.sock.settimeout(None)
            self._key = frame.tag
            call = self._calls[frame.tag]
            if not isinstance(call, Frame):
                _apply_globals(call[3])
        elif kind == protocol.CONTEXT:
            self._context(_codec.decode(frame.payload))
        elif kind == protocol.RELEASE:
            self._channel.sock.settimeout(frame.tag / 1000)

    def _context(self, context: dict[str, Any]) -> None:
        sys.path[:] = context["path"]
        sys.argv[:] = context["argv"]
        if context["cwd"] is not None:
            try:
                os.chdir(context["cwd"])
            except OSError:
                pass
        env = {**self._own_threads, **context["env"]}
        for name in set(os.environ) - set(env):
            del os.environ[name]
        os.environ.update(env)
        try:
            filters = _codec.decode(context["filters"]) if context["filters"] else None
        except Exception:  # noqa: BLE001 - a category in a module that cannot be imported here
            filters = None
        if filters is not None:
            warnings.resetwarnings()  # for its other effect: what was shown once may show again
            warnings.filters[:] = filters  # type: ignore[index]

    def _call(self) -> tuple[Any, ...]:
        call = self._calls[self._key]
        if isinstance(call, Frame):
            call = _codec.decode(call.payload, call.buffers)
            self._calls[self._key] = call
            _apply_globals(call[3])
        return call

    def _task(self, frame: Frame) -> None:
        try:
            fn, star, stop, _ = self._call()
        except BaseException as error:  # noqa: BLE001 - any import may raise anything
            self._refuse(frame.tag, "callable", error)
            return
        try:
            items = _codec.decode(frame.payload, frame.buffers)
        except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
            self._refuse(frame.tag, "item", error)
            return
        result = _chunk.run_chunk(fn, items, star=star, stop=stop)
        del items
        try:
            reply = _codec.encode_reply(tuple(_portable(result)))
        except Exception:  # noqa: BLE001 - told apart value by value below
            reply = _codec.encode_reply(tuple(_portable(_isolate(result))))
        del result
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._channel.send(protocol.RESULT, frame.tag, reply.payload, reply.buffers)

    def _refuse(self, tag: int, what: str, error: BaseException) -> None:
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
        reply = _codec.encode_reply((what, "", f"in the worker: {words}"))
        self._channel.send(protocol.REFUSED, tag, reply.payload)


def _apply_globals(values: list[tuple[str, str, Any]]) -> None:
    """Give imported modules the values that the caller's modules have now."""
    for module, name, value in values:
        if module in sys.modules:
            setattr(sys.modules[module], name, value)


def _portable(result: ChunkResult) -> ChunkResult:
    """Make every exception of a result safe to send."""
    if not result.failures:
        return result
    return result._replace(failures=tuple(_portable_failure(f) for f in result.failures))


def _portable_failure(failure: Failure) -> Failure:
    error = failure.error
    text = failure.traceback or _traceback(error)
    error.__traceback__ = None
    try:
        reply = _codec.encode_reply(error)
        # An exception whose __init__ takes other arguments than its args pickles and then fails
        # to unpickle; found out here it costs one item, in the parent it would cost the chunk.
        if type(_codec.decode(reply.payload, reply.buffers)) is type(error):
            return Failure(failure.offset, error, text)
        reason = "it does not unpickle to its own type"
    except Exception as problem:  # noqa: BLE001 - whatever __reduce__ or __init__ raises
        reason = "".join(traceback.format_exception_only(type(problem), problem)).strip()
    path = f"{type(error).__module__}.{type(error).__qualname__}"
    return Failure(failure.offset, _serialization_error("exception", path, reason), text)


def _isolate(result: ChunkResult) -> ChunkResult:
    """Replace the values that cannot be sent by failures that say why."""
    values = list(result.values)
    failures = {f.offset: f for f in result.failures}
    for offset, value in enumerate(values):
        try:
            _codec.encode_reply(value)
        except Exception:  # noqa: BLE001 - whatever __reduce__ raises
            path, reason = _codec.culprit(value, "result", reply=True)
            values[offset] = None
            failures[offset] = Failure(offset, _serialization_error("result", path, reason))
    return result._replace(values=values, failures=tuple(f for _, f in sorted(failures.items())))


def _serialization_error(what: str, path: str, reason: str) -> Exception:
    from ..._errors import SerializationError  # a worker that meets no error need not load it

    return SerializationError(what, None, path, reason)


def _traceback(error: BaseException) -> str:
    """The traceback as text, without the frames above the user's callable."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename in _OWN_FILES:
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))
