"""The benchmark commands load, and each row of a table has something that measures it."""

from __future__ import annotations

import argparse
import importlib

import pytest

from benchmarks.__main__ import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_options_and_runs_without_any(name):
    command = importlib.import_module(f"benchmarks.{name}.command")
    parser = argparse.ArgumentParser()
    command.configure(parser)
    options = parser.parse_args([])
    assert callable(command.run)
    assert options.json is None
    assert not options.quick


@pytest.mark.parametrize("name", ["engine", "executor", "data"])
def test_each_row_of_a_table_is_measured(name):
    table = importlib.import_module(f"benchmarks.{name}.command").BENCHMARK.table
    measures = importlib.import_module(f"benchmarks.{name}.measures").MEASURES
    wanted = {cell for row in table.rows for cell in row.cells()}
    assert wanted == set(measures)
    assert {cell.name for cell in table.cells} <= wanted


def test_unknown_row_is_refused(capsys):
    command = importlib.import_module("benchmarks.engine.command")
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args(["--only", "submits,nonsense"])) == 2
    assert "unknown row nonsense; there are: submits, latency" in capsys.readouterr().err
