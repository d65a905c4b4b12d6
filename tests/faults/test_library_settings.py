"""Settings of libraries that the program has made hold in workers, until they are taken back."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from parallax import carry_setting

PROGRAM = """
import calendar, csv, json, locale, mimetypes, socket, sys, tempfile, threading
import xml.etree.ElementTree as ET
import numpy as np
import pandas as pd
import parallax
from parallax import options, parallel_map

class Own:
    "An accessor of data frames."
    def __init__(self, frame):
        self.frame = frame
    def total(self):
        return float(self.frame.sum().sum())

def sets_in_order(self, value):
    return sorted(value)

def as_json(x):
    try:
        return json.dumps({"a": {2, 1}})
    except TypeError as error:
        return str(error)

import shapes
parallax.carry_setting("shapes", lambda m: m.unit, lambda m, unit: setattr(m, "unit", unit), "mm")

READS = {
    "added": lambda x: shapes.described(x),
    "csv": lambda x: csv.field_size_limit(),
    "socket": lambda x: socket.getdefaulttimeout(),
    "tempfile": lambda x: tempfile.tempdir,
    "ElementTree": lambda x: ET.tostring(ET.Element("{urn:x}a")),
    "mimetypes": lambda x: mimetypes.guess_type("a.ending9"),
    "calendar": lambda x: calendar.month(2026, 2),
    "locale": lambda x: locale.setlocale(locale.LC_NUMERIC),
    "threading": lambda x: threading.stack_size(),
    "numpy": lambda x: repr(np.array([1 / 3, x])),
    "pandas": lambda x: repr(pd.DataFrame({"a": [1.23456789] * 99})),
    "accessor": lambda x: hasattr(pd.DataFrame, "own") and pd.DataFrame({"a": [1, x]}).own.total(),
    "json": as_json,
}

def check(when):
    for name, read in READS.items():
        wanted = [read(x) for x in range(3)]
        found = list(parallel_map(read, range(3), backend="processes", max_workers=2))
        assert found == wanted, (when, name, found, wanted)

def main():
    check("usual")
    csv.field_size_limit(10**9)
    socket.setdefaulttimeout(7.5)
    tempfile.tempdir = "/var/tmp"
    ET.register_namespace("q", "urn:x")
    mimetypes.add_type("x/ending", ".ending9")
    calendar.setfirstweekday(6)
    try:
        locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
    except locale.Error:
        pass
    threading.stack_size(1 << 20)
    np.set_printoptions(precision=2)
    pd.set_option("display.max_rows", 7)
    pd.set_option("display.precision", 2)
    pd.api.extensions.register_dataframe_accessor("own")(Own)
    default, json.JSONEncoder.default = json.JSONEncoder.default, sets_in_order
    shapes.unit = "inch"
    check("changed")
    csv.field_size_limit(131072)
    socket.setdefaulttimeout(None)
    tempfile.tempdir = None
    ET._namespace_map.pop("urn:x")
    calendar.setfirstweekday(0)
    locale.setlocale(locale.LC_NUMERIC, "C")
    threading.stack_size(0)
    np.set_printoptions(precision=8)
    pd.reset_option("display.max_rows")
    pd.reset_option("display.precision")
    json.JSONEncoder.default = default
    shapes.unit = "mm"
    check("taken back")

if __name__ == "__main__":
    end = threading.Event()
    threading.Thread(target=end.wait).start()  # so that the program is not forked
    try:
        with options(start_method=sys.argv[1]):
            main()
    finally:
        end.set()
    print("done")
"""


@pytest.mark.parametrize("method", ["zygote", pytest.param("spawn", marks=pytest.mark.full)])
@pytest.mark.skipif(find_spec("pandas") is None, reason="no pandas")
@pytest.mark.skipif(sys.platform != "linux", reason="folders and locales of Linux")
def test_settings_of_libraries(tmp_path, method):
    """Workers that are warm follow them, in both directions."""
    shapes = 'unit = "mm"\ndef described(x):\n    return f"{x} {globals()[chr(117) + \'nit\']}"\n'
    (tmp_path / "shapes.py").write_text(shapes)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script), method],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr


ALLOCATORS = """
import threading
import pandas as pd
import pyarrow
from parallax import options, parallel_map
def work(x):
    return int(pd.DataFrame({"a": [x]}).a.sum())
if __name__ == "__main__":
    end = threading.Event()
    threading.Thread(target=end.wait).start()
    try:
        with options(start_method="zygote"):
            assert list(parallel_map(work, range(4), backend="processes")) == [0, 1, 2, 3]
    finally:
        end.set()
"""


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="no pyarrow")
@pytest.mark.skipif(sys.platform != "linux", reason="there is no zygote")
def test_threads_of_allocators(tmp_path):
    """They do not start where workers are forked, so nothing is said, and no start is lost."""
    script = tmp_path / "program.py"
    script.write_text(ALLOCATORS)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_cannot_be_carried():
    """Is refused at once."""
    for wrong in ((1, len, setattr), ("csv", 1, setattr), ("csv", len, None)):
        with pytest.raises(TypeError, match="the name of a module and two functions"):
            carry_setting(*wrong)
