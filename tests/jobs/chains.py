"""Exceptions that are chained to others, for the tests of what travels with them."""

from __future__ import annotations

import builtins
import functools
import threading

import jobs


class Strict(Exception):  # noqa: N818
    """Pickles, and does not unpickle."""

    def __init__(self, *, code):
        super().__init__(code)
        self.code = code

    def __reduce__(self):
        return Strict, self.args


class Worded(Exception):  # noqa: N818
    """Pickle would make its text twice."""

    def __init__(self, code):
        super().__init__(f"error {code}")
        self.code = code


class Keyworded(Exception):  # noqa: N818
    def __init__(self, *, code):
        super().__init__("keyword")
        self.code = code


class Silent(Exception):  # noqa: N818
    def __init__(self, code, more=None):
        super().__init__()
        self.code = code, more


class Slots(Exception):  # noqa: N818
    __slots__ = ("code",)

    def __init__(self, code, more):
        super().__init__(more)
        self.code = code


class Lost(OSError):  # noqa: N818
    def __init__(self, code):
        super().__init__(2, "lost", code)
        self.code = code


class Newly(Exception):  # noqa: N818
    def __new__(cls, code, more):
        return super().__new__(cls, more)

    def __init__(self, code, more):
        self.code = code


OTHER_ARGUMENTS = {
    "text": functools.partial(Worded, 1),
    "keyword": functools.partial(Keyworded, code=2),
    "none": functools.partial(Silent, 3),
    "slots": functools.partial(Slots, 4, "more"),
    "c": functools.partial(Lost, "5"),
    "new": functools.partial(Newly, 6, "more"),
    "reduced": functools.partial(jobs.Oops, 7, "more"),
}


def raises_other_arguments(how, _):
    raise OTHER_ARGUMENTS[how]() from KeyError("root")


class Forgetful(Exception):  # noqa: N818
    """Its ``__reduce__`` drops all but the arguments."""

    def __reduce__(self):
        return Forgetful, self.args


class Slotted(Exception):  # noqa: N818
    __slots__ = ("extra",)

    def __init__(self, extra):
        super().__init__(extra)
        self.extra = extra


def noted(error, *notes):
    """An exception with notes, on 3.10 too."""
    error.__notes__ = [*notes]
    return error


def raised(error):
    """An exception with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def by_cause(_):
    try:
        try:
            raise KeyError("inner", 1)
        except KeyError as error:
            raise noted(jobs.Oops(2), "of the middle") from error
    except jobs.Oops as error:
        raise noted(ValueError("outer"), "first", "second") from error


def by_context(_):
    try:
        raise jobs.Oops(2)
    except jobs.Oops:
        raise ValueError("outer")  # noqa: B904


def hidden(_):
    try:
        raise jobs.Oops(2)
    except jobs.Oops:
        raise ValueError("outer") from None


def circle(_):
    first, second = jobs.Oops(1), jobs.Oops(2)
    first.__cause__, second.__cause__ = second, first
    raise first


def shared(_):
    """Cause and context are one object, and that object's context is another one."""
    try:
        raise jobs.Oops(1)
    except jobs.Oops as error:
        raise ValueError("outer") from error


def long(_):
    error = ValueError(0)
    for number in range(1, 5000):
        following = ValueError(number)
        following.__context__ = error
        error = following
    raise error


def stuck_cause(how):
    error = {"strict": Strict(code=1), "lock": ValueError(threading.Lock())}[how]
    error.__cause__ = KeyError("root")
    raise noted(jobs.Oops(1), "kept") from error


def stuck_itself(_):
    raise noted(Strict(code=1), "kept") from KeyError("root")


def forgetful(_):
    raise noted(Forgetful(1), "kept") from noted(Forgetful(2), "kept, too")


def group(_):
    members = [raised(noted(ValueError(1), "of a member")), KeyError(2)]
    members[1].__cause__ = jobs.Oops(3)
    inner = builtins.ExceptionGroup("inner", [members[1]])
    raise builtins.ExceptionGroup("outer", [members[0], inner]) from KeyError("why")


def group_of_other_arguments(_):
    raise builtins.ExceptionGroup("outer", [make() for make in OTHER_ARGUMENTS.values()])


def group_with_a_stuck_member(_):
    raise builtins.ExceptionGroup("outer", [raised(Strict(code=1)), ValueError(2)])


def raises(error, _):
    raise error


def makes_lock(_):
    return threading.Lock()
