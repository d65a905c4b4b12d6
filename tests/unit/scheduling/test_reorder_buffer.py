"""Finished items until they are delivered: values, exceptions with their item, nothing kept."""

from __future__ import annotations

import weakref

import jobs
import pytest
from helpers.backends import notes_of

from parallax import RemoteTraceback, SerializationError
from parallax._core.chunks import ChunkResult, Failure
from parallax._scheduling.reorder_buffer import ReorderBuffer, prepare


def result(values, *failures):
    return ChunkResult(list(values), failures, 0.1, 0.1, 0.1)


def test_values_of_several_chunks():
    """Chunks that came in any order are taken as one run of items."""
    buffer = ReorderBuffer()
    assert buffer.put(2, result("cd")) is None
    assert buffer.put(0, result("ab")) is None
    buffer.put_one(4, "e")
    assert buffer.take(0, 5) == ["a", "b", "c", "d", "e"]


def test_failures_stand_in_their_place():
    """An exception is the value of its item, with a note, and is known by its index."""
    buffer = ReorderBuffer()
    error = jobs.Oops(4)
    assert buffer.put(3, result([1, None, 3], Failure(1, error, "text"))) is None
    assert buffer.take(3, 3) == [1, error, 3]
    assert buffer.errors == {4: error}
    assert notes_of(error) == ["parallax: raised by item 4"]
    assert isinstance(error.__cause__, RemoteTraceback)
    assert error.__cause__.text == "text"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_interrupts_end_the_run(error):
    """What is not an ``Exception`` is given back, for the run to end with."""
    buffer = ReorderBuffer()
    assert buffer.put(0, result([None], Failure(0, error))) is error


def test_delivered_values_are_let_go():
    """A value that was taken is referenced no more."""
    buffer = ReorderBuffer()
    things = [jobs.Thing(1), jobs.Thing(2)]
    refs = [weakref.ref(t) for t in things]
    buffer.put(0, result(things[:1]))
    buffer.put(1, result(things[1:]))
    del things
    values = buffer.take(0, 2)
    del values
    assert [ref() for ref in refs] == [None, None]


def test_an_own_cause_is_kept_in_this_process():
    """Without a remote traceback the exception's own cause stays."""
    error = jobs.Oops(1)
    error.__cause__ = KeyError("why")
    prepare(Failure(0, error), 0)
    assert isinstance(error.__cause__, KeyError)


def test_serialization_errors_learn_their_item():
    """A worker does not know indexes; the message gets them here."""
    error = prepare(Failure(0, SerializationError("result", None, "result.x", "why")), 12)
    assert isinstance(error, SerializationError)
    assert error.index == 12
    assert "the result of item 12" in str(error)


def test_an_exception_that_takes_no_notes():
    """One whose class refuses attributes keeps its type and goes without a note."""

    class ClosedError(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

        def add_note(self, note):
            raise TypeError(note)

    error = ClosedError()
    assert prepare(Failure(0, error, ""), 0) is error
