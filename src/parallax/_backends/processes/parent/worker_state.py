"""The life of a worker process as its parent sees it: seven states, one table of transitions.

    STARTING --------> IDLE <-------> WORKING <-------> BORROWED
        |  hello        |   assigned     |   direct read    |
        |               |    answered    |                  |
        +---------------+-------+--------+------------------+
                                |                           |
                        cut off or killed             CONDEMNED
                                |                           |
                            LEAVING <-----------------------+    its socket is closed here
                                |
                              GONE                               its exit status was collected

Why no work is lost or run twice, each claim with what ensures it:

- A worker has one holder: the pool, one run, or one executor. Only the holder changes its state.
- Only an IDLE worker is handed on: the pool lends those, an executor's queue feeds those. It owes
  nothing, so no answer can arrive that its next holder did not ask for.
- A STARTING worker may be handed on as well. Frames that are sent ahead wait in its socket, and
  its holder tells by what it sent whether the hello makes it IDLE or WORKING.
- One thread at a time reads a socket: of a BORROWED worker the thread that waits for one of its
  results, of all others the one that waits on the selector.
- A CONDEMNED worker gets nothing more and goes back to nobody. Either it was killed for one task,
  so what else it holds is not to blame; or an exception of a signal handler came between a system
  call and its bookkeeping, so that nobody knows what was sent or received.
- LEAVING is entered where the socket is closed, and never left but for GONE: whoever finds a
  worker in one of the two has nothing to read from it.

Whether a worker has *begun* any work of its holder is evidence, not a state: a working and an idle
one may have. It decides whether its death may be the fault of what it held.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The process was asked for and has not said hello.
STARTING = "starting"
#: It owes nothing: it waits in the pool, or for a task of its executor.
IDLE = "idle"
#: It is lent to a run, or holds tasks of its executor.
WORKING = "working"
#: It holds tasks, and the thread that waits for one of them reads its socket.
BORROWED = "borrowed"
#: It is to be killed, or was, and its end of file has not been read.
CONDEMNED = "condemned"
#: Our ends of its connections are closed; its exit status is not known yet.
LEAVING = "leaving"
#: Nothing is left of it to look after.
GONE = "gone"

#: The states that may follow each state.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    STARTING: frozenset({IDLE, WORKING, CONDEMNED, LEAVING}),
    IDLE: frozenset({WORKING, CONDEMNED, LEAVING}),
    WORKING: frozenset({IDLE, BORROWED, CONDEMNED, LEAVING}),
    BORROWED: frozenset({IDLE, WORKING, CONDEMNED, LEAVING}),
    CONDEMNED: frozenset({LEAVING}),
    LEAVING: frozenset({GONE}),
    GONE: frozenset(),
}


class WorkerLife:
    def __init__(self) -> None:
        self.state = STARTING

    @property
    def alive(self) -> bool:
        """Whether our end of its socket is open; its process may have ended all the same."""
        return self.state is not LEAVING and self.state is not GONE

    def enter(self, state: str) -> None:
        """Change the state, as the table allows."""
        assert state in TRANSITIONS[self.state], f"a worker that is {self.state} cannot be {state}"
        self.state = state

    def condemn(self) -> None:
        """Nothing more is sent to it, and nobody else gets it. Idempotent."""
        if self.alive and self.state is not CONDEMNED:
            self.enter(CONDEMNED)
