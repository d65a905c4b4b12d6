"""Which worker gets which items next: pure state machines without clock, threads or I/O.

Guarantees: each item is sent until it has an outcome, and emitted exactly once.
May import: `_core`.
"""
