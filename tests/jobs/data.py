"""Callables and objects for the tests of big data, in a module that workers import quickly."""

from __future__ import annotations

import array
import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from jobs.pool import wait_for

#: Elements of an array of 8-byte numbers that is large in every respect: as an argument, and as a
#: result, which is copied out up to 1 MB.
BIG = 300_000
#: The same for one that goes through shared memory and is copied out as a result.
MIDDLE = 50_000


class Kept:
    """Keeps data in a worker. Not a global, which would be sent along with each call."""

    data: Any = None


@dataclasses.dataclass
class Record:
    """A user's class with data in it."""

    name: str
    data: Any
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


class Tagged(np.ndarray):
    """A subclass of the arrays."""


class Slice:
    """An object that pickles itself as a part of a larger buffer, as a memory-mapped one might."""

    def __init__(self, whole, start, stop):
        self.part = memoryview(whole)[start:stop]

    def __reduce_ex__(self, protocol):
        import pickle

        return bytes, (pickle.PickleBuffer(self.part),)


class Painful(Exception):  # noqa: N818
    """An error with data in it."""

    def __init__(self, data):
        super().__init__(data)
        self.data = data


def describe(obj):
    """What an object is, to the last bit, as something small that can be compared.

    The same in every process; NaN is equal to itself. The order in memory is not part of it, nor
    whether it can be written to.
    """
    kind = type(obj).__name__
    if isinstance(obj, np.ndarray):
        if obj.dtype.names:  # what lies between the fields is not part of it
            fields = [(name, describe(obj[name])) for name in obj.dtype.names]
            return kind, obj.dtype.descr, obj.shape, fields
        content = repr(obj.tolist()) if obj.dtype.hasobject else _digest(obj.tobytes())
        return kind, obj.dtype.str, obj.shape, content
    if isinstance(obj, (bytes, bytearray)):
        return kind, len(obj), _digest(obj)
    if isinstance(obj, memoryview):
        return kind, obj.format, obj.shape, _digest(obj.tobytes())
    if isinstance(obj, array.array):
        return kind, obj.typecode, len(obj), _digest(obj.tobytes())
    if isinstance(obj, str):
        return kind, len(obj), _digest(obj.encode("utf-8", "surrogatepass"))
    if isinstance(obj, dict):
        return kind, [(describe(key), describe(value)) for key, value in obj.items()]
    if isinstance(obj, (list, tuple)):
        if len(obj) > 1000:  # plain numbers
            return kind, type(obj[-1]).__name__, len(obj), _digest(np.array(obj).tobytes())
        return kind, [describe(part) for part in obj]
    if dataclasses.is_dataclass(obj):
        return kind, describe(vars(obj))
    if kind in {"DataFrame", "Series"}:
        columns = obj.items() if kind == "DataFrame" else [(obj.name, obj)]
        named = [(repr(name), str(c.dtype), describe(c.to_numpy())) for name, c in columns]
        return kind, repr(obj.index.tolist()[:50]), str(obj.index.dtype), len(obj), named
    return kind, repr(obj)


def _digest(data):
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def describe_and_return(obj):
    return describe(obj), obj


def layout(obj):
    """How an array lies in memory: in C order, in Fortran order."""
    return obj.flags.c_contiguous, obj.flags.f_contiguous


def layout_and_return(obj):
    return layout(obj), obj


def writeable(obj):
    """Whether an array is writable in the worker, and the array."""
    return obj.flags.writeable, obj


def overwrite(data):
    """Overwrite an array; returns its first and last elements from before."""
    before = data[0], data[-1]
    data[:] = -1
    return before


def total(data):
    return float(data.sum())


def ones(count):
    return np.ones(count)


def filled(value):
    return np.full(BIG, float(value))


def filled_of(count, value):
    return np.full(count, float(value))


def doubled(data):
    data *= 2
    return data


def tail(data):
    return data[len(data) // 2 :]


def keep(data):
    """Keep an argument for as long as the worker lives."""
    Kept.data = data
    return os.getpid()


def kept_total(_):
    return os.getpid(), None if Kept.data is None else float(Kept.data.sum())


def kept_described(_):
    return describe(Kept.data)


def hurt(data):
    raise Painful(data * 2)


def at(data, place):
    return float(data[place])


def write_and_meet(folder, data, item):
    """Two items that run at once: each writes when the other has begun, and reads before."""
    Path(folder, f"here{item}").touch()
    wait_for(Path(folder, f"here{1 - item}"))
    before = float(data[0])
    data[:] = item + 10
    Path(folder, f"wrote{item}").touch()
    wait_for(Path(folder, f"wrote{1 - item}"))
    return before, float(data[0]), float(data[-1]), os.getpid()


def meet_with(folder, pair):
    """The same with the array as a part of the argument."""
    data, item = pair
    return write_and_meet(folder, data, item)


def patient_total(folder, pair):
    """One slow item among quick ones: it ends when the last one has run."""
    data, item, last = pair
    if item == last:
        Path(folder, "done").touch()
    elif item == 0:
        wait_for(Path(folder, "done"))
    return item, float(data.sum())


def nested_totals(pair):
    """Calls inside a call, with an array of the item's and one of its own."""
    from parallax import parallel_map

    data, level = pair
    own = np.full(BIG, float(level))
    shared = parallel_map(total, [data] * 3, backend="processes")
    made = parallel_map(filled, range(3), backend="processes")
    return list(shared), [describe(m) for m in made], list(parallel_map(lambda i: own[i], range(3)))


def forks(data):
    """Writes of a worker and of its fork do not reach the other."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            data[0] = 99.0
            os.read(read_end, 1)
            code = 0 if (data[0], data[1], data[-1]) == (99.0, 1.0, 1.0) else 2
        finally:
            os._exit(code)
    data[1] = 55.0
    os.write(write_end, b".")
    os.close(write_end)
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), float(data[0]), float(data[1])


def fill_row(image, row):
    image[row] = row
    return row


def try_to_write(data):
    """Whether it can be written to, and what is there."""
    try:
        data[0] = 77.0
    except ValueError:
        return False, float(data[0])
    return True, float(data[0])


def add_at(data, place):
    data[place] += 1
    return os.getpid()


def in_memory():
    """Bytes of shared memory that this process has a descriptor of, as far as memory is there."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:parallax"):
                status = os.fstat(int(name))
                found[status.st_ino] = status.st_blocks * 512
        except OSError:
            continue  # the one that listed the folder
    return sum(found.values())


def hold(started, release, data):
    """Keep an argument in use until told otherwise."""
    Path(f"{started}.new").write_text(str(os.getpid()))
    Path(f"{started}.new").rename(started)
    wait_for(release)
    return float(data.sum())


def dies_or_doubles(bad, data):
    """Ends its worker in the middle of an item."""
    if data[0] == bad:
        data[:] = 5.0
        os.kill(os.getpid(), 9)
    return data * 2
