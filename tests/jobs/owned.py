"""What belongs to a user, for tests that count what is still alive of it."""

from __future__ import annotations

import os
import time
import weakref

#: Seconds that are longer than any limit of a test.
SOON = 30

_living: weakref.WeakSet[Owned] = weakref.WeakSet()


def living():
    """What is alive in this process."""
    return sorted(each.what for each in _living)


class Owned:
    """Something that a test counts, in each process that has a copy."""

    def __init__(self, what, stuck=None):
        self.what = what
        self.stuck = stuck
        _living.add(self)

    def __reduce__(self):
        if self.stuck == "pickling":
            raise RuntimeError("stuck")
        return arrive, (self.what, self.stuck, os.getpid())


def arrive(what, stuck, pid):
    if stuck == ("elsewhere" if pid != os.getpid() else "here"):
        raise RuntimeError("stuck")
    return Owned(what, stuck)


class OwnedError(Exception, Owned):
    """An exception with data in it."""

    def __init__(self, what, data=None, stuck=None):
        Owned.__init__(self, what, stuck)
        self.data = data


class Work(Owned):
    """A callable that carries data."""

    def __init__(self, what="callable", stuck=None):
        super().__init__(what, stuck)

    def __reduce__(self):
        Owned.__reduce__(self)
        return Work, (self.what,)

    def __call__(self, item, action=None, stuck=None):
        mine = Owned("local")
        if action == "raise":
            try:
                raise OwnedError("context", Owned("data"))
            except OwnedError as error:
                raise OwnedError("error", Owned("data"), stuck) from error
        if action == "exit":
            os._exit(3)
        if action == "sleep":
            time.sleep(SOON)
        if action == "interrupt":
            raise KeyboardInterrupt
        if action == "stop":
            raise StopIteration(mine)
        return Owned("result", stuck)


def initialize(*_):
    pass


def fail_to_initialize(data):
    raise OwnedError("error", data)
