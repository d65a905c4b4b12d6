"""Ways to run workers: threads, processes, and executors of the program.

Guarantees: each backend keeps the contract of `contract.py`; user code runs in workers only.
May import: `_reporting` and below, but no decisions: not `_guard`, `_profiling`, `_routing`.
"""
