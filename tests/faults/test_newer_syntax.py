"""Functions of a main script that use what only newer interpreters have travel like others."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

#: Each way to a worker process.
RUN = """
from parallax import Executor, ProcessPoolExecutor, parallel_map
def everywhere(fn):
    expected = [1, 2, 3]
    assert parallel_map(fn, range(1, 4), backend="processes") == expected
    with ProcessPoolExecutor(2) as pool:
        assert pool.submit(fn, 2).result() == 2
        assert list(pool.map(fn, range(1, 4))) == expected
        made = pool.submit(make, fn).result()
        assert made.__name__ == fn.__name__ and made(3) == 3
    assert parallel_map(fn, range(1, 4)) == expected
def make(fn):
    return fn
"""


def program(text, *flags):
    """Run a program to its end; it must say nothing."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
@pytest.mark.parametrize(
    "annotation", ["Unknown", "list[Unknown.part] | None", "1 / 0", "int | {}[0]", "raises()"]
)
def test_annotations_that_cannot_be_evaluated(annotation):
    """Names that only a type checker sees, for example: a call does not need them."""
    program(
        RUN
        + f"""
def fn(x: {annotation}, *, more: {annotation} = 0) -> {annotation}:
    def inner(y: {annotation}) -> None:
        return y
    return inner(x) + more
def raises():
    raise ValueError
fn.note = "kept"
before = dict(vars(fn))
everywhere(fn)
assert vars(fn) == before
class Item:
    part: {annotation}
    def method(self, x: {annotation}):
        return x
everywhere(Item().method)
"""
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_arrive():
    """As values where they can be evaluated, else as text."""
    program(
        """
        import annotationlib
        from parallax import ProcessPoolExecutor
        def good(x: int, y: list[str]): return good.__annotations__
        def bad(x: Unknown, y: int = 3, *, z=4):
            "Documented."
            return bad.__annotations__, bad.__doc__, bad.__defaults__, bad.__kwdefaults__, bad.extra
        bad.extra = 5
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(good, 1, 2).result() == {"x": int, "y": list[str]}
            found = pool.submit(bad, 1).result()
            assert found == ({"x": "Unknown", "y": "int"}, "Documented.", (3,), {"z": 4}, 5), found
        # The function itself is as it was.
        assert annotationlib.get_annotations(bad, format=annotationlib.Format.STRING)["y"] == "int"
        try:
            bad.__annotations__
        except NameError:
            pass
        else:
            raise AssertionError
        """
    )


LAZY = """
lazy import json
lazy import colorsys as colours
lazy import xml.dom.minidom
lazy import xml.sax.saxutils
lazy from fractions import Fraction as F
lazy from missing_module import missing
def plain(x):
    return int(json.dumps(x))
def renamed(x):
    return x + int(colours.rgb_to_hls(0, 0, 0)[0])
def dotted(x):
    return x * xml.dom.minidom.Node.ELEMENT_NODE * len(xml.sax.saxutils.escape("1"))
def member(x):
    def inner():
        return F(x)
    return int(inner())
class Item:
    def method(self, x):
        return int(json.loads("1")) * x
functions = [plain, renamed, dotted, member, Item().method]
"""


@pytest.mark.skipif(sys.version_info < (3, 15), reason="no lazy imports")
@pytest.mark.parametrize("index", range(5))
def test_lazy_imports(index):
    """A worker has what the function imports, whether this process has used it before or not."""
    program(LAZY + RUN + f"everywhere(functions[{index}])")


@pytest.mark.skipif(sys.version_info < (3, 15), reason="no lazy imports")
def test_all_imports_are_lazy():
    """``-X lazy_imports=all``, parallax's own among them."""
    text = LAZY.replace("lazy from missing_module import missing\n", "").replace("lazy ", "")
    program(text + RUN + "for fn in functions: everywhere(fn)", "-X", "lazy_imports=all")


@pytest.mark.skipif(sys.version_info < (3, 15), reason="no lazy imports")
def test_a_lazy_import_that_fails():
    """The loop's error, and an explicit backend's names the import."""
    program(
        LAZY
        + """
from parallax import parallel_map
def late(x):
    return missing if x > 2 else x
assert parallel_map(late, range(3)) == [0, 1, 2]
for backend, error in (("auto", ImportError), ("threads", ImportError), ("processes", Exception)):
    try:
        parallel_map(late, range(5), backend=backend)
    except error as failure:
        said = [repr(failure), repr(failure.__cause__)]
        assert any("missing_module" in each for each in said), said
    else:
        raise AssertionError(backend)
"""
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="no template strings")
def test_template_strings():
    """Arguments, results and code."""
    program(
        """
        from parallax import parallel_map
        seen = []
        def fn(template):
            return template, t"{len(template.values)} of {template.strings!r:>5}"
        def keeps(x):
            seen.append(t"{x}".values[0])
            return x
        templates = [t"{n} and {n:>{n}}" for n in range(3)]
        for template, made in parallel_map(fn, templates, backend="processes"):
            assert type(template) is type(made) and made.values[0] == 2
        assert parallel_map(keeps, range(500)) == list(range(500)) == seen
        """
    )


@pytest.mark.skipif(sys.version_info < (3, 15), reason="no such syntax")
def test_unpacking_in_comprehensions_and_frozendict():
    program(
        """
        from parallax import parallel_map
        table = frozendict(a=1)
        def fn(x):
            lists, dicts = [*pair for pair in [(x, x)]], {**each for each in [{x: 1}]}
            return lists, dicts, frozendict(b=x), table["a"]
        for backend in ("auto", "processes"):
            for x, found in enumerate(parallel_map(fn, range(50), backend=backend)):
                assert found == ([x, x], {x: 1}, frozendict(b=x), 1), found
                assert type(found[2]) is frozendict
        """
    )
