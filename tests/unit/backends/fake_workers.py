"""Workers without processes: the worker's end of a socket pair, moved by a test step by step."""

from __future__ import annotations

import contextlib
import pickle
import socket
import time
from collections import deque

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.channel_setup import keep_channel
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.start.started_process import NOTHING, StartedProcess
from parallax._core.chunks import ChunkResult
from parallax._transport import codec
from parallax._transport.framing import Channel

__all__ = ["FakePool", "FakeProcess"]


class FakeProcess(StartedProcess):
    """A process that was asked to start, and the worker that runs in it."""

    recalls = killable = True

    def __init__(self, sock, pid):
        super().__init__(f"fake-{pid}")
        self.channel = Channel(sock, waits=False)
        self.own_pid = pid
        self.code = None
        self.deadline = time.monotonic() + 100
        self.recalled = False
        self.inherits = NOTHING
        self.greeted = self.begun = False
        #: [tag, tasks that are not answered]: the batches, or chunks, that it was sent.
        self.work = deque()

    # -- what the parent does to it ------------------------------------------------------------

    def up(self, pid):
        self.pid = pid

    def kill(self):
        self.end(-9)

    def signal(self, number):
        self.recalled = self.recalled or number == protocol.RECALL

    def exitcode(self, timeout):
        return self.code

    def gone(self):
        return self.code is not None

    # -- what it does by itself ----------------------------------------------------------------

    def end(self, code):
        if self.code is None:
            self.code = code
            self.channel.close()

    def hello(self):
        self._send(protocol.HELLO, self.own_pid)
        self.greeted = True

    def read(self):
        """Take what the parent has sent."""
        if self.code is not None:
            return
        with contextlib.suppress(EOFError, OSError):
            for frame in self.channel.receive():
                if frame.kind == protocol.USE:
                    self.begun = False
                elif frame.kind in {protocol.BATCH, protocol.TASK}:
                    items = len(pickle.loads(frame.payload))
                    self.work.append([frame.tag, items])

    def answer(self, count):
        """Answer the first tasks that it has, ``count`` at most and of one frame."""
        if not self.work:
            return
        tag, left = self.work[0]
        if not self.begun:
            self.begun = True
            self._send(protocol.BEGUN, tag)
        done = min(count, left)
        result = ChunkResult([7] * done, (), 1e-5 * done, 1e-5 * done)
        if done == 1:
            payload = codec.encode(tuple(result)).payload
        else:
            payload = pickle.dumps((result.values, (result.wall, result.cpu), {}, {}))
        self._send(protocol.RESULT, tag, payload)
        self.work[0][1] -= done
        if not self.work[0][1]:
            self.work.popleft()

    def answer_chunk(self):
        """Answer the first chunk that it has."""
        if not self.begun:
            self.begun = True
            self._send(protocol.BEGUN)
        tag, items = self.work.popleft()
        result = ChunkResult([7] * items, (), 1e-5, 1e-5)
        self._send(protocol.RESULT, tag, codec.encode(tuple(result)).payload)

    def give_back(self):
        """Answer a recall: all but the first task, which is running."""
        self.recalled = False
        if not self.work:
            return
        (first, left), *others = self.work
        back = [(first, left - 1)] if left > 1 else []
        back += [(tag, -1) for tag, _ in others]
        self.work = deque([[first, 1]])
        if back:
            self._send(protocol.RETURNED, first, pickle.dumps(back))

    def yield_chunks(self, keep):
        """Answer a recall of a run: the first chunk keeps some items, all others none."""
        back = [(tag, keep if not place else 0) for place, (tag, _) in enumerate(self.work)]
        self.work = deque([[back[0][0], keep]] if keep else [])
        self._send(protocol.YIELDED, 0, codec.encode(back).payload)

    def bye(self, tag=0):
        self._send(protocol.BYE, tag, b"why" if tag == protocol.CANNOT_LOAD else b"")
        self.end(0)

    def garbage(self):
        with contextlib.suppress(OSError):
            self.channel.sock.send(b"printed to the wrong descriptor")

    def _send(self, kind, tag=0, payload=b""):
        with contextlib.suppress(OSError):
            self.channel.send(kind, tag, payload)


class FakePool:
    """Starts such workers, and lends and takes back what is left of them."""

    method = "fake"
    forks = False
    imports = True
    rights = None
    #: as of interpreters, until the first of them cannot load a module.
    spare = "fake"

    def __init__(self):
        self.processes = []
        self.idle = []

    @property
    def running(self):
        return [process for process in self.processes if process.code is None]

    def hire(self, kind, initializer=None):
        ours, theirs = socket.socketpair()
        process = FakeProcess(theirs, 1000 + len(self.processes))
        self.processes.append(process)
        channel = keep_channel(ours, None, None)
        worker = kind(process, channel, [])
        worker.pool = self
        return worker

    def lease(self, count, limit, *, wait, items):
        return [self.hire(WorkerClient) for _ in range(count)]

    def give_back(self, worker, idle_timeout):
        assert worker.alive
        assert not worker.owed
        self.discard(worker, kill=True)

    def greet(self, worker, pid):
        worker.greet(pid)

    def deadline(self, worker):
        return worker.started.deadline

    def discard(self, worker, *, kill, timeout=0.0):
        if kill:
            worker.started.kill()
        worker.close()
        return worker.started.code

    def retire(self, worker):
        worker.close()
        worker.started.end(0)

    def trouble(self, worker, *, late):
        return "", False

    def settle(self, timeout):
        pass

    finish = settle

    def prepare(self, modules):
        pass

    def close(self):
        for process in self.processes:
            process.end(0)
