"""Ways to run workers: one contract (``contract.py``) and one file or folder per backend."""
