"""The words that parent and worker exchange; see ``_wire`` for how they are framed.

    parent -> worker                          worker -> parent
    CONTEXT   cwd, environment, sys.path...   HELLO    tag = pid: it can take work
    CALL      tag = key: a callable           RESULT   tag = chunk: outcome of a chunk
    FORGET    tag = key: drop that callable   REFUSED  tag = chunk: (what, path, reason)
    USE       tag = key: next tasks use it    BYE      tag = why it leaves: idle, AT_LIMIT or
    TASK      tag = chunk: items                       CANNOT_LOAD; what it owes runs elsewhere
    RELEASE   tag = milliseconds to idle      BEGUN    it takes up its first task since USE
    INIT      tag = key: call it once         FAILED   tag = key: the exception that INIT raised
    STATE     a module-level value            RETURNED [(batch, how many were not begun)]
    BATCH     tag = batch: (key, arguments)   YIELDED  [(chunk, how many it keeps)]
                                              OUTPUT     tag = what: output, record, warning
    the signal RECALL: give back what has not begun

States of a worker: starting -> HELLO -> idle -> (USE) leased -> (RELEASE) idle -> BYE or
end-of-file. An executor's worker is never leased: it gets batches from HELLO to end-of-file. Tasks
are answered in the order they came; a batch may be answered in several RESULTs.
"""

from __future__ import annotations

from parallax._core.light_stdlib import signals

CONTEXT = 1
CALL = 2
FORGET = 3
USE = 4
TASK = 5
RELEASE = 6
INIT = 7
BATCH = 8
STATE = 9

HELLO = 65
RESULT = 66
REFUSED = 67
BYE = 68
BEGUN = 69
FAILED = 70
RETURNED = 71
YIELDED = 72
OUTPUT = 73

#: The tag of a BYE at a limit on a worker's items or memory.
AT_LIMIT = 1

#: The tag of a BYE of an interpreter that cannot load an extension module; its payload says which.
CANNOT_LOAD = 2

#: The tag of OUTPUT: one of these, with FIRST if a record or warning begins, MORE if it goes on.
OUT, ERR, RECORD, WARNING = range(4)
FIRST, MORE = 4, 8

#: Seconds that a worker has to leave by itself when its parent is gone. Shorter loses output that
#: was not written yet, longer keeps the items of a program running that has ended.
ORPHAN_GRACE_S = 0.3

#: Asks a worker to give back what it has not begun. Ignored by programs unless they ask for it, so
#: what an item starts is not disturbed. None where there are no signals between processes.
RECALL: int | None = getattr(signals, "SIGURG", None)
