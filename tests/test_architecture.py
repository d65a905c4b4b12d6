"""The shape of the package, held as data: who may import whom, and what every public thing has.

The rooms are those of docs/design.md: a folder is a layer. A module may import from its own room
and from the rooms below it; `ONLY` narrows that. Every import counts, those under `TYPE_CHECKING`
and inside functions too, and none of them may close a cycle.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import parallax

SOURCE = Path(parallax.__file__).parent
PACKAGE = "parallax"
MAX_LINES = 400
MAX_ATTRIBUTES = 20
# Classes with more, at most three; the reason stands at the class.
LARGE_CLASSES = {"Report"}

# Lowest first. Rooms of one rank may not import each other. "" is __init__, the face.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("_core",),
    ("_shm",),
    ("_transport",),
    ("_guard",),
    ("_profiling", "_scheduling"),
    ("_routing",),
    ("_reporting",),
    ("_backends",),
    ("_backends.processes",),
    ("_backends.processes.common",),
    ("_backends.processes.worker",),
    ("_backends.processes.start",),
    ("_backends.processes.parent",),
    ("_run", "_adaptive"),
    ("_executors",),
    ("_api",),
    ("_cli",),
    ("", "__main__"),
    ("integrations",),
)

# A room that may import less than all that is below it.
ONLY: dict[str, set[str]] = {
    "_scheduling": {"_core"},
}

# May be imported inside a function: optional or dear packages that are not always needed.
LAZY_PACKAGES = {"psutil", "tqdm", "cloudpickle", "threadpoolctl", "numpy", "dask", "ray", "torch"}
# Imported where an engine is asked for, and about that package.
ADAPTERS = {"_backends.dask_cluster": {"dask", "distributed"}}
# The standard library's dear ones: every worker or every program would pay for them.
LAZY_STANDARD = {
    "_winapi",
    "array",
    "concurrent.futures",
    "concurrent.futures.process",
    "ctypes",
    "dataclasses",
    "decimal",
    "fcntl",
    "faulthandler",
    "importlib",
    "inspect",
    "logging",
    "multiprocessing",
    "resource",
    "secrets",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "sysconfig",
    "tempfile",
    "threading",
    "traceback",
}
PROCESSES = "_backends.processes"
# (module, what it imports inside a function), with the reason. They go down all the same.
LAZY_EDGES: set[tuple[str, str]] = {
    # For large buffers only.
    ("_shm.sender", "_core.memory"),
    # At the first large part only.
    ("_transport.shm_channel", "_shm.receiver"),
    # For callables with a side effect only.
    ("_guard.effects", "_shm.registry"),
    # Loads cloudpickle.
    ("_transport.codec", "_transport.by_value"),
    ("_api.decorated", "_transport.by_value"),
    # Workers never need it.
    (f"{PROCESSES}.common.channel_setup", "_shm.arena"),
    # For the first large result only.
    (f"{PROCESSES}.common.channel_setup", "_shm.sender"),
    # At the first failure only.
    ("_backends.result_encoding", "_backends.portable_errors"),
    # If the program hears workers.
    (f"{PROCESSES}.worker.main", f"{PROCESSES}.worker.output_sender"),
    # Loads logging.
    (f"{PROCESSES}.worker.output_sender", f"{PROCESSES}.common.log_records"),
    # At the first record only.
    (f"{PROCESSES}.parent.output_receiver", f"{PROCESSES}.common.log_records"),
    # Loads concurrent.futures.
    (f"{PROCESSES}.worker.batches", "_core.errors"),
    (f"{PROCESSES}.worker.main", "_core.errors"),
    # With the option progress only.
    ("_run.run", "_reporting.progress"),
    # Workers rarely make calls of their own.
    (f"{PROCESSES}.worker.environment_setup", "_core.options"),
    # Loaded once, before forking.
    (f"{PROCESSES}.start.zygote", f"{PROCESSES}.worker.main"),
    # Loads multiprocessing.
    (f"{PROCESSES}.parent.worker_start", f"{PROCESSES}.start.direct_fork"),
    # From Python 3.14 on only.
    (f"{PROCESSES}.parent.worker_start", f"{PROCESSES}.start.interpreters"),
    # Workers of the zygote never need it.
    (f"{PROCESSES}.worker.main", f"{PROCESSES}.worker.parent_watch"),
    # With multiprocessing only.
    (f"{PROCESSES}.common.process_identity", f"{PROCESSES}.common.process_exit"),
    # Workers that are forked from the program only.
    (f"{PROCESSES}.worker.main", f"{PROCESSES}.common.output_needs"),
    # For runs that look for changes only.
    (f"{PROCESSES}.worker.limits", "_guard.net"),
    # For some initializers only.
    (f"{PROCESSES}.worker.main", f"{PROCESSES}.common.inherited_fds"),
    # Workers import decorated functions, and only call them.
    ("_api.decorated", "_api.map"),
    ("_api.decorated", "_executors.executor"),
    # Each engine when an executor that needs it is created.
    ("_executors.executor", "_executors.process_executor"),
    ("_executors.executor", "_executors.process_errors"),
    ("_executors.executor", f"{PROCESSES}.parent.process_engine"),
    ("_executors.executor", f"{PROCESSES}.parent.warm_pool"),
    ("_executors.executor", "_adaptive.adaptive_engine"),
    ("_executors.executor", "_backends.simple_engines"),
    ("_executors.executor_base", "_reporting.executor_reports"),
    # Few executors are recorded.
    ("_executors.executor_base", "_reporting.recording"),
    # With the first function that may use worker processes.
    ("_adaptive.process_route", f"{PROCESSES}.parent.process_engine"),
    ("_adaptive.process_route", f"{PROCESSES}.parent.warm_pool"),
    ("_adaptive.trial", f"{PROCESSES}.parent.call_encoding"),
    # With the results of worker processes only.
    ("_executors.map_results", f"{PROCESSES}.parent.task"),
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
TEXTS = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}
TREES = {module: ast.parse(text) for module, text in TEXTS.items()}


RANKS = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}


def room_of(module: str) -> str | None:
    """The room of a module: the longest folder name of the table that it lies in."""
    if not module:
        return ""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in RANKS), None)


def is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def imports_of(module: str, path: Path, tree: ast.Module) -> Iterator[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def resolve(name: str) -> tuple[str, bool]:
        """A dotted name inside the package, cut to the module that holds it."""
        if name != PACKAGE and not name.startswith(PACKAGE + "."):
            return name, False
        inner = name.removeprefix(PACKAGE).removeprefix(".")
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

    yield from visit(tree, False, False)


IMPORTS = [
    found for module, path in MODULES.items() for found in imports_of(module, path, TREES[module])
]
INTERNAL = [found for found in IMPORTS if found.internal and found.target != found.importer]


def fault_of(edge: Import) -> str | None:
    """Why the edge is not allowed, or None."""
    here, there = room_of(edge.importer), room_of(edge.target)
    if here is None or there is None or here == there:
        return None  # test_every_module_has_a_room speaks about it; cycles are looked for below.
    if RANKS[there] > RANKS[here]:
        return "goes up"
    if RANKS[there] == RANKS[here]:
        return "goes to a room beside it"
    if there not in ONLY.get(here, {there}):
        return f"leaves what {here} may import"
    return None


def cycles_of(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan, 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for target in sorted(edges.get(module, ())):
            if target not in number:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], number[target])
        if low[module] == number[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in sorted(edges):
        if module not in number:
            visit(module)
    return found


def test_every_module_has_a_room() -> None:
    assert [module for module in MODULES if room_of(module) is None] == []


def test_every_room_says_what_it_is_for() -> None:
    """In under 10 lines: purpose, guarantees, and what it may import."""
    for room in RANKS:
        if room and room != "__main__":
            assert TEXTS[room].count("\n") < 10, room
            assert "May import:" in ast.get_docstring(TREES[room]), room


def test_imports_only_go_down() -> None:
    faults = [f"{edge}: {fault}" for edge in INTERNAL if (fault := fault_of(edge))]
    assert faults == []


def test_no_cycles() -> None:
    """Typing-only imports and those inside functions are counted, too."""
    edges: dict[str, set[str]] = defaultdict(set)
    for edge in INTERNAL:
        # Importing parallax.a.b runs parallax.a too, but the face binds its names lazily.
        if edge.importer:
            edges[edge.importer].add(edge.target)
    assert cycles_of(edges) == []


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
        # Each is imported by its name, and is about that package.
        and found.importer != f"integrations.{top}"
        and top not in ADAPTERS.get(found.importer, ())
    ]
    assert faults == []


def test_the_tables_name_rooms_and_modules_that_exist() -> None:
    rooms = set(ONLY).union(*ONLY.values())
    assert [room for room in rooms if room not in RANKS] == []
    edges = {(found.importer, found.target) for found in INTERNAL if found.in_function}
    assert [edge for edge in LAZY_EDGES if edge not in edges] == []


def test_every_file_is_short_and_says_what_it_is_for() -> None:
    """One that is longer is split."""
    lines = {module: text.count("\n") for module, text in TEXTS.items()}
    assert {module: count for module, count in lines.items() if count > MAX_LINES} == {}
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []


# What takes a millisecond each, and what the modules that a worker needs can do without.
DEAR_TO_WORKERS = {
    "concurrent.futures",
    "contextlib",
    "dataclasses",
    "enum",
    "inspect",
    "logging",
    "multiprocessing",
    "pickle",
    "re",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "traceback",
    "typing",
    "weakref",
}


def test_workers_load_nothing_dear() -> None:
    code = (
        "import sys; before = set(sys.modules); "
        "import parallax._backends.processes.worker.main; "
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert DEAR_TO_WORKERS & set(done.stdout.split()) == set()


@dataclass(frozen=True)
class Definition:
    """A public class or a constant at the top of a module."""

    name: str
    where: str
    value: str


def definitions_of(module: str, tree: ast.Module) -> Iterator[Definition]:
    """Leading underscores are no part of a name; type variables mean the same everywhere."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield Definition(node.name, f"{module}:{node.lineno}", "class")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if value is None or getattr(getattr(value, "func", None), "id", "") in TYPE_VARIABLES:
            continue
        for target in targets:
            name = getattr(target, "id", "").lstrip("_")
            if name.isupper() and name != "TYPE_CHECKING":
                yield Definition(name, f"{module}:{node.lineno}", ast.unparse(value))


TYPE_VARIABLES = {"TypeVar", "ParamSpec"}


def twins_of(definitions: list[Definition]) -> list[str]:
    by_name: dict[str, list[Definition]] = defaultdict(list)
    for each in definitions:
        by_name[each.name].append(each)
    return [
        f"{name}: " + ", ".join(f"{each.where} = {each.value[:30]}" for each in found)
        for name, found in by_name.items()
        if len(found) > 1
    ]


def test_one_name_has_one_meaning() -> None:
    """Public classes and module constants; one that two modules need is defined in one of them."""
    assert twins_of([each for m, tree in TREES.items() for each in definitions_of(m, tree)]) == []


def attributes_of(node: ast.ClassDef) -> set[str]:
    """What its methods assign to ``self``, and the fields that its body declares."""
    found = {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and getattr(each.value, "id", "") == "self"
    }
    return found | {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def test_classes_have_few_attributes() -> None:
    large = {
        f"{module}.{node.name}": len(attributes)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and len(attributes := attributes_of(node)) > MAX_ATTRIBUTES
        and node.name not in LARGE_CLASSES
    }
    assert large == {}
    assert len(LARGE_CLASSES) <= 3


# --- the checker itself: an architecture test that finds nothing must be known to be able to -----


@pytest.mark.parametrize(
    ("importer", "target", "fault"),
    [
        ("_core.options", "_transport.codec", True),
        ("_transport.codec", "_core.options", False),
        ("_transport.shm_channel", "_shm.arena", False),
        ("_transport.shm_channel", "_transport.framing", False),
        ("_shm.arena", "_transport.shm_channel", True),
        ("_scheduling.scheduler", "_shm.arena", True),
        ("_scheduling.scheduler", "_profiling.meters", True),
        ("_backends.contract", "_backends.processes.parent.task", True),
        ("_backends.processes.common.protocol", "_backends.processes.worker.main", True),
        ("_backends.processes.parent.warm_pool", "_transport.framing", False),
        ("_backends.processes.parent.warm_pool", "_run.run", True),
        ("_run.run", "_backends.thread_workers", False),
        ("_run.run", "_adaptive.call", True),
        ("_run.run", "", True),
        ("_api.map", "_run.run", False),
    ],
)
def test_the_checker_finds_faults(importer: str, target: str, fault: bool) -> None:
    edge = Import(importer, target, True, 1, in_function=False, typing_only=False)
    assert bool(fault_of(edge)) is fault


def test_the_checker_finds_cycles() -> None:
    edges = {"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": set()}
    assert cycles_of(edges) == [["a", "b", "c"]]


def test_the_checker_finds_names_with_two_meanings() -> None:
    one = "class A: pass\n_LIMIT_S: float = 1.0\nT = TypeVar('T')\nTYPE_CHECKING = False\n"
    two = "LIMIT_S = 2.0\nT = TypeVar('T')\nTYPE_CHECKING = False\nclass B:\n    LIMIT_S = 3\n"
    found = [*definitions_of("a", ast.parse(one)), *definitions_of("b", ast.parse(two))]
    assert twins_of(found) == ["LIMIT_S: a:2 = 1.0, b:1 = 2.0"]


def test_the_checker_counts_attributes() -> None:
    tree = ast.parse(
        "class A:\n    x: int\n    def f(self):\n        self.y = self.z\n        y.w = 1\n"
    )
    assert attributes_of(tree.body[0]) == {"x", "y"}


def test_the_checker_reads_every_form_of_import(tmp_path: Path) -> None:
    path = tmp_path / "codec.py"
    path.write_text(
        "import os.path\nfrom typing import TYPE_CHECKING\nfrom parallax._core import options\n"
        "from .framing import X\nimport parallax._core.cores as m\nfrom parallax import options\n"
        "if TYPE_CHECKING:\n    from parallax._core import chunks\n"
        "def f():\n    import psutil\n    from parallax._api.map import g\n"
    )
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {found.target: found for found in imports_of("_transport.codec", path, tree)}
    inside = {"_core.options", "_transport.framing", "_core.cores", "_core.chunks", "_api.map", ""}
    assert {target for target, found in known.items() if found.internal} == inside
    assert {"os.path", "typing", "psutil"} <= set(known)
    assert {t for t, found in known.items() if found.in_function} == {"psutil", "_api.map"}
    assert [t for t, found in known.items() if found.typing_only] == ["_core.chunks"]


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
    errors = importlib.import_module("parallax._core.errors")
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
