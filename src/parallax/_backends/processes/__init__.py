"""Worker processes: how they are started, what they run, how the parent talks to them.

Guarantees: no lock is shared between processes; whatever dies, its items are known.
May import: what backends may.
"""
