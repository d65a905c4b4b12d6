"""The input of a run: items taken from the caller's iterables when they are needed, not earlier.

Guarantees: each item is taken once, in order; an error of the input is kept, with the items
before it intact. Assumption: unless ``anywhere``, only the caller's thread takes items, because
iterables may run user code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice
from math import inf
from time import perf_counter

from parallax._core.light_stdlib import Any

#: Seconds of taking items from a slow input before workers get those that are there. Smaller makes
#: chunks too small, larger lets workers wait.
PULL_S = 0.001

#: Seconds of the first item of ``each`` from which on it is the only one. Blocks are sized by what
#: items took before: a call whose items are far longer would be a loop to its end. Shorter lets a
#: hiccup cut blocks, longer gains nothing.
LATE_S = 0.005

#: Iterating these runs no user code, so any thread may do it.
_PLAIN_CONTAINERS = (list, tuple, range, str, bytes, bytearray, dict, set, frozenset)

#: Calls that are looked at together. Fewer: what few items have in common is missed; each takes
#: about a microsecond.
SOME_CALLS = 64


class Input:
    def __init__(
        self,
        iterables: tuple[Iterable[Any], ...],
        *,
        strict: bool,
        spread: bool = False,
        numbered: bool = False,
    ) -> None:
        """Make the iterator; nothing is taken yet.

        Several iterables are zipped, and with ``strict`` must be equally long. With ``spread`` one
        gives the arguments of each call as a tuple. If ``numbered`` the first argument of each call
        is its number.
        """
        if not iterables:
            raise TypeError("no input: pass at least one iterable, as in parallel_map(fn, items)")
        for iterable in iterables:
            if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
                raise TypeError(
                    f"{type(iterable).__name__} object is not iterable; "
                    f"as in map, pass the items in a list or another iterable"
                )
        several = len(iterables) > 1
        self._spread, self._numbered = spread, numbered
        #: items are tuples of arguments.
        self.star = spread or several or numbered
        #: the iterator; items taken from it directly are added to ``taken``.
        self.iterator: Iterator[Any] = (
            map(tuple, iterables[0])
            if spread
            else zip(*iterables, strict=strict)
            if several
            else iter(iterables[0])
        )
        if numbered:
            calls = self.iterator if spread or several else zip(self.iterator, strict=False)
            self.iterator = map(lambda number, args: (number, *args), count(), calls)
        #: any thread may take items.
        self.anywhere = all(type(i) in _PLAIN_CONTAINERS for i in iterables)
        #: what the items come from, where nothing of it is read later than it is taken.
        self.whole: tuple[Iterable[Any], ...] = ()
        #: number of items if every iterable has a length, else None.
        self.total = _length(iterables)
        #: the input if it is a range: its slices are pickled as two numbers.
        self._range = iterables[0] if not self.star and type(iterables[0]) is range else None
        self.taken = 0
        self.ended = False
        self._late = False  # ``each`` has ended before the items did
        #: what the input raised, until somebody takes it.
        self._error: Exception | None = None

    @property
    def left(self) -> int | None:
        """Items not yet taken; None if not known."""
        if self.ended:
            return 0
        return None if self.total is None else max(0, self.total - self.taken)

    def arguments(self, item: Any) -> tuple[Any, ...]:
        return tuple(item) if self.star else (item,)

    def some_calls(self) -> list[tuple[Any, ...]]:
        """Arguments of some calls, if nobody's code gives them; nothing is taken."""
        if not self.whole or not all(type(each) in {list, tuple} for each in self.whole):
            return []
        columns: tuple[Any, ...] = self.whole
        n, half = min(map(len, columns)), SOME_CALLS // 2
        rows = range(n) if n <= SOME_CALLS else [*range(half), *range(half, n, n // half)]
        found = [tuple(column[row] for column in columns) for row in rows]
        if self._spread:
            found = [args[0] for args in found if type(args[0]) is tuple]
        return [(0, *args) for args in found] if self._numbered else found

    def take(self, count: int) -> list[Any]:
        """Take up to ``count`` items; fewer only at the end of the input or at its error."""
        items: list[Any] = []
        if self.ended:
            return items
        try:
            items.extend(islice(self.iterator, count))
        except Exception as error:  # noqa: BLE001 - the user's iterable may raise anything
            self._error = error
            self.ended = True
        self.taken += len(items)
        if len(items) < count:
            self.ended = True
        return items

    def each(self, count: int, until: float = inf) -> Iterator[Any]:
        """The next ``count`` items, each taken when it is wanted; they end at the input's error.

        After a first one that is late there is no other. None is given out after ``until``, by
        ``time.perf_counter``; that takes 0.1 us an item.
        """
        if until < inf:
            return self._before(until, count)
        items = islice(self.iterator, count) if self.anywhere else self._each(count)
        return chain.from_iterable(self._prompt(items))

    def _prompt(self, items: Iterator[Any]) -> Iterator[Iterator[Any]]:
        begun = perf_counter()
        yield islice(items, 1)
        self._late = perf_counter() >= begun + LATE_S
        if not self._late:
            yield items

    def _before(self, until: float, count: int) -> Iterator[Any]:
        for item in self.each(count):
            yield item
            if perf_counter() > until:
                self._late = True
                return

    def _each(self, count: int) -> Iterator[Any]:
        try:
            yield from islice(self.iterator, count)
        except Exception as error:  # noqa: BLE001 - as in ``take``
            self._error = error
            self.ended = True

    def took(self, count: int, wanted: int, *, failed: bool) -> None:
        """So many items of ``each`` have run, the last of which may have failed."""
        self.taken += count
        if count < wanted and not failed and not self._late:
            self.ended = True
        self._late = False

    def slice(self, count: int) -> Sequence[Any]:
        """As ``take``, but the items of a range come as a range."""
        if self._range is None or self.ended:
            return self.take(count)
        part = self._range[self.taken : self.taken + count]
        self.taken += len(part)
        self.ended = len(part) < count
        self.iterator = iter(self._range[self.taken :])
        return part

    def pull(self, count: int) -> list[Any]:
        """Take up to ``count`` items from an input that may be slow; fewer after ``PULL_S``."""
        items: list[Any] = []
        until = perf_counter() + PULL_S
        while len(items) < count and not self.ended:
            items += self.take(1)
            if perf_counter() > until:
                break
        return items

    def peek(self) -> list[Any]:
        """The next item in a list, still to be taken; an empty list at the end."""
        items = self.take(1)
        if items:
            self.iterator = chain(items, self.iterator)
            self.taken -= 1
        return items

    def take_error(self) -> Exception | None:
        """What the input raised, if it did; for one to whom it is told, or who tells."""
        error, self._error = self._error, None
        return error


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    lengths = []
    for iterable in iterables:
        try:
            lengths.append(len(iterable))  # type: ignore[arg-type]
        except TypeError:
            return None
        except Exception:  # noqa: BLE001 - a user's __len__; without it the input still works
            return None
    return min(lengths)
