"""The words that parent and worker exchange; see ``_wire`` for how they are framed.

    parent -> worker                          worker -> parent
    CONTEXT   cwd, environment, sys.path...   HELLO    tag = pid: it can take work
    CALL      tag = key: a callable           RESULT   tag = chunk: outcome of a chunk
    FORGET    tag = key: drop that callable   REFUSED  tag = chunk: (what, path, reason)
    USE       tag = key: next tasks use it    BYE      it leaves after idling; nothing was begun
    TASK      tag = chunk: items
    RELEASE   tag = milliseconds to idle      BEGUN    it takes up its first task since USE

States of a worker: starting -> HELLO -> idle -> (USE) leased -> (RELEASE) idle -> BYE or
end-of-file. Tasks are answered in the order they came.
"""

from __future__ import annotations

CONTEXT = 1
CALL = 2
FORGET = 3
USE = 4
TASK = 5
RELEASE = 6

HELLO = 65
RESULT = 66
REFUSED = 67
BYE = 68
BEGUN = 69

#: Variables that size native thread pools. One thread per worker unless the user says otherwise:
#: n workers with n native threads each would fight for the cores.
NATIVE_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
