"""Real jobs with real packages: `parallel_map` against the loop that it replaces."""
