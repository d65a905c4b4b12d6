"""The state of the process that items may change, and what imports in items change of it."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings

import pytest

from parallax._guard.net import Mesh, Net
from parallax._guard.process_state import ProcessWatch

CHANGES = {
    "the warnings filters": "warnings.filterwarnings('ignore', 'of a test {}')",
    "os.environ": "os.environ['PARALLAX_OF_A_TEST'] = '{}'",
    "sys.path": "sys.path.append('/of-a-test-{}')",
    "logging": "logging.getLogger('parallax.of.a.test').setLevel(1{})",
}
NAMES = {"logging": logging, "os": os, "sys": sys, "warnings": warnings}


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PARALLAX_OF_A_TEST", "0")
    with warnings.catch_warnings():
        yield
    logging.getLogger("parallax.of.a.test").setLevel(0)


@pytest.mark.parametrize("title", CHANGES)
def test_what_an_import_in_an_item_changes_is_no_change_of_the_items(title, tmp_path):
    """Many modules do so: NumPy has warnings of its own ignored."""
    statement = CHANGES[title]
    tmp_path.joinpath("of_a_test.py").write_text(
        f"import logging, os, sys, warnings\n{statement.format(1)}\n"
    )
    sys.path.insert(0, str(tmp_path))
    watch, net = ProcessWatch(), Net(len, Mesh(200))
    try:
        watch.before()
        net.before(())
        importlib.import_module("of_a_test")
        assert watch.swapped() == ""
        assert (watch.changed(), net.after()) == ("", [])
        watch.before()
        net.before(())
        exec(statement.format(2), NAMES)
        assert watch.changed() == title
        assert [each.name for each in net.after()] == [title]
    finally:
        sys.modules.pop("of_a_test", None)
