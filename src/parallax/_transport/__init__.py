"""Objects become bytes and travel: pickling, framing, wake-ups, shared-memory channels.

Guarantees: one private socket per peer; a frame is received whole or not at all; sending never
blocks receiving.
May import: `_shm` and below.
"""
