"""The workloads, one module per reason for a callable to be fast or slow in parallel.

Each module holds `WORKLOADS` and the functions it names, at module level, so that libraries which
use plain pickle can run them. Nothing is imported here: a worker that needs one workload
must not pay for the libraries of the others.
"""
