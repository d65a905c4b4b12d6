"""What the benchmarks have in common; workers import this package, so nothing is imported here."""
