"""Random numbers of a call with `seed=`: each item draws from a stream of its own.

Guarantees: an item draws the same numbers in every thread and process, in any order and at each
retry; after it all generators are as before. Assumes: generators that several threads share are
drawn from by the items of one call at a time.
"""

from __future__ import annotations

import functools
import os
import random  # noqa: F401 - so that it is seeded for an item that imports it
import sys
import threading
from importlib import import_module
from importlib.util import find_spec

from parallax._core.light_stdlib import TYPE_CHECKING, local
from parallax._core.seeds import stream_of
from parallax._guard.generators import SHARED_TITLES, handle, shared_generators
from parallax._guard.net import Mesh, Net

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parallax._core.seeds import RandomStream
    from parallax._guard.generators import PythonGenerator

# Libraries whose generator an item must find seeded although it is the first to import them.
_LIBRARIES = {"numpy": "numpy.random.mtrand", "torch": "torch"}


class _Inside(local):
    """The stream of the item that this thread is inside of, and how many calls it has made."""

    stream: RandomStream | None = None
    calls = 0


_inside = _Inside()
# Steps of the search for generators. Smaller: those deep inside a callable are missed; larger: the
# first item of a call takes longer.
_SEARCH_STEPS = 4000
# Seconds between two looks whether items turned out not to draw. Smaller: waiting threads use more
# CPU time; larger: they stand by longer once the first item has ended.
_POLL_S = 0.005
# Held by the item that draws from generators which threads share.
_turn = threading.RLock()


def _after_fork() -> None:
    global _turn  # noqa: PLW0603 - another thread may have held it
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def seeded(fn: Callable[..., Any], given: Any, default: Any) -> Any:
    """The callable for a call with `seed=given`, or with the `default` if that is None.

    A default that holds inside an item stands for a part of that item's stream: the calls of
    different items are not to draw the same numbers.
    """
    stream = stream_of(default if given is None else given)
    if stream is None:
        return fn
    if given is None and _inside.stream is not None:
        _inside.calls += 1
        stream = _inside.stream.child(_inside.calls)
    return Seeded(fn, stream)


class Seeded(functools.partial):  # type: ignore[type-arg] # a subscript would cost at run time
    """A callable that takes the number of the item first, and draws from that item's stream.

    `drew` is whether items in this process have drawn from a generator that outlives them; None
    as long as none has ended.
    """

    __slots__ = ("_held", "_imports", "_own_turn", "drew", "stream")

    drew: bool | None
    stream: RandomStream
    _held: list[Any] | None
    _imports: set[str]
    _own_turn: Any

    def __new__(cls, fn: Any, stream: RandomStream) -> Any:
        """Take the user's callable and the stream of the call."""
        self = super().__new__(cls, fn)
        self.stream, self.drew = stream, None
        self._held = None
        # Inside an item that has the turn, and waits for the items of this call.
        self._own_turn = threading.RLock() if _turn._is_owned() else None  # type: ignore[attr-defined]
        return self

    def __reduce__(self) -> Any:
        fn: Any = self.func
        if self.args or self.keywords:
            fn = functools.partial(fn, *self.args, **self.keywords)
        return Seeded, (fn, self.stream)

    def __call__(self, index: int, /, *args: Any, **kwargs: Any) -> Any:
        turn = self._own_turn or _turn
        has_turn = turn.acquire(blocking=False)
        # Another thread is inside an item. It is waited for unless none has drawn so far.
        while not has_turn and self.drew is not False:
            has_turn = turn.acquire(timeout=_POLL_S)
        stream = self.stream.child(index)
        before, calls = _inside.stream, _inside.calls
        saved: list[tuple[PythonGenerator, Any, Any]] = []
        try:
            for number, generator in self._all() if has_turn else ():
                state = generator.state()
                generator.seed(stream.child(number))
                saved.append((generator, state, None if self.drew else generator.state()))
            _inside.stream, _inside.calls = stream, 0
            return self.func(*self.args, *args, **{**self.keywords, **kwargs})
        finally:
            _inside.stream, _inside.calls = before, calls
            if has_turn:
                drew = bool(self.drew)
                for generator, state, seeded in saved:
                    drew = drew or generator.drawn(seeded)
                    generator.restore(state)
                self.drew = drew  # at once: other threads look at it
                turn.release()
            del self, args, kwargs, saved  # the traceback of an error refers to this frame

    def _all(self) -> list[tuple[int, PythonGenerator]]:
        """The generators that an item may draw from, each with the number of its stream."""
        if self._held is None:
            net = Net(self, Mesh(_SEARCH_STEPS))
            self._held = [obj for _, obj in net.reached() if handle(obj) is not None]
            self._imports = {each for each in net.imports & set(_LIBRARIES) if find_spec(each)}
        for library, module in _LIBRARIES.items():
            if module not in sys.modules and (library in sys.modules or library in self._imports):
                import_module(module)  # what an item would do, too late to be seeded
        shared = shared_generators()
        known = [generator for _, generator in shared]
        others = [each for each in self._held if all(each is not one for one in known)]
        made = [(SHARED_TITLES.index(title), handle(generator)) for title, generator in shared]
        made += [(len(SHARED_TITLES) + k, handle(generator)) for k, generator in enumerate(others)]
        return [(number, each) for number, each in made if each is not None]
