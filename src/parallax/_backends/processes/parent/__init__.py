"""The parent's side: the warm pool, workers of maps and of executors, their output and ends.

Guarantees: a worker is used by one owner at a time; each one's end is diagnosed.
May import: `processes.start` and below.
"""
