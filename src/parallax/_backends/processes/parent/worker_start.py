"""Making a new worker: its connections, its process, and the client that the parent keeps."""

from __future__ import annotations

from parallax._backends.processes.common.channel_setup import keep_channel
from parallax._backends.processes.common.output_needs import modules_for_output
from parallax._backends.processes.common.stack_dumps import StackDump, open_stack_dump
from parallax._backends.processes.parent.exit_diagnosis import ledger
from parallax._backends.processes.parent.worker_client import Outputs, WorkerClient
from parallax._backends.processes.start.initializer import Initializer
from parallax._backends.processes.start.spawn import OUTPUT_FDS, file_of
from parallax._backends.processes.start.starter import Starter
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import TypeVar
from parallax._shm.arena import arena_sender
from parallax._shm.segment import create_segment
from parallax._transport.shm_channel import SharedMemoryChannel
from parallax._transport.wakeup import socket_pair

W = TypeVar("W", bound=WorkerClient)


def make_starter(method: str) -> Starter:
    kind, _, spare = method.partition(":")
    if kind == "interpreters":
        from parallax._backends.processes.start.interpreters import InterpreterStarter

        return InterpreterStarter(spare)
    if method != "fork":
        return Starter(method)
    from parallax._backends.processes.start.direct_fork import (
        ForkStarter,  # loads what only workers need otherwise
    )

    return ForkStarter()


def outputs() -> Outputs:
    """Where this process writes to now: a program may redirect it while workers are warm."""
    return [file_of(number) for number in OUTPUT_FDS]


def start_worker(
    starter: Starter,
    kind: type[W],
    initializer: Initializer | None,
    making: list[SharedMemoryChannel | StackDump],
) -> W:
    """Start a worker, which comes up later; ``making`` holds our ends, for a fork to close."""
    try:
        ours, theirs = socket_pair()
    except OSError as error:
        raise errors.WorkerStartError(starter.method, str(error)) from error
    written = outputs()
    ledger.begin()
    sender, segment, handles = arena_sender(), None, []
    if sender is not None:
        try:
            # A tag stands for the content only as long as somebody has it mapped.
            segment = create_segment() if isinstance(sender.segment.handle, int) else None
            handles = [sender.segment.handle, segment.handle if segment is not None else ""]
        except OSError:  # no descriptor is left: it works without
            sender = None
    dump = open_stack_dump(create_segment) if starter.processes else None
    if dump is not None:
        handles.append(dump.handle)
    channel = keep_channel(ours, sender, segment)
    making += [channel] if dump is None else [channel, dump]
    try:
        started = starter.start(theirs, handles, initializer, load=modules_for_output())
    except BaseException as error:
        for each in making:
            each.close()
        if isinstance(error, OSError):
            raise errors.WorkerStartError(starter.method, str(error)) from error
        raise
    finally:
        making.clear()
        theirs.close()
    worker = kind(started, channel, written, dump)
    worker.inherit(started.inherits)
    return worker
