"""The other public functions: `parallel_map`, `@parallel`, `amap`, `share` and their kin.

Guarantees: misuse is refused here, before any worker starts.
May import: `_executors` and below.
"""
