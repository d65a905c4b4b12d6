"""Starting worker processes: fork server, direct fork, spawn, and their initializers.

Guarantees: only single-threaded processes are forked, unless the caller asked for it.
May import: `processes.common`, `processes.worker` and what backends may.
"""
