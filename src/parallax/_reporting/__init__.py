"""What users are told: reports, progress bars, warnings about work that is stuck.

Guarantees: nothing here changes what is computed.
May import: `_routing` and below.
"""
