"""The guard: decides whether a callable may leave the caller's process, or even its thread.

Two kinds of evidence: what the code does to state outside the call (`scan`, from the bytecode of
the callable and of the program's own functions it calls), and what the first items did to that
state (`Observer`). `judge` joins them into a `Verdict` by the table of docs/design.md.

Guarantees: no code of the program is run; nothing raises. What cannot be looked into is `opaque`.
Assumes: types and code found in one scan hold for the next as long as the marks of its trail do.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from parallax._guard.calls import Scan
from parallax._guard.code import line_of
from parallax._guard.evidence import Judged, weigh
from parallax._guard.fingerprint import Path, State, differs, fingerprint, follow
from parallax._guard.lookup import UNKNOWN, is_a, mark_of, resolve
from parallax._guard.names import TooBig
from parallax._guard.values import PLAIN, Outer
from parallax._shm.registry import any_shared, is_shared_writable

__all__ = [
    "STEPS",
    "Effects",
    "Finding",
    "GlobalRead",
    "Observer",
    "Verdict",
    "except_shared",
    "judge",
    "scan",
]

# Quiet items that are asked for before a cache counts as filled. Smaller: a change that comes with
# every third item is taken for one; larger: items run in the caller that workers could have.
_QUIET: Final = 2
# Steps of a scan, of about 5 us each. Smaller: programs of a few hundred functions count as too big
# to look through; larger: the first scan of such a program takes longer than it could save.
STEPS: Final = 20_000
# Smaller: caches that fill over several items are given up too early; larger: a callable that
# might go to processes is kept back for longer.
_LAST_LOOK: Final = 8
_MAX_KEYS: Final = 512
_MAX_VARIANTS: Final = 4


class GlobalRead(NamedTuple):
    """Module-level data that the callable reads: workers need its current value."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One place in the code that changes something from outside the call."""

    kind: Literal["grow", "update"]
    """`update` where threads would race (read, change, write), else `grow`."""
    target: str
    """What is changed, in the user's words."""
    function: str
    """The function in which it is seen."""
    filename: str
    line: int
    """0 where there is no line, as for a bound method of a builtin type."""
    how: str
    """The verb: `f` *appends to* `log`."""
    guarded: bool = False
    """It only happens while the state it sets is unset: a lazily filled cache."""
    constant: bool = False
    """Whether it happens does not depend on the item."""
    shared: bool = False
    """It is in memory that all processes share."""
    root: Path = field(default=(), compare=False, repr=False)
    """Where the changed object is found, as a path from the callable or an argument."""

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line else ""
        return f"`{self.function}` {self.how} `{self.target}`{where}"


@dataclass(frozen=True, slots=True)
class Effects:
    """What the code of a callable does to the world outside a call."""

    findings: tuple[Finding, ...] = ()
    reads: tuple[GlobalRead, ...] = ()
    opaque: bool = False
    """Some of the program's own code could not be looked into."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a callable may run."""

    limit: Literal["free", "process", "loop"]
    """`free`: anywhere; `process`: in this process; `loop`: in the caller's thread only."""
    reason: str
    """In words; empty where there is nothing to say."""
    finding: Finding | None
    """The evidence that decided."""
    settled: bool
    """False while watching more items could still change the verdict."""


def except_shared(effects: Effects, fn: Callable[..., Any], args: tuple[Any, ...]) -> Effects:
    """The same without what is written to memory that all processes share.

    Each item's own place in such an array may be filled by any process. A change that threads would
    race for (``counts[k] += 1``) stays a finding: processes would race for it as well.

    Args:
        effects: what the code does.
        fn: the callable.
        args: the arguments of one call.
    """
    if not any_shared():
        return effects
    kept = []
    for finding in effects.findings:
        if not finding.root or not is_shared_writable(follow(finding.root, fn, args)):
            kept.append(finding)
        elif finding.kind == "update":
            kept.append(replace(finding, shared=True))
    return replace(effects, findings=tuple(kept))


# ---------------------------------------------------------------- scanning, and remembering it

# One entry of a trail: the parent's index, the step from it, and the mark that must still hold.
_Mark = tuple[int, str, Any, Any]
# What must hold, what was found, and how many steps it was allowed to take.
_Entry = tuple[tuple[_Mark, ...], Effects, int]
_remembered: dict[Any, tuple[_Entry, ...]] = {}


def scan(
    fn: Callable[..., Any], sample: tuple[Any, ...] | None = None, *, steps: int = STEPS
) -> Effects:
    """What the code of `fn` may do to state outside one call of it.

    Args:
        fn: any callable.
        sample: the arguments of one call, for their types: `x += 1` changes a list and not a
            number. Without it, arguments count as being of unknown type.
        steps: how much code to look through before it counts as too big, and so as opaque.
    """
    try:
        args = (UNKNOWN,) * _arity(fn) if sample is None else sample
        key = _key_of(fn)
        entries = _remembered.get(key, ())
        for marks, effects, spent in entries:
            if (spent >= steps or not effects.opaque) and _holds(marks, fn, args):
                return effects
        effects, marks = _scan_anew(fn, args, steps)
        if len(_remembered) >= _MAX_KEYS:
            _remembered.clear()
        _remembered[key] = ((marks, effects, steps), *entries)[:_MAX_VARIANTS]
    except Exception:  # noqa: BLE001
        # A callable of an unforeseen kind must not stop the run: it stays in the process instead.
        return Effects(opaque=True)
    return effects


def _key_of(fn: Any) -> Any:
    bound: tuple[Any, ...] = ()
    for _ in range(8):
        if is_a(fn, functools.partial):
            # Where one binds less, a default is used: nothing marks that it was not bound.
            bound += (len(fn.args), *fn.keywords)
            fn = fn.func
        elif type(fn) is types.MethodType:
            fn = fn.__func__
        else:
            break
    if type(fn) is types.FunctionType:
        return id(fn.__code__), bound
    return (id(fn) if is_a(fn, type) else id(type(fn))), bound


def _arity(fn: Any) -> int:
    """How many arguments a call needs at least; one where it cannot be told."""
    taken = 0
    for _ in range(8):
        if is_a(fn, functools.partial):
            taken += len(fn.args)
            fn = fn.func
        elif type(fn) is types.MethodType:
            taken += 1
            fn = fn.__func__
        elif type(fn) is types.FunctionType:
            return max(1, fn.__code__.co_argcount - len(fn.__defaults__ or ()) - taken)
        else:
            inside = resolve(type(fn), "attr", "__call__")
            if is_a(fn, type):
                inside = resolve(fn, "attr", "__init__")
            if type(inside) is not types.FunctionType:
                break
            taken += 1
            fn = inside
    return 1


def _holds(marks: tuple[_Mark, ...], fn: Any, args: tuple[Any, ...]) -> bool:
    """Whether all that a remembered scan relied on is still so."""
    objects: list[Any] = []
    count = 0
    for parent, kind, key, mark in marks:
        if parent >= 0:
            obj = resolve(objects[parent], kind, key)
        elif kind == "fn":
            obj = fn
        else:
            if key >= len(args):
                return False
            count += 1
            obj = args[key]
        if mark_of(obj) is not mark:
            return False
        objects.append(obj)
    return count == len(args)


def _scan_anew(fn: Any, args: tuple[Any, ...], steps: int) -> tuple[Effects, tuple[_Mark, ...]]:
    work = Scan(fn, args, steps)
    opaque = False
    returned = PLAIN
    try:
        returned = work.run()
    except (TooBig, RecursionError):
        opaque = True
    findings = _findings(fn, weigh(work, returned))
    reads = tuple(GlobalRead(*each) for each in work.globals_read)
    marks = tuple(_mark(node) for node in work.trail)
    for node in work.trail:
        node.obj = None  # a remembered path must not keep the user's data alive
    return Effects(findings, reads, opaque), marks


def _mark(node: Outer) -> _Mark:
    return (-1 if node.parent is None else node.parent.index, node.kind, node.key, node.mark)


def _findings(fn: Any, judged: list[Judged]) -> tuple[Finding, ...]:
    found: dict[Finding, None] = {}
    for event, kind, guarded, constant in judged:
        code = event.frame.code.raw
        name: str = event.frame.label.rpartition("<locals>.")[2]
        line = line_of(code, event.frame.code.instructions[event.at].offset)
        filename = code.co_filename
        if not event.frame.callers:  # the callable itself has no bytecode
            name, line, filename = getattr(fn, "__qualname__", type(fn).__qualname__), 0, ""
        watched = event.slot if event.shape == "rebind" else event.node
        path = watched.path() if watched is not None else ()
        target = "the item" if event.node is not None and event.node.is_item else event.target
        finding = Finding(
            kind, target, name, filename, line, event.how, guarded, constant, root=path
        )
        found.setdefault(finding)
    return tuple(found)


# ---------------------------------------------------------------- watching


class Observer:
    """Compares the state that the findings name before and after each of the first items."""

    __slots__ = ("_args", "_fn", "_history", "_old", "_paths")

    def __init__(self, fn: Callable[..., Any], effects: Effects) -> None:
        self._fn = fn
        self._paths: tuple[Path, ...] = tuple(
            dict.fromkeys(finding.root for finding in effects.findings)
        )
        self._args: tuple[Any, ...] = ()
        self._old: list[State] | None = None
        self._history: tuple[bool, ...] = ()

    def before(self, args: tuple[Any, ...]) -> None:
        """Look at the state, just before `fn(*args)` is called."""
        self._args = args
        self._old = self._look()

    def after(self) -> bool:
        """Look again, just after; whether anything changed."""
        old, self._old = self._old, None
        changed = old is not None and self._changed_since(old)
        self._args = ()
        self._history = (*self._history, changed)
        return changed

    @property
    def history(self) -> tuple[bool, ...]:
        """One entry for each item watched: whether it changed anything."""
        return self._history

    def _look(self) -> list[State]:
        try:
            return [
                fingerprint(path, self._fn, self._args) if path else ([], [float("nan")])
                for path in self._paths
            ]
        except Exception:  # noqa: BLE001
            # A container that another thread changes while it is read: it does change, then.
            return [([], [float("nan")])]

    def _changed_since(self, old: list[State]) -> bool:
        new = self._look()
        return len(old) != len(new) or any(map(differs, old, new))


# ---------------------------------------------------------------- the table


def judge(effects: Effects, history: Sequence[bool]) -> Verdict:
    """Where the callable may run, given its code and what the first items changed."""
    findings = effects.findings
    if effects.opaque:
        worst = _worst(findings)
        if worst is not None:
            return _keep(worst, settled=True)
        reason = (
            "its code is too big, or made at run time, to be looked through for side effects; "
            "pass backend='processes' if it has none"
        )
        return Verdict("process", reason, None, True)
    if not findings:
        return Verdict("free", "", None, True)
    open_ones = tuple(each for each in findings if not _is_over(each, history))
    worst = _worst(open_ones)
    if worst is None:
        first = findings[0]
        reason = (
            f"`{first.function}` fills `{first.target}` only once; each worker fills its own"
            if any(history)
            else f"`{first.function}` would change `{first.target}` only in a state it is not in"
        )
        return Verdict("free", reason, first, True)
    may_end = all(each.guarded or each.constant for each in findings)
    return _keep(worst, settled=not may_end or len(history) >= _LAST_LOOK)


def _is_over(finding: Finding, history: Sequence[bool]) -> bool:
    """Whether the items watched show that a finding will not happen (again)."""
    changes = sum(history)
    quiet = 0
    for changed in reversed(history):
        if changed:
            break
        quiet += 1
    if finding.constant:
        # Only state decides, and a quiet item has left the state as it found it.
        enough = max(1, changes) if finding.guarded and changes else _QUIET
        return quiet >= enough
    return finding.guarded and changes > 0 and quiet >= max(_QUIET, changes)


def _worst(findings: Sequence[Finding]) -> Finding | None:
    for finding in findings:
        if finding.kind == "update":
            return finding
    return findings[0] if findings else None


def _keep(finding: Finding, *, settled: bool) -> Verdict:
    instead = "return the changed item" if finding.target == "the item" else "return the value"
    other = ", or pass backend='processes'"
    if finding.shared:
        other = "; processes would race for it as well"
    reason = f"{finding}; {instead} instead{other}"
    limit: Literal["process", "loop"] = "loop" if finding.kind == "update" else "process"
    return Verdict(limit, reason, finding, settled)
