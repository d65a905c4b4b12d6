"""The shape of the package, held as data: who may import whom, and what every public thing has.

The layers are those of docs/design.md. A module may import from any layer below its own; backends
may not import the brains, unless `BRAINS_FOR_BACKENDS` lists it. An import within a layer needs a
line in `SAME_LAYER`. Imports under `if TYPE_CHECKING:` bind nothing at run time: they may go to the
same layer, but not up.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import parallax

SOURCE = Path(parallax.__file__).parent
PACKAGE = "parallax"
MAX_LINES = 500

# Lowest first. A name ending in "." is a package with all that is in it. "" is __init__, the face.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "_lean",
        "_options",
        "_machine",
        "_messages",
        "_plans",
        "_errors",
        "_nesting",
        "_future",
        "_shield",
    ),
    ("_extents", "_store", "_copying", "_lender", "_borrower", "_shares", "_repeats", "_arena"),
    ("_bulk", "_codec", "_references", "_culprit", "_wire", "_waker", "_parcels"),
    ("_guard.",),
    (
        "_measure",
        "_gil",
        "_ticker",
        "_effects",
        "_memory",
        "_asked",
        "_planner",
        "_schedule_events",
        "_chunking",
        "_roster",
        "_recall",
        "_scheduler",
        "_feed",
        "_outcomes",
        "_holdings",
        "_steady",
        "_pace",
        "_lanes",
    ),
    ("_report", "_progress", "_tally", "_stall", "_watchman"),
    ("_backends.",),
    (
        "_run",
        "_pilot",
        "_crews",
        "_dispatcher",
        "_inline",
        "_router",
        "_routed",
        "_routed_call",
        "_far",
        "_paths",
        "_probe",
        "_watched",
    ),
    (
        "_decorator",
        "_asyncio",
        "_decorated",
        "_executor",
        "_map",
        "_process_executor",
        "_thread_executor",
        "_mapping",
        "_lifetimes",
        "_share",
    ),
    ("_cli", "_demo", "_demo_work", "_demo_server"),
    ("", "__main__"),
)

# module -> modules of its own layer that it may import. Keep it short and free of cycles.
SAME_LAYER: dict[str, set[str]] = {
    "_messages": {"_lean"},
    "_plans": {"_messages"},
    "_nesting": {"_lean", "_machine"},
    "_shield": {"_lean"},
    "_copying": {"_store"},
    "_lender": {"_copying", "_extents", "_store"},
    "_borrower": {"_lender", "_store"},
    "_shares": {"_copying", "_lender"},
    "_repeats": {"_copying", "_lender"},
    "_arena": {"_lender", "_store"},
    "_codec": {"_bulk", "_references"},
    "_culprit": {"_codec"},
    "_parcels": {"_wire"},
    "_measure": {"_ticker", "_gil"},
    "_lanes": {"_measure"},
    "_ticker": {"_gil"},
    "_recall": {"_chunking", "_roster"},
    "_scheduler": {"_chunking", "_recall", "_roster", "_schedule_events"},
    "_watchman": {"_stall"},
    "_run": {"_pilot", "_dispatcher", "_inline", "_watched"},
    "_watched": {"_dispatcher", "_pilot"},
    "_pilot": {"_crews", "_dispatcher", "_router"},
    "_crews": {"_dispatcher", "_router"},
    "_routed": {"_far", "_paths", "_probe", "_routed_call"},
    "_far": {"_routed_call"},
    "_routed_call": {"_paths"},
    "_paths": {"_probe"},
    "_probe": {"_router"},
    "_asyncio": {"_executor"},
    "_executor": {"_lifetimes", "_map", "_mapping", "_process_executor", "_thread_executor"},
    "_process_executor": {"_lifetimes", "_mapping"},
    "_thread_executor": {"_lifetimes", "_mapping"},
    "_decorated": {"_executor", "_map"},
    "_decorator": {"_decorated"},
    "_cli": {"_demo"},
    "_demo": {"_demo_work", "_demo_server"},
    "_demo_work": {"_demo_server"},
    "__main__": {""},
}

# Backends join what is below the brains: the ground and what moves. One edge a line for the rest.
BRAINS_FOR_BACKENDS: dict[str, set[str]] = {
    "_backends.processes.callables": {"_effects"},
    "_backends.processes.queue": {"_pace"},
}

# May be imported inside a function: optional or dear packages that are not always needed.
LAZY_PACKAGES = {"psutil", "tqdm", "cloudpickle", "threadpoolctl", "numpy", "dask", "ray", "torch"}
# The standard library's dear ones: every worker or every program would pay for them.
LAZY_STANDARD = {
    "array",
    "concurrent.futures.process",
    "ctypes",
    "decimal",
    "fcntl",
    "importlib",
    "logging",
    "multiprocessing",
    "secrets",
    "tempfile",
    "threading",
}
# (module, what it imports inside a function): why. They must go down all the same, or sideways.
LAZY_EDGES: dict[tuple[str, str], str] = {
    ("_parcels", "_borrower"): "at the first large part only",
    ("_backends.processes.parcels", "_arena"): "workers never need it",
    ("_backends.processes.worker", "_backends.processes.failures"): "at the first failure only",
    ("_backends.processes.worker", "_backends.processes.voices"): "if the program hears workers",
    ("_backends.processes.voices", "_backends.processes.records"): "loads logging",
    ("_backends.processes.hearing", "_backends.processes.records"): "at the first record only",
    ("_backends.processes.batch", "_backends.processes.failures"): "as above",
    ("_backends.processes.piece", "_backends.processes.failures"): "as above",
    ("_backends.processes.batch", "_backends.processes.piece"): "maps of short calls only",
    ("_backends.processes.batch", "_errors"): "loads concurrent.futures",
    ("_backends.processes.surroundings", "_options"): "workers rarely make calls of their own",
    ("_backends.processes.zygote", "_backends.processes.worker"): "loaded once, before forking",
    ("_backends.processes.pool", "_backends.processes.forked"): "loads multiprocessing",
    ("_backends.processes.worker", "_backends.processes.given"): "for some initializers only",
    ("_decorated", "_map"): "workers import decorated functions, and only call them",
    ("_decorated", "_executor"): "as above",
}

# What may be imported from outside the standard library at all; "numpy" never at module level.
THIRD_PARTY = {"cloudpickle", "typing_extensions", "psutil"}


@dataclass(frozen=True)
class Import:
    importer: str
    target: str  # Within the package ("_map", "" for the face), or a name outside it.
    internal: bool
    line: int
    in_function: bool
    typing_only: bool

    def __str__(self) -> str:
        target = f"parallax.{self.target}".rstrip(".") if self.internal else self.target
        return f"{self.importer or '__init__'}:{self.line} imports {target}"


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def layer_of(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        for name in names:
            if module == name or (name.endswith(".") and f"{module}.".startswith(name)):
                return number
    return None


def is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def imports_of(module: str, path: Path) -> Iterator[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def resolve(name: str) -> tuple[str, bool]:
        """A dotted name inside the package, cut to the module that holds it."""
        if name != PACKAGE and not name.startswith(PACKAGE + "."):
            return name, False
        inner = name.removeprefix(PACKAGE).removeprefix(".")
        if layer_of(top := inner.split(".")[0]) is not None and top not in MODULES:
            return top, True  # Known to the table, not written yet.
        while inner and inner not in MODULES:
            inner = inner.rpartition(".")[0]
        return inner, True

    def visit(node: ast.AST, in_function: bool, typing_only: bool) -> Iterator[Import]:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = [PACKAGE, *package.split(".")] if package else [PACKAGE]
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            names = [f"{base}.{alias.name}" for alias in node.names]
            if base.split(".")[0] != PACKAGE:
                names = [base]
        for name in names:
            target, internal = resolve(name)
            yield Import(module, target, internal, node.lineno, in_function, typing_only)
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for child in node.body:
                yield from visit(child, in_function, True)
            for child in node.orelse:
                yield from visit(child, in_function, typing_only)
            return
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function or inside, typing_only)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False, False)


IMPORTS = [found for module, path in MODULES.items() for found in imports_of(module, path)]
INTERNAL = [found for found in IMPORTS if found.internal and found.target != found.importer]


BACKENDS, BRAINS = layer_of("_backends"), layer_of("_planner")

# Packages that are one layer: inside them only cycles are faults.
PACKAGES = {BACKENDS, layer_of("_guard")}


def fault_of(edge: Import) -> str | None:
    """Why the edge is not allowed, or None."""
    here, there = layer_of(edge.importer), layer_of(edge.target)
    if here is None or there is None:
        return None  # test_every_module_has_a_layer speaks about it.
    if there > here:
        return "goes up"
    if here == there:
        if edge.typing_only or here in PACKAGES:
            return None  # Cycles are looked for below.
        if edge.target not in SAME_LAYER.get(edge.importer, set()):
            return "is within a layer and not listed in SAME_LAYER"
    listed = edge.typing_only or edge.target in BRAINS_FOR_BACKENDS.get(edge.importer, set())
    if here == BACKENDS and there == BRAINS and not listed:
        return "is from a backend to a brain and not listed in BRAINS_FOR_BACKENDS"
    return None


def test_every_module_has_a_layer() -> None:
    assert [module for module in MODULES if layer_of(module) is None] == []


def test_imports_only_go_down() -> None:
    faults = [f"{edge}: {fault}" for edge in INTERNAL if (fault := fault_of(edge))]
    assert faults == []


def test_no_cycles() -> None:
    edges: dict[str, set[str]] = {}
    for edge in INTERNAL:
        # Importing parallax.a.b runs parallax.a too, but the face binds its names lazily.
        if not edge.typing_only and not edge.in_function:
            edges.setdefault(edge.importer, set()).add(edge.target)

    finished: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            cycle = " -> ".join((*trail[trail.index(module) :], module))
            pytest.fail(f"these modules import each other: {cycle}")
        if module not in finished:
            for target in sorted(edges.get(module, ())):
                walk(target, (*trail, module))
            finished.add(module)

    for module in sorted(edges):
        walk(module, ())


def test_imports_inside_functions_are_optional_packages_only() -> None:
    faults = []
    for found in IMPORTS:
        if not found.in_function or found.typing_only:
            continue
        allowed = (
            (found.importer, found.target) in LAZY_EDGES
            if found.internal
            else found.target.split(".")[0] in LAZY_PACKAGES or found.target in LAZY_STANDARD
        )
        if not allowed:
            faults.append(str(found))
    assert faults == []


def test_only_declared_dependencies_are_imported() -> None:
    known = sys.stdlib_module_names | {"__future__"}
    faults = [
        str(found)
        for found in IMPORTS
        if not found.internal
        and not found.typing_only
        and (top := found.target.split(".")[0]) not in known | THIRD_PARTY
        and not (found.in_function and top in LAZY_PACKAGES)
    ]
    assert faults == []


@pytest.mark.parametrize("table", [SAME_LAYER, BRAINS_FOR_BACKENDS], ids=["same", "brains"])
def test_the_tables_name_modules_that_have_a_layer(table: dict[str, set[str]]) -> None:
    named = set(table) | {target for targets in table.values() for target in targets}
    assert [name for name in named if layer_of(name) is None] == []


def test_same_layer_pairs_make_no_cycle() -> None:
    def reach(module: str, seen: frozenset[str]) -> Iterator[str]:
        for target in SAME_LAYER.get(module, ()):
            yield target
            if target not in seen:
                yield from reach(target, seen | {target})

    assert [module for module in SAME_LAYER if module in reach(module, frozenset())] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_file_is_short_and_says_what_it_is_for(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= MAX_LINES, f"{lines} lines: split it"
    assert ast.get_docstring(ast.parse(text))


# --- the checker itself: an architecture test that finds nothing must be known to be able to -----


@pytest.mark.parametrize(
    ("importer", "target", "flags", "fault"),
    [
        ("_options", "_codec", {}, True),
        ("_codec", "_options", {}, False),
        ("_parcels", "_arena", {}, False),
        ("_parcels", "_wire", {}, False),
        ("_wire", "_parcels", {}, True),
        ("_arena", "_parcels", {}, True),
        ("_shares", "_lender", {"typing_only": True}, False),
        ("_options", "_codec", {"typing_only": True}, True),
        ("_backends.threads", "_planner", {}, True),
        ("_backends.processes.pool", "_wire", {}, False),
        ("_backends.processes.pool", "_run", {}, True),
        ("_run", "_backends.threads", {}, False),
        ("_run", "", {}, True),
        ("_map", "_run", {}, False),
    ],
)
def test_the_checker_finds_faults(
    importer: str, target: str, flags: dict[str, bool], fault: bool
) -> None:
    edge = Import(importer, target, True, 1, **{"in_function": False, "typing_only": False} | flags)
    assert bool(fault_of(edge)) is fault


def test_the_checker_reads_every_form_of_import(tmp_path: Path) -> None:
    path = tmp_path / "_codec.py"
    path.write_text(
        "import os.path\nfrom typing import TYPE_CHECKING\nfrom . import _options\n"
        "from ._errors import X\nimport parallax._machine as m\nfrom parallax import parallel_map\n"
        "if TYPE_CHECKING:\n    from . import _messages\n"
        "def f():\n    import psutil\n    from ._map import g\n"
    )
    known = {found.target: found for found in imports_of("_codec", path)}
    assert {"os.path", "typing", "_options", "_errors", "psutil"} <= set(known)
    assert {t for t, f in known.items() if f.in_function and not f.internal} == {"psutil"}
    assert not known["_options"].typing_only
    assert known[""].internal, "from parallax import name goes to the face"
    if "_messages" in MODULES:
        assert known["_messages"].typing_only


# --- what is public ------------------------------------------------------------------------------


PUBLIC = list(getattr(parallax, "__all__", ()))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(parallax, name)
    assert name in dir(parallax)
    if isinstance(value, type) or callable(value):
        assert inspect.getdoc(value), f"parallax.{name} has no docstring"
    if isinstance(value, type) and not issubclass(value, BaseException):
        undocumented = [
            member
            for member, what in vars(value).items()
            if not member.startswith("_")
            and (inspect.isroutine(what) or isinstance(what, property))
            and not inspect.getdoc(getattr(value, member))
        ]
        assert undocumented == []


def test_public_names_are_sorted_and_unique() -> None:
    assert len(set(PUBLIC)) == len(PUBLIC)


def error_classes() -> list[type[BaseException]]:
    if "_errors" not in MODULES:
        return []
    errors = importlib.import_module("parallax._errors")
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and value.__module__ == errors.__name__
    ]


def example_of(kind: type[BaseException]) -> BaseException:
    """One with plausible values, by the names and annotations of its fields."""
    annotations: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        annotations |= vars(base).get("__annotations__", {})
    names = getattr(kind, "_fields", ())
    if not names:
        return kind("a message")
    return kind(*(plausible(name, str(annotations.get(name, ""))) for name in names))


def plausible(name: str, annotation: str) -> object:
    for word, value in (("str", f"some {name}"), ("float", 1.5), ("int", 7), ("tuple", ())):
        if word in annotation:
            return value
    return None if "None" in annotation else f"some {name}"


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickle(kind: type[BaseException], protocol: int) -> None:
    error = example_of(kind)
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
    assert twin.args == error.args


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_is_documented(kind: type[BaseException]) -> None:
    assert kind.__doc__
