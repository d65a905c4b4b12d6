"""Work that needs pandas, in a module that imports it at the top, as a program would have it."""

from __future__ import annotations

import pandas as pd

from benchmarks.common.work import meet


def use_pandas(folder: str, number: int) -> tuple[int, bool]:
    """Uses pandas once, then waits for the other workers, so that each has done so."""
    frame = pd.DataFrame({"group": [1, 2] * 50, "value": range(100)})
    assert int(frame.groupby("group")["value"].sum().sum()) == 4950
    return meet(folder, number)
