"""`parallel_map` without options against the best way chosen by hand."""
