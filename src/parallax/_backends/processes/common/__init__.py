"""What parent, worker and start-up share: protocol numbers, environment, process trees.

Guarantees: cheap to import, for every worker loads it.
May import: what backends may.
"""
