"""The measures of the executor benchmark by cell; each is explained where it is."""

from __future__ import annotations

from benchmarks.executor import automatic, processes, threads

MEASURES = {**threads.MEASURES, **processes.MEASURES, **automatic.MEASURES}
