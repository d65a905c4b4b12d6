"""What a worker answers when it is asked who it is."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from multiprocessing import connection


def who(_):
    """What programs ask ``multiprocessing``; takes long enough for each worker to get an item."""
    time.sleep(0.05)
    me, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    record = logging.getLogger("who").makeRecord("who", 20, "who.py", 1, "here", (), None)
    return {
        "name": me.name,
        "numbers": me._identity,
        "pid": (me.pid, me.ident, os.getpid()),
        "daemon": me.daemon,
        "alive": (me.is_alive(), me.exitcode),
        "parent": None if parent is None else (parent.name, parent.pid, parent.is_alive()),
        "key": bytes(me.authkey),
        "logged": record.processName,
    }


def waits_for_parent(_):
    """Whether the end of a program that lives on is reported by anything."""
    parent = multiprocessing.parent_process()
    before = time.monotonic()
    parent.join(0.05)
    waited = time.monotonic() - before
    return waited >= 0.04, connection.wait([parent.sentinel], 0), parent.is_alive()


def connects(address):
    """Answer a listener of the program, with the key that every child has."""
    key = bytes(multiprocessing.current_process().authkey)
    with connection.Client(address, authkey=key) as client:
        client.send(os.getpid())
        return client.recv()


def _introduce(pipe):
    me, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    pipe.send((me.name, me._identity, parent.name, parent.pid, parent.is_alive()))


def has_children(_):
    """Two children of a worker, how they see themselves, and the worker."""
    fork = multiprocessing.get_context("fork")
    found = []
    for _ in range(2):
        ours, theirs = fork.Pipe()
        child = fork.Process(target=_introduce, args=(theirs,))
        child.start()
        found.append(ours.recv())
        child.join(10)
        assert child.exitcode == 0
        ours.close()
        theirs.close()
    me = multiprocessing.current_process()
    return found, me.name, me._identity, os.getpid()


def start_method(_):
    return multiprocessing.get_start_method(allow_none=True)
