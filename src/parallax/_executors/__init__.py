"""`Executor`, `ThreadPoolExecutor` and `ProcessPoolExecutor`: the faces of the engines.

Guarantees: signatures and behaviour of `concurrent.futures`; what differs is documented.
May import: `_run`, `_adaptive` and below.
"""
