"""What a process may do, which its children inherit: ids, root folder, capabilities; and limits.

Guarantees: looking never raises; without a system that tells, everything counts as equal.
"""

from __future__ import annotations

import os
import sys

from parallax._core.light_stdlib import Any, NamedTuple, TypeAlias, signals

#: Real, effective and saved user and group ids, and the supplementary groups.
Ids: TypeAlias = "tuple[tuple[int, ...], ...]"

#: Lines of the system's status of a thread that say what it is allowed.
_CONFINEMENT = (b"Cap", b"NoNewPrivs", b"Seccomp:")

#: What cannot be blocked, and SIGINT: workers leave Ctrl-C to the program.
_UNTOUCHED = frozenset(
    int(getattr(signals, name))
    for name in ("SIGKILL", "SIGSTOP", "SIGINT")
    if hasattr(signals, name)
)

#: A lower limit on open files is not taken over: a worker needs some for itself.
MIN_OPEN_FILES = 64

_seen: list[bytes] = []


class Rights(NamedTuple):
    """What a process has from its birth, and may not be able to take over later."""

    ids: Ids
    #: root folder and capabilities.
    confinement: tuple[Any, ...]


def own_ids() -> Ids:
    """The ids of this process now: about a microsecond."""
    if hasattr(os, "getresuid"):
        return os.getresuid(), os.getresgid(), tuple(os.getgroups())
    if hasattr(os, "getuid"):  # macOS
        return (os.getuid(), os.geteuid()), (os.getgid(), os.getegid())
    return ()


def own_rights() -> Rights:
    root = os.stat("/")
    confined = [line for line in _status() if line.startswith(_CONFINEMENT)]
    return Rights(own_ids(), (root.st_dev, root.st_ino, *confined))


def can_assume(ids: Ids) -> bool:
    """Whether this process could take those ids; if not, it has given them up for good."""
    users = {user for current in own_ids()[:1] for user in current}
    return 0 in users or all(user in users for current in ids[:1] for user in current)


def why_not_inherited(rights: Rights) -> str:
    """Why a process that is executed now would not have those rights; "" if it would."""
    if rights.ids != own_ids():
        return "the program has other user or group ids than at the call"
    if any(saved not in current for *current, saved in rights.ids[:2] if len(current) == 2):
        return "an executed process cannot have the saved user or group id of the program"
    return ""


def assume_ids(ids: Ids) -> None:
    """Have those ids in a process that was just executed, which changes the saved ones."""
    if ids != own_ids() and ids and hasattr(os, "setresuid"):
        os.setresgid(*ids[1])
        os.setresuid(*ids[0])
    if ids != own_ids():
        raise PermissionError(f"this process has the ids {own_ids()}, and was to have {ids}")


def habits() -> tuple[Any, ...] | None:
    """The umask, limits, niceness, cores, blocked and ignored signals, which can be taken over."""
    if not hasattr(signals, "pthread_sigmask"):
        return None
    masks = [int(line[6:], 8) for line in _status() if line.startswith(b"Umask:")]
    umask = masks[0] if masks else os.umask(0o077)
    if not masks:  # there is no other way to read it
        os.umask(umask)
    blocked = {int(number) for number in signals.pthread_sigmask(signals.SIG_BLOCK, ())}
    numbers = signals.valid_signals() - _UNTOUCHED
    ignored = {int(n) for n in numbers if signals.getsignal(n) == signals.SIG_IGN}
    return umask, *_limits(), sorted(blocked - _UNTOUCHED), sorted(ignored)


def _limits() -> tuple[dict[str, tuple[int, int]], int, set[int] | None]:
    import resource

    # There OFILE is another name of NOFILE.
    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and name[7:] != "OFILE"]
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in names}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return limits, os.getpriority(os.PRIO_PROCESS, 0), cores


def take_over(wanted: tuple[Any, ...], kept: set[int]) -> bool:
    """Have the ``habits`` of another process, but for ``kept`` signals; False if refused."""
    umask, limits, niceness, cores, blocked, ignored = wanted
    os.umask(umask)
    signals.pthread_sigmask(signals.SIG_SETMASK, set(blocked) - kept)
    for number in signals.valid_signals() - _UNTOUCHED - kept:
        is_ignored = signals.getsignal(number) == signals.SIG_IGN
        if (number in ignored) != is_ignored:
            signals.signal(number, signals.SIG_IGN if number in ignored else signals.SIG_DFL)
    own, *others = _limits()
    if 0 <= limits.get("RLIMIT_NOFILE", (-1,))[0] < MIN_OPEN_FILES:
        limits = {**limits, "RLIMIT_NOFILE": own["RLIMIT_NOFILE"]}
    try:
        if own != limits:
            import resource

            for name in limits:
                resource.setrlimit(getattr(resource, name), limits[name])
        if others != [niceness, cores]:
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
            if cores is not None:
                os.sched_setaffinity(0, cores)
    except (OSError, ValueError):  # a limit or niceness that only a new process has
        return False
    return True


def _status() -> list[bytes]:
    """Lines about this thread; those that were read last if no descriptor is left."""
    # An interrupt could leave the descriptor open. Workers, which have not loaded that module, are
    # not interrupted here.
    deferred = sys.modules.get("parallax._core.deferred_signals")
    if deferred is None:
        return _read_status()
    with deferred.Shield():
        return _read_status()


def _read_status() -> list[bytes]:
    global _seen  # noqa: PLW0603 - a cache
    try:
        fd = os.open("/proc/thread-self/status", os.O_RDONLY)
    except OSError:
        return _seen
    try:
        _seen = os.read(fd, 1 << 14).splitlines()
    finally:
        os.close(fd)
    return _seen
