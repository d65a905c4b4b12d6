"""The side-effect guard: what a callable reads and changes outside itself.

`effects` is the only module that other packages import. Below it, `scan` interprets bytecode over
abstract values, and `fingerprint` compares state while the first items run.
Guarantees: no code of the program is run in order to judge the program.
May import: `_transport` and below.
"""
