"""``parallax explain``: what `parallel_map` would do with a function of an importable module."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterable
from typing import Any

from parallax._api.map import explain
from parallax._cli.terminal import misuse, write


class _UseError(Exception):
    """What is wrong with the command line."""


def run_explain(options: argparse.Namespace) -> int:
    """Explain; an item that fails is shown with its traceback, and is status 1."""
    sys.path.insert(0, os.getcwd())
    try:
        fn, module = _function(options.function)
        items = _items(options, module)
    except _UseError as error:
        return misuse("explain", str(error))
    except OSError as error:
        return misuse("explain", f"can't open {error.filename!r}: {error.strerror}")
    try:
        report = explain(fn, items, max_workers=options.max_workers)
    except (TypeError, ValueError) as error:
        if error.__traceback__ is not None and _raised_by(fn, error):
            traceback.print_exc()
            return 1
        return misuse("explain", str(error))
    except Exception:  # noqa: BLE001 - the function's
        traceback.print_exc()
        return 1
    if options.json != "-":
        print(report)
    if options.json is not None:
        write(report.to_dict(), options.json)
    return 0


def _function(name: str) -> tuple[Callable[..., Any], types.ModuleType]:
    place, colon, attributes = name.partition(":")
    if not (place and colon and attributes):
        raise _UseError(f"{name!r} is not MODULE:FUNCTION, as in mymodule:parse")
    try:
        module = importlib.import_module(place)
    except Exception as error:  # noqa: BLE001 - whatever the module does
        if isinstance(error, ModuleNotFoundError) and place.startswith(str(error.name)):
            raise _UseError(f"there is no module {error.name!r}") from None
        why = f"{type(error).__name__}: {error}"
        raise _UseError(f"module {place!r} cannot be imported: {why}") from None
    found: Any = module
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise _UseError(f"module {place!r} has no function {attributes!r}") from None
    if not callable(found):
        raise _UseError(f"{name!r} is of type {type(found).__name__} and cannot be called")
    return found, module


def _items(options: argparse.Namespace, module: types.ModuleType) -> Iterable[Any]:
    if options.items is None:
        return _read(options.items_from)
    try:
        found = eval(options.items, dict(vars(module)))  # noqa: S307 - the user's own command line
        iter(found)
    except Exception as error:  # noqa: BLE001 - whatever the expression does
        why = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise _UseError(f"--items {options.items!r} gives no items: {why}") from None
    return found  # type: ignore[no-any-return]


def _read(path: str) -> list[Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise _UseError(f"{path!r} is not UTF-8 text: {error.reason}") from None
    if not path.endswith(".json") and not text.lstrip().startswith("["):
        return text.splitlines()
    try:
        found = json.loads(text)
    except ValueError as error:
        if not path.endswith(".json"):
            return text.splitlines()
        raise _UseError(f"{path!r} is not JSON: {error}") from None
    if not isinstance(found, list):
        raise _UseError(f"{path!r} holds no list of items")
    return found


def _raised_by(fn: Callable[..., Any], error: BaseException) -> bool:
    """Whether an error comes from inside of the function, and not from a check before it."""
    code, trace = getattr(fn, "__code__", None), error.__traceback__
    while trace is not None:
        if code is None or trace.tb_frame.f_code is code:
            return True
        trace = trace.tb_next
    return False
