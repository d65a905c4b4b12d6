"""The guard: decides whether a callable may leave the caller's process, or even its thread.

Two kinds of evidence: what the code does to state outside the call (`scan`, from the bytecode of
the callable and of the program's own functions that it calls), and what the first items did to
that state (`Observer`). `judge` combines both into a `Verdict` by the table of docs/design.md.

Guarantees: no code of the program is run; nothing raises. What cannot be analysed is `opaque`.
Assumes: a scan's result is valid as long as the marks of its trail (types, code) are unchanged.
"""

from __future__ import annotations

import functools
import types

from parallax._core.light_stdlib import TYPE_CHECKING, NamedTuple
from parallax._guard.code import line_of
from parallax._guard.evidence import weigh
from parallax._guard.fingerprint import differs, fingerprint, follow, unwatchable
from parallax._guard.frame import TooBig
from parallax._guard.lookup import UNKNOWN_OBJECT, is_a, is_seeded, mark_of, resolve
from parallax._guard.mutators import DRAWS
from parallax._guard.scan import Scan
from parallax._guard.values import PLAIN_VALUE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, Literal, TypeAlias

    from parallax._guard.evidence import Judged
    from parallax._guard.fingerprint import Path, State

__all__ = [
    "DRAWS", "OPEN", "SCAN_STEPS", "SEED_ADVICE", "Effects", "Finding", "GlobalRead", "Observer",
    "Verdict", "except_shared", "follow", "judge", "restrict", "scan", "seen", "with_finding",
]  # fmt: skip

# The target of a change of the item itself.
ITEM: Final = "the item"
# Items without a change after which a cache counts as filled. Smaller: a change that comes with
# every third item is taken for one; larger: items run in the caller that workers could have.
_UNCHANGED_ITEMS: Final = 2
# Steps of a scan, of about 5 us each. Smaller: programs of a few hundred functions count as too big
# to be analysed; larger: the first scan of such a program takes longer than it could save.
SCAN_STEPS: Final = 20_000
_KINDS: Final = ("grow", "order", "update")
# The limits under which worker processes may be used.
OPEN: Final = ("free", "apart")
SEED_ADVICE: Final = (
    "pass seed=0 for numbers that are the same in every run, or seed=True for any numbers"
)
# Smaller: caches that fill over several items are given up too early; larger: a callable that
# might go to processes is kept back for longer.
_MAX_UNSETTLED_ITEMS: Final = 8
# Scans remembered. Smaller: programs of many callables are scanned again; larger: more memory.
_MAX_SCANNED: Final = 512
# Scans remembered of one callable, for different types of arguments and captured variables.
_MAX_VARIANTS: Final = 4


class GlobalRead(NamedTuple):
    """Module-level data that the callable reads: workers need its current value."""

    module: str
    name: str


class Finding(NamedTuple):
    """One place in the code that changes something from outside the call."""

    kind: Literal["grow", "order", "update", "apart"]
    """`update` if threads would race (read, change, write); `order` if what is left shows who came
    first or last; else `grow`; `apart` if only threads would notice, because each process has such
    state of its own and an item restores it."""
    target: str
    """What is changed, in the user's words."""
    function: str
    """The function that contains the code."""
    filename: str
    line: int
    """0 where there is no line, as for a bound method of a builtin type."""
    how: str
    """The verb: `f` *appends to* `log`."""
    guarded: bool = False
    """The change only happens while the state it sets is unset: a lazily filled cache."""
    constant: bool = False
    """Whether the change happens does not depend on the item."""
    shared: bool = False
    """What is changed is in memory that all processes share."""
    root: Path = ()
    """Where the changed object is found, as a path from the callable or an argument."""
    item: int = -1
    """The first item at which the change was seen, if it was found by what happened."""

    @property
    def draws(self) -> bool:
        """Whether it is numbers that are drawn from a generator."""
        return self.how == DRAWS

    def __str__(self) -> str:
        seen = f" (seen at item {self.item})" if self.item >= 0 else ""
        where = f" (line {self.line})" if self.line else seen
        who = f"`{self.function}`" if self.function else "the input"
        return f"{who} {self.how} `{self.target}`{where}"


class Effects(NamedTuple):
    """What the code of a callable does to state outside a call."""

    findings: tuple[Finding, ...] = ()
    reads: tuple[GlobalRead, ...] = ()
    opaque: bool = False
    """Some of the program's own code could not be analysed."""


class Verdict(NamedTuple):
    """Where a callable may run."""

    limit: Literal["free", "apart", "process", "loop"]
    """Anywhere, one item of each process at a time, in this process, or in the caller's thread."""
    reason: str
    """The reason in words; empty where no evidence was found."""
    finding: Finding | None
    """The evidence that decided."""
    settled: bool
    """False while watching more items could still change the verdict."""


def except_shared(effects: Effects, fn: Callable[..., Any], args: tuple[Any, ...]) -> Effects:
    """The same effects without those on memory that all processes share.

    Each item's own place in such an array may be filled by any process. A change that threads would
    race for (``counts[k] += 1``) stays a finding: processes would race for it as well.
    """
    if not effects.findings:
        return effects
    # Imported here: most programs share no memory, and most callables have no finding.
    from parallax._shm.registry import any_shared, is_shared_writable

    if not any_shared():
        return effects
    kept = []
    for finding in effects.findings:
        if not finding.root or not is_shared_writable(follow(finding.root, fn, args)):
            kept.append(finding)
        elif finding.kind != "grow":
            kept.append(finding._replace(shared=True))
    return effects._replace(findings=tuple(kept))


# One object that a scan relied on: the index of its parent, the step from there, and its mark.
_Mark: TypeAlias = "tuple[int, str, Any, Any]"
# The marks that must be unchanged, the result, and the steps that the scan was allowed.
_Entry: TypeAlias = "tuple[tuple[_Mark, ...], Effects, int]"
_scanned: dict[Any, tuple[_Entry, ...]] = {}


def scan(
    fn: Callable[..., Any], sample: tuple[Any, ...] | None = None, *, steps: int = SCAN_STEPS
) -> Effects:
    """What the code of `fn` may do to state outside one call of `fn`.

    `sample` has the arguments of one call, for their types: `x += 1` changes a list and not a
    number; None if the types are unknown. After `steps` instructions the code counts as opaque.
    """
    try:
        args = (UNKNOWN_OBJECT,) * _arity(fn) if sample is None else sample
        key = _key_of(fn)
        entries = _scanned.get(key, ())
        for marks, effects, spent in entries:
            if (spent >= steps or not effects.opaque) and _holds(marks, fn, args):
                return effects
        effects, marks = _scan_anew(fn, args, steps)
        if len(_scanned) >= _MAX_SCANNED:
            _scanned.clear()
        _scanned[key] = ((marks, effects, steps), *entries)[:_MAX_VARIANTS]
    except Exception:  # noqa: BLE001
        # A callable of an unforeseen kind must not fail the run: it stays in the process instead.
        return Effects(opaque=True)
    return effects


def _unwrap(fn: Any) -> tuple[Any, tuple[int | str, ...]]:
    """The callable inside partials and methods, and what these bind: numbers and names."""
    bound: tuple[int | str, ...] = ()
    for _ in range(8):
        if is_a(fn, functools.partial):
            # If a partial binds less, a default is used, and no mark records that.
            bound += (len(fn.args) - is_seeded(fn), *fn.keywords)
            fn = fn.func
        elif type(fn) is types.MethodType:
            bound += (1,)
            fn = fn.__func__
        else:
            break
    return fn, bound


def _key_of(fn: Any) -> Any:
    fn, bound = _unwrap(fn)
    if type(fn) is types.FunctionType:
        return id(fn.__code__), bound
    return (id(fn) if is_a(fn, type) else id(type(fn))), bound


def _arity(fn: Any) -> int:
    """The least number of arguments of a call; 1 where that cannot be told."""
    fn, bound = _unwrap(fn)
    if type(fn) is not types.FunctionType:
        is_class = is_a(fn, type)
        fn = resolve(fn, "attr", "__init__") if is_class else resolve(type(fn), "attr", "__call__")
        bound += (1,)
        if type(fn) is not types.FunctionType:
            return 1
    taken = sum(each for each in bound if type(each) is int)
    return max(1, fn.__code__.co_argcount - len(fn.__defaults__ or ()) - taken)


def _holds(marks: tuple[_Mark, ...], fn: Any, args: tuple[Any, ...]) -> bool:
    """Whether everything that an earlier scan relied on is unchanged."""
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
    analysis = Scan(fn, args, steps)
    opaque = False
    returned = PLAIN_VALUE
    try:
        returned = analysis.run()
    except (TooBig, RecursionError):
        opaque = True
    findings = _findings(fn, weigh(list(analysis.events.values()), returned))
    if is_seeded(fn):
        # It draws from a stream of each item's own, and leaves the generator as it was.
        findings = tuple(
            each._replace(kind="apart") if each.draws and each.target != ITEM else each
            for each in findings
        )
    reads = tuple(GlobalRead(*each) for each in (*analysis.globals_read, *analysis.definitions()))
    marks = tuple(
        (-1 if node.parent is None else node.parent.index, node.kind, node.key, node.mark)
        for node in analysis.trail
    )
    for node in analysis.trail:
        node.obj = None  # a cached path must not keep the user's data alive
    return Effects(findings, reads, opaque), marks


def _findings(fn: Any, judged: list[Judged]) -> tuple[Finding, ...]:
    found: dict[Any, Finding] = {}
    for event, kind, guarded, constant in judged:
        code = event.frame.code.raw
        name: str = event.frame.func.label.rpartition("<locals>.")[2]
        line = line_of(code, event.frame.code.instructions[event.at].offset)
        filename = code.co_filename
        if not event.frame.callers:  # the callable itself has no bytecode
            name, line, filename = getattr(fn, "__qualname__", type(fn).__qualname__), 0, ""
        watched = event.slot if event.shape == "rebind" else event.node
        path = watched.path() if watched is not None else ()
        target = ITEM if event.node is not None and event.node.is_item else event.target
        finding = Finding(
            kind, target, name, filename, line, event.how, guarded, constant, root=path
        )
        found.setdefault(finding[:-1], finding)  # of several roots, the first one
    return tuple(found.values())


class Observer:
    """Compares the state that the findings name before and after each of the first items."""

    __slots__ = ("_args", "_fn", "_old", "_paths", "history")

    def __init__(self, fn: Callable[..., Any], effects: Effects) -> None:
        self._fn = fn
        roots = (finding.root for finding in effects.findings if finding.kind != "apart")
        self._paths = tuple(dict.fromkeys(roots))
        self._args: tuple[Any, ...] = ()
        self._old: list[State] = []
        #: For each watched item, whether it changed anything.
        self.history: tuple[bool, ...] = ()

    def before(self, args: tuple[Any, ...]) -> None:
        """Take the fingerprints, just before `fn(*args)` is called."""
        self._args = args
        self._old = self._look()

    def after(self) -> bool:
        """Whether anything changed, just after the call."""
        old, new = self._old, self._look()
        changed = bool(old) and (len(old) != len(new) or any(map(differs, old, new)))
        self._old, self._args = [], ()
        self.history = (*self.history, changed)
        return changed

    def _look(self) -> list[State]:
        try:
            return [fingerprint(path, self._fn, self._args) for path in self._paths]
        except Exception:  # noqa: BLE001
            # Another thread changes a container while it is read, so it counts as changed.
            return [unwatchable()]


def seen(fn: Any, how: str, target: str, kind: Literal["update", "apart"]) -> Finding:
    """The finding that items were seen to do something."""
    code = getattr(_unwrap(fn)[0], "__code__", None)
    name = getattr(_unwrap(fn)[0], "__qualname__", type(fn).__qualname__)
    name = name.rpartition("<locals>.")[2]
    filename, line = (code.co_filename, code.co_firstlineno) if code is not None else ("", 0)
    return Finding(kind, target, name, filename, line, how)


def judge(effects: Effects, history: Sequence[bool]) -> Verdict:
    """Where the callable may run, given its code and what the first items changed."""
    apart = next((each for each in effects.findings if each.kind == "apart"), None)
    if apart is None:
        return _judge(effects, history)
    rest = tuple(each for each in effects.findings if each.kind != "apart")
    verdict = _judge(effects._replace(findings=rest), history)
    return with_finding(verdict, apart)


def with_finding(verdict: Verdict, finding: Finding) -> Verdict:
    """A verdict that is not `loop` with one more piece of evidence."""
    if finding.kind != "apart":
        return restrict(finding, settled=True)
    if verdict.limit == "free":
        return verdict._replace(limit="apart", reason=f"{finding}, which all threads share")
    # What must stay in the process cannot be kept from other threads but in the loop.
    return verdict if verdict.limit in OPEN else verdict._replace(limit="loop")


def _judge(effects: Effects, history: Sequence[bool]) -> Verdict:
    findings = effects.findings
    if effects.opaque:
        worst = _worst(findings)
        if worst is not None:
            return restrict(worst, settled=True)
        reason = (
            "its code is too big to be checked for side effects; "
            "pass backend='processes' if it has none"
        )
        return Verdict("process", reason, None, True)
    if not findings:
        return Verdict("free", "", None, True)
    open_findings = tuple(each for each in findings if not _has_ended(each, history))
    worst = _worst(open_findings)
    if worst is None:
        first = findings[0]
        reason = (
            f"`{first.function}` fills `{first.target}` only once; each worker fills its own"
            if any(history)
            else f"`{first.function}` would change `{first.target}` only in a state it is not in"
        )
        return Verdict("free", reason, first, True)
    may_end = all(each.guarded or each.constant for each in findings)
    return restrict(worst, settled=not may_end or len(history) >= _MAX_UNSETTLED_ITEMS)


def _has_ended(finding: Finding, history: Sequence[bool]) -> bool:
    """Whether the items watched show that a finding will not happen (again)."""
    changes = sum(history)
    unchanged = next((k for k, changed in enumerate(reversed(history)) if changed), len(history))
    if finding.constant:
        # Only state decides, and an item without a change has left the state as it was.
        enough = max(1, changes) if finding.guarded and changes else _UNCHANGED_ITEMS
        return unchanged >= enough
    return finding.guarded and changes > 0 and unchanged >= max(_UNCHANGED_ITEMS, changes)


def _worst(findings: Sequence[Finding]) -> Finding | None:
    """The first update, else the first one whose order shows, else the first of all."""
    return max(findings, key=lambda each: _KINDS.index(each.kind), default=None)


def restrict(finding: Finding, *, settled: bool) -> Verdict:
    """The verdict that follows from one finding."""
    if finding.draws and finding.target != ITEM:
        return Verdict("loop", f"{finding}; {SEED_ADVICE}", finding, settled)
    if not finding.function:
        return Verdict("loop", f"{finding}; pass it as part of the items instead", finding, settled)
    instead = "return the changed item" if finding.target == ITEM else "return the value"
    races = "; processes would race for it as well"
    other = races if finding.shared else ", or pass backend='processes' if nobody needs it"
    limit: Literal["process", "loop"] = "process" if finding.kind == "grow" else "loop"
    return Verdict(limit, f"{finding}; {instead} instead{other}", finding, settled)
