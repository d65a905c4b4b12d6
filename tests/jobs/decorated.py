"""Decorated functions and methods for the tests, in a module that worker processes import."""

from __future__ import annotations

import functools
import os
import sys
from typing import ClassVar

from jobs import spin
from parallax import parallel

CALLS = 0
LOG: list[int] = []


@parallel
def square(x: int) -> int:
    """The square of a number."""
    return x * x


@parallel(max_workers=2)
def spinning_square(x):
    spin(0.01)
    return x * x


@parallel
def add(a, b=10):
    return a + b


@parallel
def fibonacci(n):
    """Recursive by its own, decorated name."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def calls_here():
    """How many calls the importable module has seen in this process."""
    return sys.modules[__name__].CALLS


@parallel
def counting(x):
    """Changes the module's own state, and says which process's."""
    global CALLS
    before = calls_here()
    CALLS += 1
    return os.getpid(), before, calls_here()


@parallel
def pair(a, b=0):
    return a, b


@parallel
def inverse(x):
    return 1 / x


@parallel
def itself(x):
    return x


def slowly(fn):
    """Makes each call dear enough for processes to be wanted."""

    def slow(x):
        spin(0.003)
        return fn(x)

    return slow


@parallel
def logged(x):
    LOG.append(x)
    return x


def calls_logged(x):
    return logged(x)


def maps_logged(x):
    return logged.map([x, x])


def calls_method(x):
    return MODEL.remember(x)


def maps_method(x):
    return MODEL.remember.map([x])


def calls_super(x):
    return MODEL.remember_twice(x)


def calls_class(x):
    return Model.remembered(x)


def traced(fn):
    """A decorator as users write them."""

    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


@traced
@traced
def twice_traced(x):
    return CALLS, x


@traced
def traced_counting(x):
    global CALLS
    before = calls_here()
    CALLS += 1
    return os.getpid(), before, calls_here()


@parallel
@functools.cache
def cached(x):
    return x + 1


@functools.cache
@parallel
def cached_over(x):
    return x + 1


class Model:
    """Methods of each kind, in both orders of the decorators."""

    scale = 3
    made: ClassVar[list[int]] = []

    def __init__(self, by=2):
        self.by = by
        self.seen = []

    def __eq__(self, other):
        return isinstance(other, Model) and self.by == other.by

    def __hash__(self):
        return hash(self.by)

    @parallel
    def times(self, x: int) -> int:
        """A multiple."""
        return self.by * x

    @parallel
    def __hidden(self, x):
        return -self.by * x

    def hidden(self):
        return self.__hidden

    @parallel
    def remember(self, x):
        self.seen.append(x)
        return x

    @parallel
    @staticmethod
    def counting(x):
        global CALLS
        before = calls_here()
        CALLS += 1
        return os.getpid(), before, calls_here()

    @parallel
    def counting_too(self, x):
        return self.counting(x)

    @parallel
    @classmethod
    def remembered(cls, x):
        cls.made.append(x)
        return x

    @parallel
    @staticmethod
    def over_static(x):
        return x + 1

    @staticmethod
    @parallel
    def under_static(x):
        return x + 2

    @parallel
    @classmethod
    def over_class(cls, x):
        return cls.scale * x

    @classmethod
    @parallel
    def under_class(cls, x):
        return cls.scale * x

    class Inner:
        @parallel
        def deep(self, x):
            return x, "deep"


class Wider(Model):
    scale = 5

    @parallel
    def times(self, x):
        return 100 * super().times(x)

    def remember_twice(self, x):
        return super().remember(x)


MODEL = Wider()
