"""The process engine against the pools of the standard library."""
