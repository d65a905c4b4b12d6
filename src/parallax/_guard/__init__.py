"""What a callable reads and changes outside itself: the side-effect guard.

`effects` is the face; below it `calls` and its kin say what operations mean, `frame` interprets
bytecode that `code` decodes, `values` and `lookup` know where values come from.
Guarantees: nothing of the program's is run in order to judge it.
May import: `_transport` and below.
"""
