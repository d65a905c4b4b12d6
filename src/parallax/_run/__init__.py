"""One `parallel_map` call, from its first item to its report.

Guarantees: results in order, no item lost, no worker kept by a call that has ended.
May import: `_backends` and below.
"""
