"""What is said of an input that raised and whose results nobody has read so far.

Guarantees: nothing is raised, as finalizers call it.
"""

from __future__ import annotations


def log_unread(name: str, error: BaseException) -> None:
    """Log the error of an input that reaches nobody otherwise; ``name`` is the callable's."""
    try:
        import logging  # most programs have no such error
    except ImportError:
        return  # the interpreter has all but ended
    logging.getLogger("parallax").error(
        "the input of a map of %s raised %s, and nobody has read the results that far. "
        "Items behind it were not run",
        name,
        type(error).__name__,
        exc_info=error,
    )
