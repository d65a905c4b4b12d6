"""The functions that an executor has met, and what is known of each.

Guarantees: no function, and nothing that it captured, is kept alive here once its route is decided.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, TypeAlias

from parallax._adaptive.process_route import ProcessRoute
from parallax._adaptive.trial import Trial
from parallax._core.callables import name_of
from parallax._core.plans import Plan
from parallax._core.thread_clocks import clock_tick
from parallax._guard.effects import OPEN, except_shared, judge, scan
from parallax._profiling.history import key_of
from parallax._routing.route_choice import RouteChoice

clock = time.perf_counter

#: A function with positional and keyword arguments.
FunctionCall: TypeAlias = "tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]"

#: Functions that are remembered; the oldest is forgotten, and measured anew when it comes back.
MAX_KNOWN_FUNCTIONS = 512

#: Types of values that may be called by the function that they are given to.
TYPES_THAT_MAY_BE_CALLED = frozenset(
    {FunctionType, MethodType, BuiltinFunctionType, type, functools.partial}
)

#: How deep callables inside callables are told apart.
MAX_CALLABLE_DEPTH = 4

#: Calls after which the guard inspects a function again: what it refers to may have changed.
CALLS_PER_INSPECTION = 64


class FunctionState:
    """What is known of the calls of one function with arguments of the same types."""

    def __init__(self, choice: RouteChoice, findings: frozenset[Any]) -> None:
        self.choice = choice
        #: the trial; None when it is over.
        self.trial: Trial | None = None
        #: calls that wait for the decision on the route; the lock of the executor guards them.
        self.held: deque[Any] = deque()
        self._findings = findings
        self._calls = 0

    def inspection_due(self) -> bool:
        """Count a call; whether the guard should inspect the function again."""
        # By the number that this thread has stored: others may count at the same time.
        self._calls = calls = self._calls + 1
        return not calls % CALLS_PER_INSPECTION

    def side_effects(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
        """New side effects for which calls must stay in this process, in words; "" if none.

        An object that the code refers to may have been replaced by one that the code changes.
        """
        effects = except_shared(scan(fn, args), fn, args)
        if self._findings.issuperset(effects.findings):
            return ""
        verdict = judge(effects, ())
        return verdict.reason if verdict.limit not in OPEN else ""


class Functions:
    def __init__(
        self,
        lock: Any,
        processes: ProcessRoute,
        decided: Callable[[FunctionState, Plan | None, str], None],
    ) -> None:
        """Know no function; ``decided`` is told the decision of each trial, see ``Trial``."""
        self._lock = lock
        self._processes = processes
        self._decided = decided
        self._known: dict[Hashable, FunctionState] = {}
        self._quick: dict[Hashable, tuple[weakref.ref[Any], FunctionState]] = {}

    def choices(self) -> list[RouteChoice]:
        """The route choice of each function, oldest first."""
        with self._lock:
            return [function.choice for function in self._known.values()]

    def keep_in_threads(self) -> None:
        """Have all functions run in threads: no worker process can be started."""
        for choice in self.choices():
            choice.keep(self._processes.why_unavailable, clock())

    def quick(self, call: FunctionCall) -> FunctionState | None:
        """The state of this very function, if it was called with arguments of these types."""
        known = self._quick.get(_quick_key(*call))
        return known[1] if known is not None and known[0]() is call[0] else None

    def state(self, call: FunctionCall, *, crowded: bool) -> FunctionState:
        """The state of the called function, which is inspected first if it is new."""
        function = self.quick(call)
        if function is not None:
            if function.inspection_due() and (reason := function.side_effects(*call[:2])):
                with self._lock:
                    function.choice.keep(reason, clock())
            return function
        key = _key(*call)
        with self._lock:
            function = self._known.get(key)
        if function is None:
            function = self._inspect(*call, crowded=crowded)
        quick_key = _quick_key(*call)
        with self._lock:
            function = self._known.setdefault(key, function)  # another thread may have been faster
            if len(self._known) > MAX_KNOWN_FUNCTIONS:
                del self._known[next(iter(self._known))]
            # Types do not tell which callables the arguments are.
            plain = type(call[0]) in {FunctionType, BuiltinFunctionType, type}
            if plain and TYPES_THAT_MAY_BE_CALLED.isdisjoint(quick_key):
                if len(self._quick) > MAX_KNOWN_FUNCTIONS:
                    self._quick.clear()
                self._quick[quick_key] = weakref.ref(call[0]), function
        return function

    def _inspect(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, crowded: bool
    ) -> FunctionState:
        """Find out what the code tells about a new function, and decide at once if that will do."""
        processes = self._processes
        choice = RouteChoice(
            name_of(fn), cores=processes.cores, workers=processes.workers, tick=clock_tick()
        )
        bound = functools.partial(fn, **kwargs) if kwargs else fn
        effects = except_shared(scan(bound, args), bound, args)
        function = FunctionState(choice, frozenset(effects.findings))
        find, tell = weakref.ref(function), self._decided  # no cycle: both refer to the trial

        def decided(plan: Plan | None, stay: str) -> None:
            if (known := find()) is not None:
                tell(known, plan, stay)

        function.trial = trial = Trial(
            bound, args, choice, processes, self._lock, function.held, decided, crowded=crowded
        )
        trial.warn(args)
        verdict = trial.verdict
        if verdict.limit in OPEN or not verdict.settled:
            processes.load()
        if processes.workers < 2:
            choice.keep(processes.why_unavailable, clock())
        elif verdict.limit not in OPEN and (verdict.settled or kwargs):
            choice.keep(verdict.reason, clock())
        else:
            trial.decide_from_history()
        if choice.route is not None:
            function.trial = None
        return function


def _quick_key(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hashable, ...]:
    if not kwargs:
        return (id(fn), *map(type, args))
    return (id(fn), *map(type, args), *kwargs, *map(type, kwargs.values()))


def _key(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """A key that is equal for calls that may take the same route."""
    kinds = [_kind(arg, MAX_CALLABLE_DEPTH) for arg in (*args, *kwargs.values())]
    return (*_parts(fn, MAX_CALLABLE_DEPTH), *kinds, *kwargs)


def _kind(value: Any, depth: int) -> Any:
    """A value's type; of a callable, which one: calling it may have side effects."""
    kind = type(value)
    return _parts(value, depth - 1) if kind in TYPES_THAT_MAY_BE_CALLED and depth else kind


def _parts(fn: Any, depth: int) -> tuple[Hashable, ...]:
    """A callable's code, and the kinds of what it captured."""
    parts: list[Any] = []
    while isinstance(fn, functools.partial):
        parts += [_kind(each, depth) for each in (*fn.args, *fn.keywords.values())]
        fn = fn.func
    owner = getattr(fn, "__self__", None)
    if owner is not None:
        parts.append(type(owner))
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            parts.append(_kind(cell.cell_contents, depth))
        except ValueError:  # not bound yet
            parts.append(None)
    if type(fn) is FunctionType:
        held = (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())
        parts += [_kind(each, depth) for each in held]
    code = key_of(fn)
    return (id(type(fn)) if code is None else code, *parts)
