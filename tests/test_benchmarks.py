"""The benchmark commands load, and each row of a table has something that measures it."""

from __future__ import annotations

import argparse
import ast
import importlib
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from benchmarks.common.launch import Sample
from benchmarks.jobs import command as jobs
from benchmarks.jobs import programs
from benchmarks.jobs.catalog import WORKLOADS
from benchmarks.routing.table import Row


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


def test_each_job_says_what_it_does_and_has_work_and_items():
    for job in WORKLOADS:
        tree = ast.parse((Path(programs.__path__[0]) / f"{job.name}.py").read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert defined >= {"work", "items"}, job.name
        assert job.family, job.name
    assert len(WORKLOADS) >= 40


@pytest.mark.parametrize(("ours", "kept"), [(0.107, True), (0.109, False), (None, None)])
def test_the_promise_to_a_job_is_a_twentieth_and_three_milliseconds(ours, kept):
    seconds = {"loop": 0.1, "parallax": ours}
    row = Row(WORKLOADS[0])
    for way, first in seconds.items():
        if first is not None:
            row.samples.append(Sample(way, "ok", {"first": first, "digest": "same"}))
    assert jobs.keeps_promise(row) is kept
    for sample in row.samples:
        sample.facts["first_cpu"] = 0.1
    assert {None: "-", True: "kept", False: "broken"}[kept] in jobs._line(row).split()
    assert len(jobs._TITLES) == len(jobs._WIDTHS)
