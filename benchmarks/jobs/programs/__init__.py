"""The jobs, a module each: `work`, `items()`, and the imports at the top, as in programs."""
