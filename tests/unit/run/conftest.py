"""Every scheduler of these tests is validated after each event."""

from helpers.scheduler_checks import checked_schedulers  # noqa: F401
