"""Holds reports against the schema in docs/reports.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
SCHEMAS = {
    kind: json.loads(text)
    for kind, text in re.findall(r"<!-- schema (\w+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
}
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def faults(value, schema, path="report"):
    """What in a value is not as the schema says, with its path."""
    if isinstance(schema, str):
        if value is None and schema.endswith("?"):
            return []
        kind = schema.rstrip("?")
        right = isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")
        return [] if right else [f"{path}: {value!r} is no {schema}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        return [f for at, v in enumerate(value) for f in faults(v, schema[0], f"{path}[{at}]")]
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is no object"]
    if "*" in schema:
        return [f for key, v in value.items() for f in faults(v, schema["*"], f"{path}.{key}")]
    named = {key.rstrip("?"): key for key in schema}
    found = [f"{path}: {key} is missing" for key in named.keys() - value.keys()]
    found += [f"{path}: {key} is not in the schema" for key in value.keys() - named.keys()]
    for key in named.keys() & value.keys():
        if value[key] is not None or not named[key].endswith("?"):
            found += faults(value[key], schema[named[key]], f"{path}.{key}")
    return found


def checked(report):
    """The report as plain values, which are what the schema says and survive JSON."""
    found = report.to_dict()
    assert (found["schema"], found["version"]) == ("parallax.report", 1)
    assert faults(found, SCHEMAS[found["kind"]]) == []
    assert json.loads(report.to_json()) == json.loads(json.dumps(found, allow_nan=False))
    return found
