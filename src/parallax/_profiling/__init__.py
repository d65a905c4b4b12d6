"""How a callable behaves, measured while it works: GIL, CPU time, waiting, native threads.

Guarantees: only real calls are measured; what could not be measured is said to be unknown.
May import: `_guard` and below.
"""
