"""The executors in the place of those of `concurrent.futures`."""
