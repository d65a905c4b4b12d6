"""Named tuples that are made without compiling code are those of ``collections``."""

from __future__ import annotations

import collections
import copy
import pickle

import pytest

from parallax._core.light_stdlib import NamedTuple


class Point(NamedTuple):
    """Where something is."""

    x: int
    y: int = 2
    label: str = ""

    @property
    def far(self):
        return self.x > 10


Standard = collections.namedtuple("Point", ["x", "y", "label"], defaults=[2, ""])


@pytest.mark.parametrize("given", [(1,), (1, 3), (1, 3, "a")])
def test_values(given):
    """Fields, comparison, printing, copies."""
    point, standard = Point(*given), Standard(*given)
    assert point == standard == tuple(point)
    assert repr(point) == repr(standard)
    assert point._asdict() == standard._asdict()
    assert point._replace(x=11) == standard._replace(x=11)
    assert point._replace(x=11).far
    assert type(point._replace(x=11)) is Point
    for again in (pickle.loads(pickle.dumps(point)), copy.copy(point), Point._make(point)):
        assert again == point
        assert type(again) is Point
    assert (point.x, point.y, point.label) == tuple(standard)
    assert not hasattr(point, "__dict__")


def test_classes():
    """What the class tells of itself, and what it refuses."""
    for name in ("_fields", "_field_defaults", "__match_args__"):
        assert getattr(Point, name) == getattr(Standard, name)
    assert (Point.__name__, Point.__module__, Point.__doc__) == (
        "Point",
        __name__,
        "Where something is.",
    )
    assert Point(x=1, label="b") == (1, 2, "b")
    for kind in (Point, Standard):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
            kind()
        with pytest.raises(TypeError):
            kind(1, 2, 3, 4)
        with pytest.raises(TypeError):
            kind(1, z=2)
        with pytest.raises(TypeError, match="Expected 3 arguments, got 1"):
            kind._make([1])
        with pytest.raises((ValueError, TypeError), match="Got unexpected field names"):
            kind(1)._replace(z=2)
        with pytest.raises(AttributeError):
            kind(1).x = 2
