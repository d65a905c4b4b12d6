"""Settings in YAML, each file into a flat dictionary."""

from __future__ import annotations

import yaml


def work(text: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for section, settings in yaml.safe_load(text).items():
        for key, value in settings.items():
            flat[f"{section}.{key}"] = value
    return flat


def items() -> list[str]:
    return [
        "\n".join(f"section{s}:\n  host: h{n}\n  port: {s}\n  on: true" for s in range(5))
        for n in range(110)
    ]
