"""Runs a script or module as `python` does: its arguments, `__main__`, path, status and tracebacks.

Guarantees: what the program raises leaves `run` as it is, and is printed without frames of this
package, by the program's own `sys.excepthook`; the interpreter makes the exit status of it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import pkgutil
import runpy
import sys
import types
from collections.abc import Callable


class NoProgramError(Exception):
    """There is nothing to run under that name."""


def load(name: str, arguments: list[str], *, module: bool) -> Callable[[], None]:
    """Prepare a program: `sys.argv`, `sys.path` and `__main__` are its own from now on."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    if module:
        _first_path(os.getcwd())
        sys.argv[:] = ["-m", *arguments]
        sys.modules["__main__"] = main
        return lambda: _run_module(name)
    try:
        with io.open_code(name) if not os.path.isdir(name) else io.BytesIO() as file:
            source = file.read()
    except OSError as error:
        raise NoProgramError(f"can't open file {name!r}: {error.strerror}") from None
    path = os.path.abspath(name)
    sys.argv[:] = [name, *arguments]
    if pkgutil.get_importer(path) is not None:  # a folder or an archive
        _first_path(path)
        if importlib.machinery.PathFinder.find_spec("__main__", [path]) is None:
            raise NoProgramError(f"can't find '__main__' module in {name!r}")
        sys.modules["__main__"] = main
        return lambda: _run_as_main("__main__", False)
    _first_path(os.path.dirname(os.path.realpath(name)))
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    main.__dict__.update(__file__=path, __loader__=loader)
    if sys.version_info < (3, 15):
        main.__dict__["__cached__"] = None
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    return lambda: _run_source(source, path, main)


def run(start: Callable[[], None]) -> None:
    """Call what `load` gave."""
    try:
        start()
    except SystemExit:
        raise
    except BaseException:
        hook = sys.excepthook

        def show(
            kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
        ) -> None:
            sys.excepthook = hook
            inside = _inside(trace)
            hook(kind, error.with_traceback(inside), inside)

        sys.excepthook = show
        raise


def _run_module(name: str) -> None:
    try:
        runpy._get_module_details(name, NoProgramError)  # type: ignore[attr-defined]
    except NoProgramError as error:
        raise NoProgramError(str(error)) from None
    _run_as_main(name, True)


def _run_as_main(name: str, alter_argv: bool) -> None:
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run_source(source: bytes, path: str, main: types.ModuleType) -> None:
    exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - the task


#: The last frames before the program's.
_LAST = {_run_module.__code__, _run_as_main.__code__, _run_source.__code__}


def _inside(trace: types.TracebackType | None) -> types.TracebackType | None:
    """The part of a traceback that is the program's."""
    found = trace
    while trace is not None:
        if trace.tb_frame.f_code in _LAST:
            found = trace.tb_next
        trace = trace.tb_next
    return found


def _first_path(folder: str) -> None:
    """Make it the first entry of `sys.path`, in place of the one for this command."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[:1] = [folder]
