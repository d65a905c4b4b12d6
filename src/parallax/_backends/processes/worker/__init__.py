"""The worker's side: receive chunks and calls, run them, send outcomes and output.

Guarantees: user code runs in the main thread; a worker ends when its socket does.
May import: `processes.common` and what backends may.
"""
