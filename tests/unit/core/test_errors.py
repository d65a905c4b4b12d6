"""The errors: fields, words that say what to do next, and the way through a pickle."""

from __future__ import annotations

import copy
import pickle
import signal
from concurrent.futures import BrokenExecutor

import pytest

import parallax
from parallax._core.errors import exit_reason

CASES = [
    (
        parallax.WorkerDiedError,
        {"index": 7, "pid": 123, "exitcode": -9, "attempts": 3},
        [
            "process 123",
            "item 7",
            "SIGKILL",
            "out-of-memory",
            "3 attempts",
            "on_error='return'",
            "retries",
        ],
        (BrokenExecutor, parallax.ParallaxError),
    ),
    (
        parallax.WorkerDiedError,
        {"index": None, "pid": None, "exitcode": None, "attempts": None},
        ["its worker process", "an item", "not known"],
        (BrokenExecutor,),
    ),
    (
        parallax.WorkerStartError,
        {"method": "spawn", "detail": "no room"},
        ["'spawn'", "no room", "limits", "backend='threads'"],
        (BrokenExecutor,),
    ),
    (
        parallax.ItemTimeoutError,
        {"index": 3, "seconds": 1.5, "pid": 9},
        ["item 3", "item_timeout=1.5", "process 9", "the other items are not affected"],
        (TimeoutError,),
    ),
    (
        parallax.SerializationError,
        {"what": "result", "index": 4, "path": "result['a']", "reason": "no locks"},
        ["the result of item 4", "result['a']", "no locks", "backend='threads'"],
        (pickle.PicklingError,),
    ),
    (
        parallax.SerializationError,
        {"what": "callable", "index": None, "path": "callable", "reason": "no locks"},
        ["the callable cannot travel", "no locks"],
        (),
    ),
    (
        parallax.SerializationError,
        {"what": "item", "index": 0, "path": "item", "reason": "no locks"},
        ["item 0 cannot travel"],
        (),
    ),
    (
        parallax.BackendMissingError,
        {"feature": "progress=True", "package": "tqdm"},
        ["progress=True", "pip install tqdm"],
        (ImportError,),
    ),
]


@pytest.mark.parametrize(("kind", "fields", "words", "bases"), CASES)
def test_fields_words_and_pickle(kind, fields, words, bases):
    """Fields are there by name and by position, the message is made of them, all survive."""
    by_name, by_position = kind(**fields), kind(*fields.values())
    for error in (by_name, by_position, pickle.loads(pickle.dumps(by_name)), copy.copy(by_name)):
        assert type(error) is kind
        assert {name: getattr(error, name) for name in fields} == fields
        for word in words:
            assert word in str(error)
    assert issubclass(kind, (*bases, parallax.ParallaxError))
    assert all(issubclass(kind, base) for base in bases)


def test_notes_survive_a_pickle():
    """So does what was added later."""
    error = parallax.WorkerDiedError(1, 2, 3, 1)
    error.__notes__ = ["a note"]
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["a note"]


def test_every_error_is_public():
    """Each class of the module can be caught by a name of the package."""
    from parallax._core import errors

    for name in errors.__all__:
        assert getattr(parallax, name) is getattr(errors, name)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "not known"),
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-signal.SIGSEGV, "SIGSEGV"),
        (-signal.SIGABRT, "SIGABRT"),
        (-signal.SIGTERM, "asked it to end"),
        (-63, "63"),
        (-250, "signal 250"),
        (0xC0000005, "access violation: a crash in native code (0xc0000005)"),
        (0xC0000999, "ended with status (0xc0000999)"),
    ],
)
def test_exit_reason(code, words):
    """However a process ended, there are words for it."""
    assert words in exit_reason(code)
    assert "callable" not in exit_reason(code, at_work=False)


def test_remote_traceback():
    """It prints as the standard library's does."""
    error = parallax.RemoteTraceback("Traceback: here\n")
    assert str(error) == '\n"""\nTraceback: here\n"""'
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
