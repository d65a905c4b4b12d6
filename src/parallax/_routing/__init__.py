"""Loop, threads or processes: the cost model and the decisions that follow from measurements.

Guarantees: decisions are functions of values; every route carries its reason in words.
May import: `_scheduling`, `_profiling`, `_guard` and below.
"""
