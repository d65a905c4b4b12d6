"""Benchmarks of parallax against the ways a programmer would choose by hand.

Run from the repository root: `python -m benchmarks` lists what there is.
"""
