"""Shared memory: arenas, the slabs lent from them, and the views a receiver gets.

Guarantees: the sender decides when memory is reused; a dead process leaks nothing.
May import: `_core`.
"""
