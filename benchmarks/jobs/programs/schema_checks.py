"""Documents checked against a JSON schema."""

from __future__ import annotations

import jsonschema

VALIDATOR = jsonschema.Draft202012Validator(
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z ]+$"},
                "age": {"type": "integer", "minimum": 0},
                "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            },
            "required": ["name", "age"],
        },
    }
)


def work(document: list[dict[str, object]]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(document)]


def items() -> list[list[dict[str, object]]]:
    return [
        [
            {"name": "ann lee", "age": (n * row) % 90 - 2, "tags": ["a", "b", str(row % 3)]}
            for row in range(16)
        ]
        for n in range(110)
    ]
