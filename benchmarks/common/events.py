"""What a cell tells the benchmark that launched it: one JSON object a line, behind `MARK`.

Nothing is imported here before it is needed: an interpreter whose start is measured imports this.
"""

from __future__ import annotations

MARK = "@cell "


def tell(event: str, **facts: object) -> None:
    import json

    print(MARK + json.dumps({"event": event, **facts}), flush=True)


def fail(error: BaseException) -> None:
    """Tells the error of a cell, and ends the process at once.

    A pool that failed may never shut down; the launching process ends what is left of it.
    """
    import os
    import sys
    import traceback

    tell("failed", error=f"{type(error).__name__}: {error}"[:300])
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)
