"""The command line: `parallax demo` and what it shows.

May import: everything.
"""
