"""A worker process: takes callables and chunks from its parent's socket, returns outcomes.

Guarantees: one working thread, no shared lock; ends when the parent's end of the socket closes,
or after idling; ``__main__`` of the parent is never run; whatever the callable does to an item, the
outcome of every other item is returned.
"""

from __future__ import annotations

import functools
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from ... import _codec
from ..._machine import RunDelay
from ..._wire import Channel, Frame
from .. import chunk as _chunk
from . import protocol

__all__ = ["main", "serve"]

#: Seconds that a worker has to leave by itself when its parent is gone.
GRACE = 0.3


def main(fd: int) -> None:
    """Entry point of a worker that was started by executing Python.

    Args:
        fd: descriptor of its end of the socket.
    """
    _watch_parent()
    serve(socket.socket(fileno=fd))


def _watch_parent() -> None:
    """End this process when the parent is gone, even in the middle of a long item.

    Workers of the zygote need no such thread: it ends them. The socket is not what is waited
    on: while one thread waits on a descriptor another one's close of it has no effect.
    """
    try:
        wait = _wait_for_end(os.getppid())
    except OSError:  # an old kernel, or a parent that is gone already: the socket tells
        return
    if wait is None:
        return

    def watch() -> None:
        wait()
        # A worker that is between two items leaves by itself, with its output written.
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parallax-parent", daemon=True).start()


def _wait_for_end(pid: int) -> Callable[[], Any] | None:
    """What waits for the end of a process that is not our child; None if nothing can."""
    if hasattr(os, "pidfd_open"):
        poll = select.poll()
        poll.register(os.pidfd_open(pid), select.POLLIN)
        return poll.poll
    kqueue = getattr(select, "kqueue", None)
    if kqueue is None:
        return None
    names = ("KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_NOTE_EXIT")
    event = getattr(select, "kevent")(pid, *(getattr(select, name) for name in names))  # noqa: B009
    return functools.partial(kqueue().control, [event], 1)


def serve(sock: socket.socket) -> None:
    """Work until the parent goes away or the idle time is over; never returns normally."""
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers. A
    # handler, not SIG_IGN, because an ignored signal would stay ignored in the user's subprocesses.
    signal.signal(signal.SIGINT, lambda *_: None)
    _chunk.unblock_interrupts()
    _chunk.set_process_level(1)
    # A program that an item starts, or a fork of this process, must not hold the socket open:
    # the parent would not see our end.
    sock.set_inheritable(False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=sock.close)
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
        self._begun = False
        self._delays = RunDelay()
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
            self._begun = False
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
        if not self._begun:
            # Tells a worker that its first item ended from one that was killed while idle.
            self._begun = True
            self._channel.send(protocol.BEGUN, frame.tag)
        try:
            fn, star, stop, _ = self._call()
        except BaseException as error:  # noqa: BLE001 - any import may raise anything
            self._refuse(frame.tag, "callable", error)
            return
        # Building many objects at once, with nothing to collect among them, is half collecting.
        collecting = gc.isenabled()
        gc.disable()
        try:
            items = _codec.decode(frame.payload, frame.buffers)
        except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
            self._refuse(frame.tag, "item", error)
            return
        finally:
            if collecting:
                gc.enable()
        result = _chunk.run_chunk(fn, items, star=star, stop=stop, delays=self._delays)
        del items
        try:
            if result.failures:
                from .failures import portable  # loads what a worker without failures never needs

                result = portable(result)
            reply = _codec.encode_reply(tuple(result))
        except Exception:  # noqa: BLE001 - told apart value by value
            from .failures import isolate

            reply = _codec.encode_reply(tuple(isolate(result)))
        del result
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._channel.send(protocol.RESULT, frame.tag, reply.payload, reply.buffers)

    def _refuse(self, tag: int, what: str, error: BaseException) -> None:
        words = f"{type(error).__name__}: {error}"
        reply = _codec.encode_reply((what, "", f"in the worker: {words}"))
        self._channel.send(protocol.REFUSED, tag, reply.payload)


def _apply_globals(values: list[tuple[str, str, Any]]) -> None:
    """Give imported modules the values that the caller's modules have now."""
    for module, name, value in values:
        if module in sys.modules:
            setattr(sys.modules[module], name, value)
