"""What a cell tells the benchmark that launched it: one JSON object a line, behind `MARK`.

Nothing is imported here before it is needed: an interpreter whose start is measured imports this.
"""

from __future__ import annotations

MARK = "@cell "


def tell(event: str, **facts: object) -> None:
    import json

    print(MARK + json.dumps({"event": event, **facts}), flush=True)
