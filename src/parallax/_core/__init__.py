"""The ground floor: options, errors, futures, chunks and what this machine has.

Guarantees: values and small mechanisms only; nothing here starts a thread or a process.
May import: nothing of parallax.
"""
