"""The command line: `parallax profile`, `explain`, `doctor`, `demo`, and what they show.

May import: everything.
"""
